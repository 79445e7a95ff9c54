"""Numbering: lane sequences are a function of the world, held lines never raise an order, counts are declared."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp_contracts.reasons import LineClass
from fp_contracts.runconfig import Realism, RunConfig, Window
from fp_wsp.adjudication import Adjudication, adjudications, with_adjudications
from fp_wsp.expand import Event, merge
from fp_wsp.lanes import PATIENCE_US, Held, Lines, Numbering, declared, in_window
from fp_wsp.realism import ADMITTED_FATES, Fate
from fp_wsp.world import LAST_PART_LAG_US, Payment, TruthRow

MakePayments = Callable[..., list[Payment]]
MakeTruth = Callable[..., list[TruthRow]]
MakeConfig = Callable[..., RunConfig]


class Line(NamedTuple):
    """One line of `Lines`, and what it says."""

    lane: int
    lane_seq: int
    order_us: int
    fate: Fate
    item: Event | Adjudication


def each(of_lanes: Iterable[Lines]) -> Iterator[Line]:
    for lines in of_lanes:
        assert len(lines.orders_us) == len(lines.positions) == len(lines.made_of)
        for seq, (order_us, made_of) in enumerate(zip(lines.orders_us, lines.made_of, strict=True), lines.first_seq):
            fate, item = (made_of.fate, made_of.event) if isinstance(made_of, Held) else (Fate.PLAIN, made_of)
            yield Line(lines.lane, seq, order_us, fate, item)


def number_all(items: list[Event | Adjudication], numbering: Numbering) -> list[Line]:
    lines = numbering.no_lines()
    for item in items:
        numbering.step(item, lines)
    return [line for more in (lines, numbering.finish()) for line in each(more)]


def items_of(
    payments: list[Payment], truth: list[TruthRow], config: RunConfig, window: Window
) -> list[Event | Adjudication]:
    events = merge(payments, "d" * 32, config.lanes)
    return list(in_window(with_adjudications(events, adjudications(truth, config)), window))


@pytest.fixture(params=[1, 9])
def case(
    request: pytest.FixtureRequest, make_payments: MakePayments, make_truth: MakeTruth, make_config: MakeConfig,
    busy: Realism,
) -> tuple[list[Payment], RunConfig, list[Event | Adjudication]]:  # fmt: skip
    payments = make_payments(200, merchants=request.param)
    config = make_config(payments, realism=busy, adjudication_delay_us=20_000_000)
    return payments, config, items_of(payments, make_truth(payments), config, config.windows[0])


Case = tuple[list[Payment], RunConfig, list[Event | Adjudication]]


def test_lane_sequences_are_dense_and_orders_are_the_running_maximum(case: Case) -> None:
    _, config, items = case
    lines = number_all(items, Numbering(config, config.windows[0]))
    for _, grouped in groupby(sorted(lines, key=lambda line: (line.lane, line.lane_seq)), key=lambda line: line.lane):
        lane = list(grouped)
        assert [line.lane_seq for line in lane] == list(range(1, len(lane) + 1))
        running = config.windows[0].start_us
        for line in lane:
            if line.fate in ADMITTED_FATES:
                running = max(running, line.item.ts_us)
            assert line.order_us == running >= line.item.ts_us


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 90), min_size=1, max_size=30))
def test_many_items_at_once_are_numbered_as_one_by_one(case: Case, cuts: list[int]) -> None:
    _, config, items = case
    one, many = (Numbering(config, config.windows[0]) for _ in range(2))
    at = step = 0
    while at < len(items):
        part = items[at : at + cuts[step % len(cuts)] + step % 2]
        at, step = at + len(part), step + 1
        lines = one.no_lines()
        for item in part:
            one.step(item, lines)
        assert many.number(part) == lines
        assert (many.position, many.world_us, many.last_seq) == (one.position, one.world_us, one.last_seq)
        assert [many.floor_us(lane) for lane in range(7)] == [one.floor_us(lane) for lane in range(7)]
    assert many.finish() == one.finish()
    assert (declared(many), many.degraded) == (declared(one), one.degraded)


def test_plain_events_come_once_each_and_held_lines_never_raise_the_order(case: Case) -> None:
    payments, config, items = case
    lines = number_all(items, Numbering(config, config.windows[0]))
    admitted = [line.item for line in lines if line.fate in ADMITTED_FATES and isinstance(line.item, Event)]
    assert len(admitted) == len({event.event_id for event in admitted}) == 5 * len(payments)
    last: dict[int, int] = {}
    for line in lines:
        if line.fate is not Fate.PLAIN:
            own_us = line.item.ts_us if line.fate is Fate.LATE else 0  # late context may be the lane's last word
            assert line.order_us == max(own_us, last.get(line.lane, config.windows[0].start_us))
        last[line.lane] = line.order_us


def test_a_copy_comes_after_its_original_in_the_same_lane(case: Case) -> None:
    _, config, items = case
    seen: dict[str, int] = {}
    for line in number_all(items, Numbering(config, config.windows[0])):
        if not isinstance(line.item, Event):
            continue
        if line.fate in ADMITTED_FATES:
            seen[line.item.event_id] = line.lane
        else:
            assert seen[line.item.event_id] == line.lane == line.item.lane


def test_late_context_misses_its_join_and_is_declared(case: Case) -> None:
    _, config, items = case
    numbering = Numbering(config, config.windows[0])
    lines = number_all(items, numbering)
    late = [(line.item, line.order_us) for line in lines if line.fate is Fate.LATE and isinstance(line.item, Event)]
    missed = {
        event.payment.payment_id
        for event, order_us in late
        if order_us > min(event.payment.ts_us + 2_000_000, config.windows[0].end_us - 1)
    }
    assert numbering.degraded == missed
    assert len(late) * 0.8 < len([event for event, order_us in late if order_us > event.payment.ts_us + 2_000_000])


def test_declared_counts_are_the_lines(case: Case) -> None:
    _, config, items = case
    numbering = Numbering(config, config.windows[0])
    lines = number_all(items, numbering)
    plan = declared(numbering)
    ingress = [line for line in lines if line.lane != config.lanes]
    assert plan["sent"] == len(ingress) == sum(plan["classes"].values())
    assert plan["classes"]["QUARANTINED"] == sum(plan["quarantine_reasons"].values())
    assert plan["classes"]["DUPLICATE"] == len([line for line in ingress if line.fate is Fate.DUPLICATE])
    assert plan["adjudications"] == len(lines) - len(ingress) > 0
    assert set(plan["classes"]) == set(LineClass)
    assert plan["lane_seqs"][str(config.lanes)] == plan["adjudications"]


def test_a_held_line_does_not_wait_for_ever(
    make_payments: MakePayments, make_config: MakeConfig, make_truth: MakeTruth
) -> None:
    payments = make_payments(40, gap_us=PATIENCE_US // 8, merchants=4)
    config = make_config(payments, realism=Realism(seed=1, late_context_ppm=1_000_000, duplicate_ppm=0, poison_ppm=0,
                                                   mutant_ppm=0))  # fmt: skip
    numbering = Numbering(config, config.windows[0])
    for item in items_of(payments, make_truth(payments), config, config.windows[0]):
        lines = numbering.no_lines()
        numbering.step(item, lines)
        for line in each(lines):
            assert item.ts_us - line.item.ts_us < 3 * PATIENCE_US


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_two_windows_tile_one_world(
    data: st.DataObject, make_payments: MakePayments, make_truth: MakeTruth, make_config: MakeConfig
) -> None:
    payments = make_payments(30, gap_us=400_000, seed=data.draw(st.integers(0, 50)))
    whole = make_config(payments).windows[0]
    cut_us = data.draw(st.integers(whole.start_us + 1, payments[-1].ts_us + LAST_PART_LAG_US))
    windows = (Window(start_us=whole.start_us, end_us=cut_us), Window(start_us=cut_us, end_us=whole.end_us))
    config = make_config(payments, windows=windows, adjudication_delay_us=3_000_000)
    truth = make_truth(payments)
    seqs: dict[int, int] = {}
    admitted: list[str] = []
    for window in windows:
        numbering = Numbering(config, window, seqs)
        lines = number_all(items_of(payments, truth, config, window), numbering)
        assert all(window.start_us <= line.order_us < window.end_us for line in lines)
        assert [line.lane_seq - seqs.get(line.lane, 0) for line in lines if line.lane == 0] == list(
            range(1, len([line for line in lines if line.lane == 0]) + 1)
        )
        seqs = dict(enumerate(numbering.last_seq))
        admitted += [ln.item.event_id for ln in lines if ln.fate in ADMITTED_FATES and ln.lane != config.lanes]
    assert len(admitted) == len(set(admitted)) == 150


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_verdicts_stand_where_their_time_is(
    data: st.DataObject, make_payments: MakePayments, make_truth: MakeTruth, make_config: MakeConfig
) -> None:
    payments = make_payments(40, gap_us=data.draw(st.sampled_from([0, 90_000, 2_000_000])))
    delay_us = data.draw(st.sampled_from([0, 200_000, 3_000_000, 10**9]))
    config = make_config(payments, adjudication="all", adjudication_delay_us=delay_us)
    verdicts = list(adjudications(make_truth(payments), config))
    events = list(chain.from_iterable(merge(payments, "d" * 32, config.lanes)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=8)))
    stretches = [events[first:end] for first, end in pairwise([0, *cuts, len(events)])]
    whole = sorted([*events, *verdicts], key=lambda item: (item.ts_us, item.rank))  # verdicts keep their own order
    got = list(chain.from_iterable(with_adjudications(stretches, verdicts)))
    assert [item for item in got if isinstance(item, Event)] == events
    assert [item for item in got if isinstance(item, Adjudication)] == verdicts
    assert [(item.ts_us, item.rank) for item in got] == [(item.ts_us, item.rank) for item in whole]


def test_adjudications_speak_of_frauds_in_the_run_only(
    make_payments: MakePayments, make_truth: MakeTruth, make_config: MakeConfig
) -> None:
    payments = make_payments(50)
    truth = make_truth(payments)
    late_start: dict[str, Any] = {"windows": (Window(start_us=payments[10].ts_us, end_us=payments[-1].ts_us),)}
    fraud = list(adjudications(truth, make_config(payments, **late_start)))
    everyone = list(adjudications(truth, make_config(payments, adjudication="all")))
    assert [verdict.event_id for verdict in fraud] == [row.event_id for row in truth[10:] if row.is_fraud]
    assert len(everyone) == 50
    assert all(verdict.ts_us - verdict.effective_us == 6 * 86_400_000_000 for verdict in everyone)
