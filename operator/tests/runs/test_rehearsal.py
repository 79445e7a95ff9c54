"""When a teardown is rehearsed, by whom, how often; and that a note finds a scratch namespace again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.fold import Attempt, RunState
from fp_operator import namespace
from fp_operator.rehearsal import program
from fp_operator.runplan import Digests
from fp_operator.stack import StackAddresses
from fp_operator.substrate import Environment
from fp_runtime.errors import UserError

from .pinned import HEADER, RUN

FULL = HEADER.model_copy(update={"config": HEADER.config.model_copy(update={"scope": "full"})})
DUE = RunState(RUN, header=FULL, attempts={"P11": Attempt(1, "PASS")})
TOLD = c.TeardownRehearsed(
    scratch_run="platform_20260101T001000Z-r0123456789ab", actor="a", reason="b", evidence=(), outlived=()
)
VERDICT = c.VerdictPublished(
    verdict="BLOCKED", spine_verdict="GREEN", profile="local", merkle_root="b" * 64,
    verdict_ref=c.EvidenceRef(key="k", sha256="a" * 64, size=1),
)  # fmt: skip


def environment(folder: Path) -> Environment:
    addresses = StackAddresses("k:1", "postgresql://o:p@h/fp", "redis://h", "file:///e", "file:///a", "file:///o")
    return Environment(folder, addresses, {}, Digests("a", "b", "c", "d"), ())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The actors of the rehearsals that were started; none is ever found alive."""
    found: list[str] = []
    monkeypatch.setattr(program, "alive", lambda supervisor: False)
    monkeypatch.setattr(program, "start", lambda environment, run, actor: found.append(actor))
    return found


def test_a_watched_run_is_rehearsed_once_p11_is_closed_and_tried_thrice_at_most(
    tmp_path: Path, started: list[str]
) -> None:
    rehearser = program.Rehearser(environment(tmp_path))
    rehearser.look(replace(DUE, attempts={}))
    assert started == []
    asked = c.RunPinRequested(scenario_run_id="1" * 32, config=FULL.config, actor="somebody")
    for _ in range(9):
        rehearser.look(replace(DUE, pin_request=asked))
    assert started == ["somebody"] * program.STARTS


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"header": HEADER}, "only a run of scope full"),
        ({"header": None}, "only a run of scope full"),
        ({"attempts": {}}, "P11 is not closed yet"),
        ({"verdict": VERDICT}, "the run is over"),
        ({"closed": c.RunClosed(reason="x")}, "the run is over"),
        ({"stopped": c.RunStopped(actor="a", reason="b")}, "the run is over"),
    ],
)
def test_a_run_that_cannot_be_rehearsed_says_why(
    change: dict[str, Any], why: str, tmp_path: Path, started: list[str]
) -> None:
    state = replace(DUE, **change)
    with pytest.raises(UserError, match=why):
        program.check(state)
    program.Rehearser(environment(tmp_path)).look(state)
    assert started == []


def test_a_run_that_was_rehearsed_is_not_rehearsed_again_unasked(tmp_path: Path, started: list[str]) -> None:
    state = replace(DUE, rehearsals=(TOLD,))
    program.Rehearser(environment(tmp_path)).look(state)
    assert started == []
    program.check(state)


def test_one_that_is_under_way_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "alive", lambda supervisor: True)
    program.Rehearser(environment(tmp_path)).look(DUE)
    program.start(environment(tmp_path), RUN, "a")


def test_a_namespace_is_noted_before_anything_of_it_exists_and_found_by_its_note(tmp_path: Path) -> None:
    first, second = (namespace.new_scratch(tmp_path, port) for port in (1, 2))
    assert {space.scratch for space in namespace.noted(tmp_path)} == {first.scratch, second.scratch}
    assert first.scratch is not None
    assert namespace.read(namespace.note_of(tmp_path, first.scratch)) == first
    for space in (first, second):
        space.state_dir.rmdir()
