"""When a watch ends, how fast a run is, what it exits with and what comes next."""

from pathlib import Path
from typing import Literal

import pytest

from fp_contracts import control as c
from fp_contracts.fold import Attempt, RunState
from fp_operator import following, results, status
from fp_operator.cli.output import Exit
from fp_operator.cli.running import exit_code, next_step
from fp_operator.following import Moment, Progress

from .pinned import HEADER, RUN

CLOSED = c.RunClosed(reason="verdict_published")
Word = Literal["GREEN", "BLOCKED", "FAIL"]


def verdict(spine: Word, whole: Word = "BLOCKED") -> c.VerdictPublished:
    ref = c.EvidenceRef(key="k", sha256="a" * 64, size=1)
    return c.VerdictPublished(
        verdict=whole, spine_verdict=spine, profile="local", merkle_root="b" * 64, verdict_ref=ref
    )  # fmt: skip


def test_a_watch_ends_by_verdict_stop_or_a_phase_that_waits_for_the_operator_only() -> None:
    assert following.over(RunState(RUN)) is None
    assert following.over(RunState(RUN, verdict=verdict("GREEN"))) is None
    assert following.over(RunState(RUN, verdict=verdict("GREEN"), closed=CLOSED)) == "verdict"
    assert following.over(RunState(RUN, stopped=c.RunStopped(actor="a", reason="b"))) == "stopped"
    assert following.over(RunState(RUN, attempts={"P8": Attempt(1, "BLOCKED")})) == "blocked"
    assert following.over(RunState(RUN, attempts={"P14": Attempt(1, "BLOCKED")})) == "blocked"
    assert following.over(RunState(RUN, attempts={"P16": Attempt(1, "BLOCKED")})) is None


def test_rate_and_time_left() -> None:
    before, now = Progress(10.0, {"ingest": 100}, 1_000), Progress(12.0, {"ingest": 500}, 1_000)
    moment = Moment(RunState(RUN), now, before, before, 5.0)
    assert moment.rate_per_s() == 200.0
    assert moment.eta_s() == 2.5
    assert Moment(RunState(RUN), Progress(11.0, {"ingest": 500}, 0), before, before, 1.0).eta_s() is None
    assert Moment(RunState(RUN), now, now, now, 1.0).rate_per_s() == 0.0
    assert Moment(RunState(RUN), now, now, now, 1.0).eta_s() is None


@pytest.mark.parametrize(
    ("spine", "end", "code"),
    [
        ("GREEN", "verdict", Exit.GREEN),
        ("BLOCKED", "verdict", Exit.BLOCKED),
        ("FAIL", "verdict", Exit.FAIL),
        ("GREEN", "timeout", Exit.BLOCKED),
    ],
)
def test_the_exit_code_speaks_of_proof(spine: Word, end: str, code: Exit) -> None:
    assert exit_code(RunState(RUN, header=HEADER, verdict=verdict(spine)), end) is code


def test_a_full_run_exits_by_the_whole_platform() -> None:
    full = HEADER.model_copy(update={"config": HEADER.config.model_copy(update={"scope": "full"})})
    assert exit_code(RunState(RUN, header=full, verdict=verdict("GREEN", "BLOCKED")), "verdict") is Exit.BLOCKED
    assert exit_code(RunState(RUN, header=full, verdict=verdict("GREEN", "GREEN")), "verdict") is Exit.GREEN


def test_nothing_is_green_by_omission() -> None:
    document = status.document(RunState(RUN))
    assert (document["verdict"], document["spine_verdict"], document["final"]) == ("BLOCKED", "BLOCKED", False)
    assert {row["state"] for row in document["phases"]} == {"OPEN"}


def test_why_names_what_a_phase_waits_for_and_the_way_on() -> None:
    found = status.why(RunState(RUN, attempts={"P6": Attempt(1, "PASS")}), "P8")
    assert found["waits_for"] == ["P7"]
    assert found["next"] == "fp why 'P7'"
    blocked = status.why(RunState(RUN, attempts={"P8": Attempt(1, "BLOCKED")}), "P8")
    assert "fp resume --from 'P8'" in blocked["next"]
    over = status.why(RunState(RUN, attempts={"P6": Attempt(1, "BLOCKED")}, closed=CLOSED), "P6")
    assert "resume" not in over["next"]


def test_every_end_names_the_next_command() -> None:
    state = RunState(RUN, attempts={"P8": Attempt(1, "BLOCKED")})
    for end in ("verdict", "blocked", "stopped", "timeout"):
        assert "fp " in next_step(state, end, Path("/state"))


def test_a_difference_is_named_also_when_one_side_lacks_it() -> None:
    assert results.difference({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
