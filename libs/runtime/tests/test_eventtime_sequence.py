"""Sequences and frontiers of one source; LaneOrder."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS
from fp_runtime.eventtime.lane import LaneOrder
from fp_runtime.eventtime.sequence import HashConflict, OrderBroken, Seen, SequenceBroken, SourceTrack


def accept(track: SourceTrack, seq: int, order_us: int | None = None) -> Seen:
    return track.accept(seq, b"%d" % seq, seq * 10 if order_us is None else order_us)


def test_a_record_is_a_frontier_at_its_own_order() -> None:
    track = SourceTrack()
    assert accept(track, 1) is Seen.NEW
    assert (track.last, track.frontier_us) == (1, 10)


def test_a_gap_holds_the_frontier_until_it_is_filled() -> None:
    track = SourceTrack()
    accept(track, 1)
    accept(track, 3)
    track.promise(99, 3, offset=7)
    assert (track.frontier_us, track.gaps, track.contiguous, track.unsettled_offset()) == (10, {2}, 1, 7)
    assert accept(track, 2) is Seen.NEW
    assert (track.frontier_us, track.gaps, track.unsettled_offset()) == (99, set(), None)


def test_a_promise_below_the_gap_holds_at_once() -> None:
    track = SourceTrack()
    accept(track, 1)
    accept(track, 3)
    track.promise(15, 1)
    assert track.frontier_us == 15


def test_a_promise_shows_a_loss_at_the_tail() -> None:
    track = SourceTrack()
    accept(track, 1)
    track.promise(99, 3)
    assert (track.gaps, track.frontier_us) == ({2, 3}, 10)


def test_duplicates_are_told_from_fillings_and_conflicts() -> None:
    track = SourceTrack()
    accept(track, 1)
    assert accept(track, 1) is Seen.DUPLICATE
    with pytest.raises(HashConflict):
        track.accept(1, b"other", 10)


def test_a_record_below_the_frontier_stops_the_line() -> None:
    track = SourceTrack()
    track.promise(50, 0)
    with pytest.raises(OrderBroken):
        accept(track, 1, 49)


@pytest.mark.parametrize("seq", [0, -1, 10**7])
def test_impossible_sequences_stop_the_line(seq: int) -> None:
    with pytest.raises(SequenceBroken):
        accept(SourceTrack(), seq)


def test_a_track_goes_on_from_what_a_consumer_kept() -> None:
    track = SourceTrack(5, 40, gaps={3})
    assert [accept(track, seq, 60) for seq in (2, 3, 3, 6)] == [Seen.DUPLICATE, Seen.NEW, Seen.DUPLICATE, Seen.NEW]


@settings(deadline=None)
@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8), max_size=8))
def test_any_order_with_copies_gives_each_sequence_once(order: list[int], copies: list[int]) -> None:
    track = SourceTrack()
    new = [seq for seq in [*order, *copies] if accept(track, seq) is Seen.NEW]
    assert sorted(new) == list(range(1, 9))
    assert (track.gaps, track.last, track.frontier_us) == (set(), 8, 80)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50)))
def test_lane_order_is_the_running_maximum(times: list[int]) -> None:
    lane = LaneOrder()
    assert [lane.order_of(ts) for ts in times] == [max(times[: at + 1]) for at in range(len(times))]


def test_an_honest_frontier_changes_no_order() -> None:
    lane = LaneOrder()
    assert lane.floor_us == NONE_TS
    lane.order_of(5)
    lane.declare(4)
    assert lane.order_of(3) == 5
    lane.declare(9)
    assert lane.order_of(3) == 9
