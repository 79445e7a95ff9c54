"""Where the learning lane stands, and the approval that is given with the run."""

from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.bundle import BundleRef
from fp_contracts.fold import Attempt, RunState
from fp_contracts.runconfig import Window, config_digest
from fp_operator import approving, status
from fp_operator.corridor import standing

from .pinned import HEADER, RUN

WINDOWS = (Window(start_us=0, end_us=90), Window(start_us=90, end_us=120))
CONFIG = HEADER.config.model_copy(update={"scope": "full", "windows": WINDOWS})
FULL = HEADER.model_copy(update={"config": CONFIG, "run_config_digest": config_digest(CONFIG)})
REF = c.EvidenceRef(key="k", sha256="a" * 64, size=1)
TOLD = c.TeardownRehearsed(
    scratch_run="platform_20260101T001000Z-r0123456789ab", actor="a", reason="b", evidence=(), outlived=()
)
GIVEN = c.BundleApprovalGiven(bundle_id="e" * 32, model_digest="a" * 64, actor="reviewer", reason="r")


def upto(phase: str, **known: Any) -> RunState:
    passed = {f"P{n}": Attempt(1, "PASS") for n in range(int(phase[1:]))}
    return RunState(RUN, header=FULL, attempts=passed, **known)


def ended(window: int) -> c.WindowEnded:
    return c.WindowEnded(window=window, lane_seqs={}, ledger_ref=REF)


def on_it(effective_us: int, parts: int, revision: int = 1) -> tuple[c.BundleSwitched, ...]:
    return tuple(
        c.BundleSwitched(bundle_slot="s", revision=revision, bundle_ref="bundle:x", source="global",
                         effective_us=effective_us, partition=part, merged_n=1)
        for part in range(parts)
    )  # fmt: skip


def beat(**metrics: int) -> dict[str, c.ServiceHeartbeat]:
    said = c.ServiceHeartbeat(
        service="ofs_trigger", instance="ofs_trigger-0", run_config_digest="a" * 64, build_digest="b", profile="local",
        ready=True, telemetry_us=1, at_us=1, metrics=metrics,
    )  # fmt: skip
    return {"ofs_trigger-0": said}


BOTH = {1: ended(1), 2: ended(2)}
ONE = {1: ended(1)}
DONE = {2: c.WindowReconciled(window=2, checks=(), report_ref=REF)}
CASES: list[tuple[RunState, str]] = [
    (upto("P12"), "P12 job is asked for"),
    (upto("P14", heartbeats=beat(job_done=3, job_total=8)), "P14 job 3 of 8"),
    (upto("P15", windows_ended=ONE), "P15 waits for an approval"),
    (upto("P15", windows_ended=ONE, approvals=(GIVEN,), bundles=on_it(90, 4)), "P15 promotion: 4 of 6"),
    (upto("P15", windows_ended=ONE, approvals=(GIVEN,), bundles=(*on_it(90, 6), *on_it(100, 2, 2))),
     "P15 window 2 flows, rollback on 2 of 6, re-promotion on 0 of 6"),
    (upto("P15", windows_ended=BOTH, approvals=(GIVEN,), bundles=on_it(90, 6)), "P15 window 2 is sent"),
    (upto("P15", windows_ended=BOTH, reconciled=DONE), "P15 window 2 is reconciled"),
    (upto("P16"), "P16 waits for the rehearsal of a teardown"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "line"), CASES)
def test_every_step_of_the_learning_lane_says_where_it_is(state: RunState, line: str) -> None:
    said = standing(state)
    assert said is not None
    assert said.startswith(line)
    phase, _, rest = said.partition(" ")
    assert status.why(state, phase)["next"] == f"{rest}; fp watch"


def test_nothing_is_said_outside_the_learning_lane() -> None:
    assert standing(RunState(RUN)) is None
    assert standing(upto("P11")) is None
    assert standing(upto("P16", rehearsals=(TOLD,))) is None
    assert standing(RunState(RUN, header=HEADER, attempts=upto("P12").attempts)) is None


def test_a_standing_approval_waits_for_p14_and_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    bundle = BundleRef(bundle_id="e" * 32, model_digest="a" * 64, manifest=REF)
    monkeypatch.setattr(approving, "candidate_of", lambda state, store: bundle)
    approver = approving.StandingApproval("reviewer", None, lambda state, events: said.extend(events))  # type: ignore[arg-type]
    approver.look(upto("P14"))
    assert said == []
    approver.look(upto("P15"))
    approver.look(upto("P15"))
    assert [(event.actor, event.reason) for event, _ in said] == [("reviewer", approver.REASON)]


def test_what_is_approved_already_is_not_approved_again() -> None:
    approver = approving.StandingApproval("reviewer", None, lambda state, events: pytest.fail("again"))  # type: ignore[arg-type]
    approver.look(upto("P15", approvals=(GIVEN,)))
