"""Streaming a window with scripted lanes: whatever goes wrong on the way, the totals and the order are the same."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import cast

import pytest

from fp_contracts.runconfig import Realism, RunConfig
from fp_runtime.errors import Unavailable
from fp_wsp.adapters import LaneProgress
from fp_wsp.adjudication import adjudications, with_adjudications
from fp_wsp.expand import merge
from fp_wsp.feed import Batch, LaneFeed
from fp_wsp.lanes import Lines, Numbering, in_window
from fp_wsp.sender import Answer, Reply, Sender
from fp_wsp.service import Board, Pace, Settled, Stream
from fp_wsp.world import Payment, TruthRow

Fault = Callable[["Lane", int, Sequence[bytes]], Answer | None]


class Lane:
    """A gateway's lane in memory: first classes by number, and a fault before or after it takes a batch."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes] = {}
        self.frontiers: list[int] = []
        self.posts = 0
        self.before: Fault = lambda *_: None
        self.after: Fault = lambda *_: None

    def post(self, lane: int, first_seq: int, lines: Sequence[bytes], frontier_us: int) -> Answer:
        """See Sender."""
        self.posts += 1
        if (fault := self.before(self, first_seq, lines)) is not None:
            return fault
        for seq, raw in enumerate(lines, first_seq):
            assert seq <= len(self.rows) + 1, "a gap in the lane"
            assert self.rows.setdefault(seq, raw) == raw, "a number with other bytes"
        self.frontiers.append(frontier_us)
        if (fault := self.after(self, first_seq, lines)) is not None:
            return fault
        return Answer(Reply.CLASSED, [self._class(raw) for raw in lines])

    @staticmethod
    def _class(raw: bytes) -> tuple[str, str]:
        return ("QUARANTINED", "MUTANT") if raw.endswith(b"7") else ("ADMITTED", "r")


def numbers(lines: Lines) -> list[bytes]:
    """Lines that say which of their lane they are."""
    return [f"{lines.lane}|{seq}".encode() for seq in range(lines.first_seq, lines.first_seq + len(lines))]


class Store:
    """service.Store in memory."""

    def __init__(self) -> None:
        self.lanes: dict[int, LaneProgress] = {}

    def save(self, moved: Mapping[int, LaneProgress]) -> None:
        self.lanes |= deepcopy(dict(moved))


class Bench:
    """A small world, its gateway and saved progress; `stream` is one process."""

    def __init__(self, payments: list[Payment], truth: list[TruthRow], config: RunConfig) -> None:
        self.payments, self.truth, self.config = payments, truth, config
        self.lanes = {lane: Lane() for lane in range(config.lanes + 1)}
        self.store, self.board = Store(), Board()

    def stream(self, **options: int) -> Stream:
        config, window = self.config, self.config.windows[0]
        merged = with_adjudications(merge(self.payments, "d" * 32, config.lanes), adjudications(self.truth, config))
        progress = deepcopy(self.store.lanes)
        acked = {lane: at.acked_seq for lane, at in progress.items()}
        feed = LaneFeed(
            in_window(merged, window), Numbering(config, window), config,
            numbers, acked,
        )  # fmt: skip
        self.board = Board()
        senders = cast(Mapping[int, Sender], self.lanes)
        return Stream(feed, senders, progress, self.store, self.board, 0.001, **options)

    def totals(self) -> tuple[dict[int, int], Counter[str]]:
        """(lines of each lane at the gateway, all saved classes)."""
        saved: Counter[str] = sum((at.counts for at in self.store.lanes.values()), Counter())
        return {lane: len(at.rows) for lane, at in self.lanes.items()}, saved

    def sound(self) -> None:
        """Dense lanes, every line counted once, the closing frontier exactly at the window's end."""
        end_us = self.config.windows[0].end_us
        for lane, at in self.lanes.items():
            assert sorted(at.rows) == list(range(1, len(at.rows) + 1))
            assert self.store.lanes[lane].acked_seq == len(at.rows)
            assert self.store.lanes[lane].frontier_us == end_us == max(at.frontiers)
            assert sum(self.store.lanes[lane].counts.values()) == len(at.rows)


@pytest.fixture
def make_bench(
    make_payments: Callable[..., list[Payment]], make_truth: Callable[..., list[TruthRow]],
    make_config: Callable[..., RunConfig], busy: Realism,
) -> Callable[[], Bench]:  # fmt: skip
    def make() -> Bench:
        payments = make_payments(60, merchants=7)
        config = make_config(
            payments, realism=busy, adjudication_delay_us=10_000_000, lane_skew_limit=40, batch_lines=8
        )
        return Bench(payments, make_truth(payments), config)

    return make


