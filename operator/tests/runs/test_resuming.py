"""A resume needs a blocked phase of an open run of this very build; everything else is refused with its reason."""

from dataclasses import replace

import pytest

from fp_contracts import control as c
from fp_contracts.fold import Attempt, RunState
from fp_operator import resuming
from fp_operator.resuming import Reset
from fp_runtime.errors import UserError

from .pinned import BUILD, HEADER, RUN

PASSED = {key: Attempt(1, "PASS") for key in ("P(-1)", "P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7")}
BLOCKED = RunState(RUN, header=HEADER, attempts={**PASSED, "P8": Attempt(1, "BLOCKED")})
PROGRAMS = ["kafka", "rtdl-0", "rtdl-1", "archive-0", "df-0", "meter-0"]


def test_a_blocked_phase_gets_a_new_attempt_and_its_lane_restarts() -> None:
    planned = resuming.plan(BLOCKED, "P8", "service_runtime", BUILD, PROGRAMS)
    assert planned == Reset("P8", 2, "service_runtime", ("rtdl-0", "rtdl-1", "archive-0"))


@pytest.mark.parametrize(
    ("state", "phase", "reset", "build", "why"),
    [
        (replace(BLOCKED, header=None), "P8", "service_runtime", BUILD, "never pinned"),
        (replace(BLOCKED, closed=c.RunClosed(reason="verdict_published")), "P8", "service_runtime", BUILD, "is over"),
        (replace(BLOCKED, stopped=c.RunStopped(actor="a", reason="b")), "P8", "service_runtime", BUILD, "is over"),
        (BLOCKED, "P8", "service_runtime", "9" * 64, "not the one that the run pinned"),
        (BLOCKED, "P7", "service_runtime", BUILD, "PASS, not BLOCKED"),
        (BLOCKED, "P9", "service_runtime", BUILD, "OPEN, not BLOCKED"),
        (replace(BLOCKED, attempts={"P8": Attempt(1, "BLOCKED")}), "P8", "service_runtime", BUILD, "P7 before it"),
        (BLOCKED, "P8", "data_replay", BUILD, "no policy defines one"),
        (BLOCKED, "P8", "delete_everything", BUILD, "no such class"),
    ],
)
def test_anything_else_is_refused(state: RunState, phase: str, reset: str, build: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        resuming.plan(state, phase, reset, build, PROGRAMS)
