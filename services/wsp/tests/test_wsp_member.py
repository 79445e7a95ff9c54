"""The end of one run's window is never said of another run."""

from fp_contracts.control import EvidenceRef, WindowEnded
from fp_contracts.fold import RunState
from fp_wsp.member import Shared

RUN, NEXT = "platform_20260101T000000Z", "platform_20260101T000001Z"


def _ended() -> WindowEnded:
    return WindowEnded(window=1, lane_seqs={"0": 5}, ledger_ref=EvidenceRef(key="k", sha256="a" * 64, size=1))


def test_window_ended_is_published_on_its_own_run_only() -> None:
    shared = Shared(run=RUN, ended={1: _ended()})
    assert [event.window for event, _ in shared.react(RunState(RUN))] == [1]
    assert shared.react(RunState(NEXT)) == ()


def test_what_is_on_the_log_is_not_repeated() -> None:
    shared = Shared(run=RUN, ended={1: _ended()})
    assert shared.react(RunState(RUN, windows_ended={1: _ended()})) == []