@pytest.fixture
def plain(make_bench: Callable[[], Bench]) -> tuple[dict[int, int], Counter[str]]:
    """The totals of an untroubled stream."""
    bench = make_bench()
    assert bench.stream().run(lambda: False)
    bench.sound()
    assert bench.board.sent == bench.board.classed == sum(bench.totals()[0].values()) > 300
    return bench.totals()


def _once_in(n: int, answer: Answer) -> Fault:
    """The answer at every n-th post, of which the next one is then served."""

    def fault(lane: Lane, _: int, __: Sequence[bytes]) -> Answer | None:
        return answer if lane.posts % n == 0 else None

    return fault


def _too_large(lane: Lane, _: int, lines: Sequence[bytes]) -> Answer | None:
    return Answer(Reply.SPLIT) if len(lines) > 2 else None


UNKNOWN = Answer(Reply.AGAIN, detail="202", unknown=True)
LOST = Answer(Reply.AGAIN, detail="no reply")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_once_in(3, LOST), None),
        (None, _once_in(3, LOST)),
        (None, _once_in(3, UNKNOWN)),
        (_once_in(3, Answer(Reply.NEW_TOKEN)), None),
        (_too_large, None),
        (_too_large, _once_in(4, UNKNOWN)),
    ],
    ids=["request lost", "reply lost", "202 then 200", "new token", "413", "413 and 202"],
)
def test_trouble_changes_no_total(
    make_bench: Callable[[], Bench], plain: tuple[dict[int, int], Counter[str]], before: Fault | None,
    after: Fault | None,
) -> None:  # fmt: skip
    bench = make_bench()
    for lane in bench.lanes.values():
        lane.before, lane.after = before or lane.before, after or lane.after
    assert bench.stream().run(lambda: False)
    bench.sound()
    assert bench.totals() == plain
    assert not bench.board.in_doubt
    assert bench.board.lag_ms() == 0


@pytest.mark.parametrize("stop_at", [1, 20, 60])
def test_a_stop_in_mid_stream_and_a_resume_give_the_same_totals(
    make_bench: Callable[[], Bench], plain: tuple[dict[int, int], Counter[str]], stop_at: int
) -> None:
    bench = make_bench()
    finished = bench.stream().run(lambda: sum(lane.posts for lane in bench.lanes.values()) >= stop_at)
    assert not finished
    assert bench.stream().run(lambda: False)
    bench.sound()
    assert bench.totals() == plain


def test_a_crash_before_the_save_only_sends_again(
    make_bench: Callable[[], Bench], plain: tuple[dict[int, int], Counter[str]]
) -> None:
    bench = make_bench()
    bench.stream().run(lambda: sum(lane.posts for lane in bench.lanes.values()) >= 40)
    bench.store.lanes.clear()
    assert bench.stream().run(lambda: False)
    bench.sound()
    assert bench.totals() == plain


