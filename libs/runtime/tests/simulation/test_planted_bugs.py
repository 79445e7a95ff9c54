"""Each planted bug is noticed by some seed: a simulation that cannot fail proves nothing."""

from collections.abc import Mapping
from typing import Any

import pytest

from fp_runtime.eventtime import merge, sequence
from fp_runtime.eventtime.sequence import LineBroken, Seen, SourceTrack

from .bugs import Bug
from .checks import check
from .expect import expect
from .kernel import Stuck, random_plan
from .run import simulate
from .world import build

SEEDS = 150
NOTICED = (AssertionError, Stuck, LineBroken)
# Where the faults must fall for a bug to matter; the other bugs need none, or any.
HUNT: Mapping[Bug, dict[str, Any]] = {
    Bug.FRONTIER_OVER_GAP: {"target": "ig", "rate": 6, "kills": 0, "batch": 40, "poll": 30, "skew": 60},
    Bug.DUPLICATE_TEST_WITHOUT_GAPS: {"target": "ig", "rate": 4, "batch": 8},
    Bug.UNKNOWN_DROPPED: {"target": "ig", "rate": 4},
    Bug.CLAIM_WITHOUT_OWNER: {"target": "ig", "rate": 0, "kills": 8, "writers": 1, "batch": 1},
    Bug.CLASS_BEFORE_PUBLISH: {"target": "ig", "rate": 4},
    Bug.LANE_GOES_ON_AFTER_202: {"target": "ig", "rate": 4},
    Bug.JOINS_NOT_IN_CHECKPOINT: {"target": "rtdl", "rate": 0, "kills": 8},
    Bug.CHECKPOINT_BEFORE_PUBLISH: {
        "target": "rtdl", "rate": 0, "kills": 4, "faults": 200, "batch": 40, "poll": 30, "skew": 60,
    },
    Bug.CHECKPOINT_WITHOUT_OWNER: {"target": "rtdl", "rate": 0, "kills": 8},
    Bug.CURSOR_CAPPED_AT_BOUND: {"target": "rtdl", "rate": 0, "kills": 8},
    Bug.PROGRESS_STORES_READ_OFFSET: {"target": "df", "rate": 4},
    Bug.PROGRESS_WITHOUT_COMPARE: {"target": "df", "rate": 4},
    Bug.STATE_NOT_REFED: {"target": "df", "rate": 4},
    Bug.GAPS_NOT_KEPT: {
        "target": ("df", "actions", "cases"), "rate": 8, "kills": 15, "faults": 400, "batch": 40, "skew": 60,
        "poll": 30, "take": None, "df_members": 1, "rtdl_members": 1,
    },
}  # fmt: skip


def plant(bug: Bug, patch: pytest.MonkeyPatch) -> None:
    """Bugs of the pure functions are planted there; all others by the switch in the simulated service."""
    if bug is Bug.FRONTIER_INCLUDES_TIES:
        patch.setattr(merge, "bisect_left", lambda pending, bound: merge_right(pending, bound[0]))
    elif bug is Bug.FRONTIER_OVER_GAP:
        patch.setattr(SourceTrack, "promise", _promise_over_gap)
        patch.setattr(SourceTrack, "accept", _accept_without_order_check)
    elif bug is Bug.DUPLICATE_TEST_WITHOUT_GAPS:
        patch.setattr(SourceTrack, "accept", _accept_without_gaps)


def merge_right(pending: list[merge.Head], bound: int) -> int:
    """How many heads lie at or below the bound."""
    return sum(head.order_us <= bound for head in pending)


def _promise_over_gap(self: SourceTrack, frontier_us: int, last_seq: int, offset: int = -1) -> None:
    self.frontier_us = max(self.frontier_us, frontier_us)


_accept = SourceTrack.accept


def _accept_without_order_check(self: SourceTrack, seq: int, payload_hash: bytes, order_us: int) -> Seen:
    return _accept(self, seq, payload_hash, max(order_us, self.frontier_us))


def _accept_without_gaps(self: SourceTrack, seq: int, payload_hash: bytes, order_us: int) -> Seen:
    seen = _accept(self, seq, payload_hash, order_us) if seq > self.last else sequence.Seen.DUPLICATE
    self.gaps.clear()
    return seen


def noticed(bug: Bug, seed: int) -> bool:
    """Whether the run of a seed fails in one of the ways that a rule can fail."""
    world = build(seed)
    plan = random_plan(seed, bug)
    if bug in HUNT:
        plan = plan._replace(**{"faults": 40, **HUNT[bug]})
    try:
        check(simulate(world, plan), expect(world))
    except NOTICED:
        return True
    return False


@pytest.mark.parametrize("bug", Bug, ids=lambda bug: bug.name.lower())
def test_a_planted_bug_is_noticed(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(bug, monkeypatch)
    assert any(noticed(bug, seed) for seed in range(SEEDS)), f"{bug.value}: {SEEDS} seeds did not notice"
