"""A member on the memory bus: every interleaving, batching, split of members and crash gives the same snapshots."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp_contracts import topics
from fp_contracts.derive import vector_bytes
from fp_contracts.header import NONE_TS, Kind, unpack
from fp_features import unpack as unpack_vector
from fp_rtdl import sample
from fp_rtdl.service import CHECKPOINT_S
from fp_runtime.bus import Out, PublishFailed, PublishUnknown
from fp_runtime.errors import Fenced
from fp_runtime.failpoint import FailpointRaised, arm, disarm
from fp_runtime.memory import Fault

N = 60
POINTS = ("rtdl.before_publish", "rtdl.after_publish", "rtdl.after_checkpoint")


@pytest.fixture(autouse=True)
def _no_failpoints() -> Any:
    yield
    disarm()


def test_every_request_gets_one_snapshot_and_all_reasons_occur(kit: Any, expected: Any) -> None:
    payloads = [orjson.loads(value)["payload"] for _, _, _, value in expected]
    assert sorted(p["source_event"]["event_id"] for p in payloads) == sorted(p.request_id for p in kit.payments(N))
    reasons = Counter(tuple(p["degrade_reasons"]) for p in payloads)
    assert reasons.keys() == {(), ("JOIN_TIMEOUT",)}
    assert min(reasons.values()) >= 5
    assert any(orjson.loads(value)["payload"]["account_id"] is None for *_, value in expected)


def interleaved(lines: list[Out], rng: random.Random) -> list[Out]:
    """The same logs in another order of arrival: every partition keeps its own order."""
    logs: dict[tuple[str, int], list[Out]] = {}
    for out in lines:
        logs.setdefault((out.topic, out.partition), []).append(out)
    mixed = []
    while logs:
        place = rng.choice(list(logs))
        take = rng.choice((1, 3, 40))
        mixed += logs[place][:take]
        logs[place] = logs[place][take:]
        if not logs[place]:
            del logs[place]
    return mixed


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), members=st.sampled_from([1, 2, 3]))
def test_any_interleaving_batching_and_split_gives_equal_bytes(
    kit: Any, lines: list[Out], expected: Any, seed: int, members: int
) -> None:
    rng = random.Random(seed)
    bus, checkpoints = kit.bus(), kit.checkpoints()
    plan = sample.plan(kit.end_us, members=members)
    team = [kit.member(bus, checkpoints, plan, ordinal) for ordinal in range(members)]
    mixed = interleaved(lines, rng)
    while mixed:
        take = rng.choice((1, 7, 90))
        kit.write(bus, mixed[:take])
        mixed = mixed[take:]
        rng.choice(team).turns(rng.choice((0.0, 0.05, 0.6)))
        if rng.random() < 0.1:
            number = rng.randrange(members)  # restarted in the middle, from its last checkpoint
            team[number] = kit.member(bus, checkpoints, plan, number)
    for member in team:
        member.turns()
    assert kit.distinct(kit.published(bus)) == expected


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hits", [1, 2, 3])
def test_a_crash_at_a_failpoint_repeats_bytes_and_loses_nothing(
    kit: Any, lines: list[Out], expected: Any, point: str, hits: int
) -> None:
    bus, checkpoints, plan = kit.bus(), kit.checkpoints(), sample.plan(kit.end_us)
    member = kit.member(bus, checkpoints, plan)
    arm(f"{point}:raise:{hits}")
    crashed = 0
    for start in range(0, len(lines), 60):
        kit.write(bus, lines[start : start + 60])
        try:
            member.turns(0.6)
        except FailpointRaised:
            crashed += 1
            member = kit.member(bus, checkpoints, plan)
    member.turns()
    assert crashed == 1
    assert kit.distinct(kit.published(bus)) == expected


def test_a_crash_after_publish_really_publishes_twice(kit: Any, lines: list[Out]) -> None:
    bus, checkpoints, plan = kit.bus(lines), kit.checkpoints(), sample.plan(kit.end_us)
    arm("rtdl.after_publish:raise:1")
    with pytest.raises(FailpointRaised):
        kit.member(bus, checkpoints, plan).turns()
    once = len(kit.published(bus))
    kit.member(bus, checkpoints, plan).turns()
    assert once > 0
    assert len(kit.published(bus)) == N + once


@pytest.mark.parametrize("fault", [Fault.FAILED, Fault.LOST_REQUEST, Fault.LOST_ACK])
def test_nothing_is_saved_before_every_snapshot_is_acknowledged(
    kit: Any, lines: list[Out], expected: Any, fault: Fault
) -> None:
    bus, checkpoints, plan = kit.bus(lines), kit.checkpoints(), sample.plan(kit.end_us)
    bus.plan(fault, 5)
    with pytest.raises((PublishFailed, PublishUnknown)):
        kit.member(bus, checkpoints, plan).turns()
    assert checkpoints.saved == []
    kit.member(bus, checkpoints, plan).turns()
    assert kit.distinct(kit.published(bus)) == expected


def test_the_state_of_merchants_outlives_a_restart(kit: Any) -> None:
    day = 86_400_000_000
    end_us = sample.START_US + 40 * day
    payments = [
        sample.Payment(number, sample.START_US + (number + 1) * day // 2, f"m-{number % 3}", "acc-1", 500)
        for number in range(60)
    ]
    lines = sample.world(sample.Feed(), payments, end_us)
    calm, rough = kit.bus(lines), kit.bus()
    kit.member(calm, kit.checkpoints(), sample.plan(end_us)).turns()
    checkpoints = kit.checkpoints()
    feed = sample.Feed()
    for payment in payments:
        events = sample.world(feed, [payment], payment.ts_us + 1_000_000)
        kit.write(rough, events)
        kit.member(rough, checkpoints, sample.plan(end_us)).turns(1.1)  # a new process each time
    kit.write(rough, feed.marks(end_us))
    kit.member(rough, checkpoints, sample.plan(end_us)).turns()
    found = [vectors(kit.published(bus)) for bus in (calm, rough)]
    assert found[0] == found[1]
    assert any(vector[-1] > 0 for vector in found[0].values())  # the risk of a merchant by labels of long ago


def test_a_checkpoint_leaves_out_what_no_restart_could_use(kit: Any, lines: list[Out], expected: Any) -> None:
    checkpoints, bus = kit.checkpoints(), kit.bus(lines)
    plan = sample.plan(kit.end_us)
    plan = replace(plan, rules=replace(plan.rules, horizon_us=5_000_000))  # of 120 s: most has expired at the end
    kit.member(bus, checkpoints, plan).turns()
    kept = [(kept.expires_us, checkpoint.position.clock_us) for checkpoint in checkpoints.saved
            for kept in checkpoint.context]  # fmt: skip
    assert 0 < len(kept) < len(expected) / 2
    assert all(expires_us >= clock_us for expires_us, clock_us in kept)


def vectors(records: list[Any]) -> dict[str, tuple[float, ...]]:
    payloads = [orjson.loads(record.value)["payload"] for record in records]
    return {p["source_event"]["event_id"]: unpack_vector(vector_bytes(p["feature_vector"])) for p in payloads}


def test_a_zombie_is_fenced_at_its_checkpoint_and_has_only_repeated(kit: Any, lines: list[Out], expected: Any) -> None:
    bus, checkpoints, plan = kit.bus(), kit.checkpoints(), sample.plan(kit.end_us)
    zombie = kit.member(bus, checkpoints, plan)
    kit.write(bus, lines)
    kit.member(bus, checkpoints, plan).turns()
    with pytest.raises(Fenced):
        zombie.turns()
    assert kit.distinct(kit.published(bus)) == expected


def test_spans_tile_each_partition_and_count_every_record(kit: Any, lines: list[Out]) -> None:
    bus, checkpoints, plan = kit.bus(), kit.checkpoints(), sample.plan(kit.end_us)
    for start in range(0, len(lines), 50):
        kit.write(bus, lines[start : start + 50])
        kit.member(bus, checkpoints, plan).turns(0.6)  # a new process each time
    counts: Counter[str] = Counter()
    at: Counter[tuple[str, int]] = Counter()
    for checkpoint in checkpoints.saved:
        for span in checkpoint.spans:
            if span.topic != topics.LABELS:
                assert span.first_offset == at[span.topic, span.partition]
                at[span.topic, span.partition] = span.next_offset
                counts.update(span.counts)
    assert all(at[topic, part] == bus.span((topic, part))[1] for topic in topics.INGRESS for part in range(6))
    assert counts["AUTH_REQUEST"] == N
    assert counts["WATERMARK"] == sum(
        unpack(out.header).kind is Kind.WATERMARK for out in lines if out.topic != topics.LABELS
    )
    assert sum(counts.values()) == sum(out.topic != topics.LABELS for out in lines)


def test_labels_in_effect_after_the_window_stay_pending(kit: Any) -> None:
    feed = sample.Feed()
    (payment,) = kit.payments(1)
    outs = sample.world(feed, [payment._replace(number=1)], kit.end_us)
    outs.append(feed.label(payment, kit.end_us - 1, 1))
    checkpoints = kit.checkpoints()
    bus = kit.bus(outs + feed.marks(kit.end_us + 5, (topics.LABELS,)))
    kit.member(bus, checkpoints, sample.plan(kit.end_us)).turns()
    merged = sum(c.position.counts.get("labels", 0) for c in checkpoints.saved)
    last = {c.part: c.position for c in checkpoints.saved}
    assert merged == 0
    assert sum(position.pending_labels for position in last.values()) == 1
    assert all(position.bound_us == kit.end_us for position in last.values())


def test_the_frontier_is_told_to_every_target_once_and_ends_at_the_window_end(kit: Any, lines: list[Out]) -> None:
    bus = kit.bus(lines)
    kit.member(bus, kit.checkpoints(), sample.plan(kit.end_us)).turns()
    snapshots = Counter((r.partition, unpack(r.header).source) for r in kit.published(bus))
    marks = [(r.partition, mark) for r in kit.published(bus, Kind.WATERMARK) for mark in unpack(r.header).marks]
    last = {(part, mark.source): mark for part, mark in marks}
    assert len(last) == 36
    assert all(mark.frontier_us == kit.end_us for mark in last.values())
    assert all(mark.last_seq == snapshots[place] for place, mark in last.items())
    assert len(set(marks)) == len(marks)  # only what rose is told


def test_a_watermark_never_passes_a_snapshot_that_follows_it(kit: Any, lines: list[Out]) -> None:
    bus, plan = kit.bus(), sample.plan(kit.end_us)
    member = kit.member(bus, kit.checkpoints(), plan)
    for start in range(0, len(lines), 20):
        kit.write(bus, lines[start : start + 20])
        member.turns(0.05)
    for part in range(6):
        frontiers: dict[str, int] = {}
        for record in bus.read((topics.RTDL, part), 0, bus.span((topics.RTDL, part))[1]):
            header = unpack(record.header)
            for mark in header.marks:
                frontiers[mark.source] = max(frontiers.get(mark.source, NONE_TS), mark.frontier_us)
            if header.kind is Kind.FEATURE_SNAPSHOT:
                assert header.order_us >= frontiers.get(header.source, NONE_TS)


def test_lanes_are_saved_one_after_the_other_and_none_is_forgotten(kit: Any, lines: list[Out]) -> None:
    bus, checkpoints = kit.bus(), kit.checkpoints()
    member = kit.member(bus, checkpoints, sample.plan(kit.end_us))
    for start in range(0, len(lines), 20):
        kit.write(bus, lines[start : start + 20])
        saved = len(checkpoints.saved)
        member.clock.now += CHECKPOINT_S / len(member.stage.lanes)
        member.stage.turn()
        assert len(checkpoints.saved) <= saved + 1
    assert {checkpoint.part for checkpoint in checkpoints.saved} == set(member.stage.lanes)


def test_watermarks_keep_their_beat_when_turns_come_a_little_early(kit: Any) -> None:
    bus, feed = kit.bus(), sample.Feed()
    member = kit.member(bus, kit.checkpoints(), sample.plan(kit.end_us))
    for turn, step_s in enumerate((0.0211, 0.0191) * 10):
        marks = feed.marks(sample.START_US + turn * 1_000)
        kit.write(bus, [mark for mark in marks if (mark.topic, mark.partition) != (topics.TRAFFIC, 5)])
        member.clock.now += step_s
        member.stage.turn()
    assert len(kit.published(bus, Kind.WATERMARK)) == 20 * 6


def test_a_whole_wave_is_marked_at_once_and_part_of_one_waits_for_the_beat(kit: Any) -> None:
    bus, feed = kit.bus(), sample.Feed()
    member = kit.member(bus, kit.checkpoints(), sample.plan(kit.end_us))

    def told_after(marks: list[Out], step_s: float) -> int:
        kit.write(bus, marks)
        member.clock.now += step_s
        before = len(kit.published(bus, Kind.WATERMARK))
        member.stage.turn()
        return len(kit.published(bus, Kind.WATERMARK)) - before

    first, second = feed.marks(sample.START_US + 1_000), feed.marks(sample.START_US + 2_000)
    part = [mark for mark in second if mark.topic == topics.TRAFFIC and mark.partition == 5]
    assert told_after(first, 0.001) == 6
    assert told_after([mark for mark in second if mark not in part], 0.001) == 0
    assert told_after(part, 0.001) == 6
    third = feed.marks(sample.START_US + 3_000)
    assert told_after([mark for mark in third if mark.partition != 5], 0.001) == 0
    assert told_after([], 0.03) == 6