def test_a_finished_window_is_finished_again_without_a_line(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    first = bench.stream()
    assert first.run(lambda: False)
    posts = sum(lane.posts for lane in bench.lanes.values())
    again = bench.stream()
    assert again.run(lambda: False)
    assert sum(lane.posts for lane in bench.lanes.values()) == posts
    assert (again.counts(), again.last_seqs()) == (first.counts(), first.last_seqs())


def test_a_lane_refused_for_good_stops_the_lanes_that_wait(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    for lane in bench.lanes.values():
        lane.before = lambda *_: LOST
    bench.lanes[0].before = lambda *_: Answer(Reply.REFUSED, detail="409")
    with pytest.raises(Unavailable, match="lane 0 refused"):
        bench.stream().run(lambda: False)


def test_what_can_not_be_split_is_refused(make_bench: Callable[[], Bench]) -> None:
    bench = make_bench()
    bench.lanes[0].before = lambda *_: Answer(Reply.SPLIT, detail="BODY_OVER_LIMIT")
    with pytest.raises(Unavailable, match="lane 0"):
        bench.stream().run(lambda: False)


def test_a_lane_in_doubt_is_on_the_board_and_no_other_line_of_it_goes(
    make_bench: Callable[[], Bench], plain: tuple[dict[int, int], Counter[str]]
) -> None:
    bench, busiest = make_bench(), max(plain[0], key=plain[0].__getitem__)
    seen: list[tuple[set[int], int]] = []
    enough = threading.Event()

    def doubt(lane: Lane, first_seq: int, _: Sequence[bytes]) -> Answer | None:
        if first_seq == 0 or enough.is_set():
            return None
        seen.append((set(bench.board.in_doubt), first_seq))
        if len(seen) == 4:
            enough.set()
        return UNKNOWN

    bench.lanes[busiest].after = doubt
    assert bench.stream().run(lambda: False)
    assert [first for _, first in seen] == [seen[0][1]] * 4
    assert all(in_doubt == {busiest} for in_doubt, _ in seen[1:])
    bench.sound()


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Head:
    """Where the slowest lane stands."""

    def __init__(self) -> None:
        self.at = 0

    def head(self) -> int:
        return self.at


def test_the_pace_rises_on_ticks_only_and_for_all_lanes_alike() -> None:
    clock, feed = Clock(), Head()
    pace = Pace(1_000, clock)
    assert pace.up_to(feed) == 0
    clock.now_s += 0.049
    assert (pace.up_to(feed), round(pace.next_tick_s(), 4)) == (0, 0.001)
    clock.now_s += 0.006
    assert [pace.up_to(feed), pace.up_to(feed)] == [55, 55]
    feed.at = 55
    clock.now_s += 0.06
    assert pace.up_to(feed) == 115
    assert (Pace(0, clock).up_to(feed), Pace(0, clock).next_tick_s()) == (None, float("inf"))


def test_after_a_stall_the_pace_makes_up_for_one_second_at_most() -> None:
    clock, feed = Clock(), Head()
    pace = Pace(1_000, clock)
    feed.at = 500
    assert pace.up_to(feed) == 500
    clock.now_s += 60
    assert pace.up_to(feed) == 1_500


def test_a_paced_stream_gives_the_same_totals(
    make_bench: Callable[[], Bench], plain: tuple[dict[int, int], Counter[str]]
) -> None:
    bench = make_bench()
    assert bench.stream(pace_per_s=20_000).run(lambda: False)
    bench.sound()
    assert bench.totals() == plain


class Pool:
    """Takes what would be sent and sends nothing."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def submit(self, _: object, batch: Batch, *__: object) -> "Future[Settled | None]":
        if isinstance(batch, Batch):
            self.batches.append(batch)
        return Future()


def test_a_lane_flat_out_waits_for_a_share_while_others_fly(
    make_payments: Callable[..., list[Payment]], make_config: Callable[..., RunConfig]
) -> None:
    payments = make_payments(300, gap_us=20_000, merchants=40)
    bench, pool = Bench(payments, [], make_config(payments, lane_skew_limit=120)), Pool()
    stream, lanes = bench.stream(), set(range(bench.config.lanes + 1))
    stream._launch(cast(ThreadPoolExecutor, pool), set(), lambda: False)
    waiting = sorted(pool.batches, key=lambda batch: batch.positions[0])
    assert len(waiting) > 3
    while waiting:
        done = waiting.pop(0)
        stream._settle(Settled(done.lane, done, (), done.frontier_us))
        pool.batches.clear()
        stream._launch(cast(ThreadPoolExecutor, pool), lanes - {done.lane}, lambda: False)
        assert all(len(batch.lines) >= 10 or not waiting for batch in pool.batches if batch.lane != bench.config.lanes)


def test_paced_lanes_go_together_or_not_at_all(make_bench: Callable[[], Bench]) -> None:
    bench, pool = make_bench(), Pool()
    stream, adjudicator = bench.stream(pace_per_s=1_000_000), bench.config.lanes
    stream._pace._up_to = 1e9
    go = partial(stream._launch, cast(ThreadPoolExecutor, pool))
    assert go({1}, lambda: False) == {}, "one lane has no answer yet"
    assert sorted(go({adjudicator}, lambda: False).values()) == list(range(adjudicator))


def test_the_adjudication_lane_without_lines_is_told_of_large_rises_only(make_bench: Callable[[], Bench]) -> None:
    quiet, told = make_bench(), make_bench()
    for bench, slack_us in ((told, 0), (quiet, 30_000_000)):
        bench.truth = []
        assert bench.stream(label_slack_us=slack_us).run(lambda: False)
        bench.sound()
    last = quiet.config.lanes
    rises = [after - before for before, after in pairwise(quiet.lanes[last].frontiers)]
    assert all(rise >= 30_000_000 for rise in rises[:-1])
    assert 1 < len(quiet.lanes[last].frontiers) <= len(told.lanes[last].frontiers)
