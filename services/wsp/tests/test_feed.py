"""The feed: any batching gives the same lanes, no frontier is overtaken, the skew bound and a restart hold."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts.downstream import LabelAssertion
from fp_contracts.envelope import BODY_LIMIT
from fp_contracts.records import Pins
from fp_contracts.runconfig import Realism, RunConfig
from fp_runtime.eventtime.lane import LaneOrder
from fp_wsp.adjudication import Adjudication, adjudications, with_adjudications
from fp_wsp.expand import Event, merge
from fp_wsp.feed import Batch, LaneFeed, line_writer, split
from fp_wsp.lanes import Held, Lines, Numbering, in_window
from fp_wsp.realism import ADMITTED_FATES, Fate
from fp_wsp.world import Payment, TruthRow


class World:
    """A small world and how it is run; no dataclass, since hypothesis prints those in full."""

    def __init__(self, payments: list[Payment], truth: list[TruthRow], config: RunConfig) -> None:
        self.payments, self.truth, self.config = payments, truth, config


@pytest.fixture(scope="module")
def small(
    make_payments: Callable[..., list[Payment]], make_truth: Callable[..., list[TruthRow]],
    make_config: Callable[..., RunConfig], busy: Realism,
) -> World:  # fmt: skip
    payments = make_payments(60, merchants=5)
    config = make_config(payments, realism=busy, adjudication_delay_us=10_000_000, lane_skew_limit=25)
    return World(payments, make_truth(payments), config)


def as_text(lines: Lines) -> list[bytes]:
    """The line itself travels, so that a test sees what was sent."""
    columns = zip(lines.orders_us, lines.made_of, strict=True)
    return [
        f"{lines.lane}|{n}|{us}|{fate_of(made_of)}".encode() for n, (us, made_of) in enumerate(columns, lines.first_seq)
    ]


def fate_of(made_of: Event | Adjudication | Held) -> Fate:
    return made_of.fate if isinstance(made_of, Held) else Fate.PLAIN


def own_us(made_of: Event | Adjudication | Held) -> int:
    return made_of.event.ts_us if isinstance(made_of, Held) else made_of.ts_us


def feed_of(
    world: World, acked: dict[int, int] | None = None, written: Callable[[Lines], list[bytes]] = as_text
) -> LaneFeed:
    config = world.config
    window = config.windows[0]
    merged = with_adjudications(merge(world.payments, "d" * 32, config.lanes), adjudications(world.truth, config))
    return LaneFeed(in_window(merged, window), Numbering(config, window), config, written, acked)


def drain(feed: LaneFeed, choose: Callable[[int], tuple[int, int]]) -> Iterator[Batch]:
    """Send everything, batch by batch; `choose(step)` = (lane to try first, batch limit). Fails on a deadlock."""
    step = 0
    while not all(feed.ended(lane) for lane in feed.lanes):
        first, limit = choose(step)
        step += 1
        order = [*feed.lanes[first:], *feed.lanes[:first]]
        batch = next((found for lane in order if (found := feed.take(lane, limit))), None)
        assert batch is not None, "no lane may send: deadlock"
        feed.ack(batch)
        yield batch


def lanes_of(batches: Iterable[Batch]) -> dict[int, list[bytes]]:
    lanes: dict[int, list[bytes]] = {}
    for batch in batches:
        lines = lanes.setdefault(batch.lane, [])
        assert batch.first_seq == len(lines) + 1
        lines += batch.lines
    return lanes


@settings(max_examples=30, deadline=None)
@given(choices=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), min_size=1, max_size=40))
def test_batching_changes_no_lane_and_no_frontier_is_overtaken(small: World, choices: list[tuple[int, int]]) -> None:
    whole = lanes_of(drain(feed_of(small), lambda step: (step % 7, 500)))
    feed = feed_of(small)
    batches = list(drain(feed, lambda step: choices[step % len(choices)]))
    assert lanes_of(batches) == whole
    promised: dict[int, int] = {}
    for batch in batches:
        for line in batch.lines:
            _, _, order_us, fate = line.decode().split("|")
            if fate in ADMITTED_FATES:
                assert int(order_us) >= promised.get(batch.lane, 0)
        assert batch.frontier_us >= promised.get(batch.lane, 0)
        promised[batch.lane] = batch.frontier_us
    assert {feed.frontier_us(lane) for lane in feed.lanes} == {small.config.windows[0].end_us}


@settings(max_examples=25, deadline=None)
@given(choices=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), min_size=1, max_size=40))
def test_the_gateway_gives_the_same_orders_whatever_the_batching(small: World, choices: list[tuple[int, int]]) -> None:
    feed = feed_of(small, written=lambda lines: [f"{own_us(it)}|{fate_of(it)}".encode() for it in lines.made_of])
    lanes = [LaneOrder(small.config.windows[0].start_us) for _ in feed.lanes]
    for batch in drain(feed, lambda step: choices[step % len(choices)]):
        for line, order_us in zip(batch.lines, batch.orders_us, strict=True):
            ts_us, fate = line.decode().split("|")
            if fate in ADMITTED_FATES:
                assert lanes[batch.lane].order_of(int(ts_us)) == order_us
        lanes[batch.lane].declare(batch.frontier_us)
        for lane in feed.lanes:
            lanes[lane].declare(feed.frontier_us(lane))


@settings(max_examples=25, deadline=None)
@given(choices=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), min_size=1, max_size=30))
def test_idle_frontiers_are_not_overtaken_either(small: World, choices: list[tuple[int, int]]) -> None:
    feed = feed_of(small)
    promised = dict.fromkeys(feed.lanes, 0)
    step = 0
    while not all(feed.ended(lane) for lane in feed.lanes):
        lane, limit = choices[step % len(choices)]
        step += 1
        batch = feed.take(lane if step % 3 else step // 3 % 7, limit)
        if batch:
            feed.ack(batch)
            for order_us, line in zip(batch.orders_us, batch.lines, strict=True):
                if line.decode().rsplit("|", 1)[1] in ADMITTED_FATES:
                    assert order_us >= promised[batch.lane]
        for idle in feed.lanes:
            assert feed.frontier_us(idle) >= promised[idle]
            promised[idle] = feed.frontier_us(idle)


def test_no_lane_runs_ahead_of_the_slowest(small: World) -> None:
    feed = feed_of(small)
    limit = small.config.lane_skew_limit
    stuck = feed.take(0, 1)
    assert stuck is not None
    sent: list[int] = []
    going = True
    while going:
        going = False
        for lane in feed.lanes[1:]:
            if batch := feed.take(lane, 3):
                feed.ack(batch)
                sent += batch.positions
                going = True
    assert sent
    assert max(sent) <= stuck.positions[0] + limit
    assert feed.buffered <= 2 * limit
    feed.ack(stuck)
    assert any(feed.take(lane) for lane in feed.lanes)


def test_a_share_that_is_not_there_is_waited_for_and_a_position_is_not_passed(small: World) -> None:
    feed = feed_of(small)
    assert feed.fair_share == small.config.lane_skew_limit // small.config.lanes
    assert feed.head() == 0
    first = [batch for lane in feed.lanes if (batch := feed.take(lane, up_to=10))]
    assert first
    assert all(batch.positions[-1] <= 10 for batch in first)
    assert feed.flying
    assert feed.head() == min(batch.positions[0] for batch in first)
    for batch in first:
        feed.ack(batch)
    assert not any(feed.take(lane, up_to=10) for lane in feed.lanes)
    assert not any(feed.take(lane, at_least=1_000) for lane in feed.lanes)
    shares = [batch for lane in feed.lanes if (batch := feed.take(lane, at_least=3))]
    assert all(len(batch.lines) >= 3 for batch in shares)


def test_one_batch_in_flight_per_lane(small: World) -> None:
    feed = feed_of(small)
    batch = next(found for lane in feed.lanes if (found := feed.take(lane, 2)))
    assert feed.take(batch.lane, 2) is None
    with pytest.raises(ValueError, match="not in flight"):
        feed.ack(batch._replace(lane=batch.lane + 1))
    feed.ack(batch)
    with pytest.raises(ValueError, match="not in flight"):
        feed.ack(batch)


@settings(max_examples=20, deadline=None)
@given(stop=st.integers(1, 60))
def test_a_restart_goes_on_with_the_same_numbers(small: World, stop: int) -> None:
    whole = lanes_of(drain(feed_of(small), lambda step: (0, 500)))
    feed, acked, before = feed_of(small), dict.fromkeys(range(7), 0), dict[int, list[bytes]]()
    for step in range(stop):
        batch = feed.take(step % 7, 3)
        if batch:
            before.setdefault(batch.lane, []).extend(batch.lines)
            acked[batch.lane] = batch.last_seq
            feed.ack(batch)
    feed.take(0, 2)  # in flight at the crash, never acknowledged
    after = drain(feed_of(small, acked), lambda step: (step % 7, 5))
    for batch in after:
        before.setdefault(batch.lane, []).extend(batch.lines)
    assert before == whole


def test_split_keeps_numbers_and_frontiers(small: World) -> None:
    batch = next(b for b in drain(feed_of(small), lambda step: (0, 7)) if len(b.lines) == 7)
    first, second = split(batch)
    assert first.lines + second.lines == batch.lines
    assert (first.first_seq, second.first_seq) == (batch.first_seq, batch.first_seq + 3)
    assert first.frontier_us == batch.orders_us[3]
    assert second.frontier_us == batch.frontier_us
    one, _ = split(split(first)[1])
    with pytest.raises(ValueError, match="one line"):
        split(one)


def test_a_batch_keeps_the_body_limit(small: World) -> None:
    feed = feed_of(small, written=lambda lines: [b"x" * 100_000] * len(lines))
    for batch in drain(feed, lambda step: (0, 500)):
        assert sum(len(line) + 1 for line in batch.lines) <= BODY_LIMIT


def test_verdicts_are_label_assertions(small: World, pins: Pins) -> None:
    feed = feed_of(small, written=line_writer(pins))
    batches = list(drain(feed, lambda step: (6, 500)))
    labels = [LabelAssertion.model_validate_json(line) for b in batches if b.lane == 6 for line in b.lines]
    assert labels
    assert {label.label_value for label in labels} == {"FRAUD_CONFIRMED"}
    assert all(label.observed_us < small.config.windows[0].end_us for label in labels)
    assert {label.subject.event_id for label in labels} <= {row.event_id for row in small.truth if row.is_fraud}
