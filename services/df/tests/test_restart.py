"""Crashes, restarts, batches and splits: every payment decided once, with the same bytes."""

import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp_contracts import topics
from fp_contracts.header import Kind, unpack
from fp_df import sample, service
from fp_df.domain import Switch
from fp_df.service import Decider
from fp_runtime.bus import Record
from fp_runtime.errors import Fenced, LaneStopped, Unavailable
from fp_runtime.eventtime.sequence import HashConflict
from fp_runtime.failpoint import FailpointRaised, arm
from fp_runtime.memory import Fault

POINTS = ("df.before_commit", "df.after_commit", "df.after_publish", "df.after_fact")
ACT_POINTS = ("al.before_call", "al.after_call", "al.after_commit")


OFFSET = re.compile(rb'"snapshot_offset":{"offset":[0-9]+,')


def told(rows: Any) -> list[Any]:
    """(partition, source, seq, order, body) of records without those of the action layer, which may not have run.

    df publishes on the topic that it reads, so where a snapshot lies there depends on the batches (R2: no downstream
    offsets).
    """
    found = [(part, unpack(header), OFFSET.sub(b"", body)) for part, header, body in rows]
    return [(part, h.source, h.seq, h.order_us, body) for part, h, body in found if h.source.startswith("df:")]


def check(world: Any, expected: Any, kinds: tuple[str, ...] = ("DECISION", "AUDIT_RECORD", "CASE_TRIGGER")) -> None:
    results = world.results()
    for kind in kinds:
        assert told(results[kind]) == told(expected[kind])


def test_the_world_asks_for_everything(kit: Any, expected: Any, calm: Any) -> None:
    assert len(expected["DECISION"]) == kit.count == len(calm.tables.decisions)
    assert len(expected["CASE_TRIGGER"]) > 5
    assert len(expected["ACTION_OUTCOME"]) > 10
    assert len(expected["AUDIT_RECORD"]) == kit.count + len(expected["ACTION_OUTCOME"])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), members=st.sampled_from([1, 2, 3]), most=st.sampled_from([3, 30, 500]))
def test_batches_splits_and_restarts_give_equal_bytes(
    kit: Any, expected: Any, seed: int, members: int, most: int
) -> None:
    rng = random.Random(seed)
    world = kit.world(lines=())
    owned = [tuple(range(number, 6, members)) for number in range(members)]
    team = [world.decider(parts) for parts in owned]
    lines = kit.lines()
    while lines:
        take = rng.randint(1, most)
        world.write(lines[:take])
        lines = lines[take:]
        world.now += rng.choice((0.0, 0.2, 1.1))
        number = rng.randrange(members)
        team[number].turn()
        if rng.random() < 0.1:
            team[number] = world.decider(owned[number])
    for member in team:
        world.settle(member)
    check(world, expected)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_batch_of_one_and_of_all_give_equal_bytes(
    kit: Any, expected: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", batch)
    world = kit.world()
    world.settle(world.decider())
    assert world.results()["DECISION"] == expected["DECISION"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hits", [1, 2, 5])
@pytest.mark.parametrize("step_s", [0.0, 1.1])
def test_a_crash_at_a_failpoint_loses_doubles_and_redecides_nothing(
    kit: Any, expected: Any, point: str, hits: int, step_s: float
) -> None:
    world = kit.world(lines=())
    decider, lines, crashes = world.decider(), kit.lines(), 0
    arm(f"{point}:raise:{hits}")
    for start in range(0, len(lines), 40):
        world.write(lines[start : start + 40])
        world.now += step_s
        try:
            decider.turn()
        except FailpointRaised:
            crashes += 1
            decider = world.decider()
    world.settle(decider)
    assert crashes == 1
    check(world, expected)


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_lost_commit_reply_is_no_second_decision(kit: Any, expected: Any, nth: int) -> None:
    world = kit.world(lines=())
    world.tables.lose_reply_of = nth
    decider, lines, lost = world.decider(), kit.lines(), 0
    for start in range(0, len(lines), 20):
        world.write(lines[start : start + 20])
        world.now += 0.4
        try:
            decider.turn()
        except kit.commit_lost:
            lost += 1
            decider = world.decider()
    world.settle(decider)
    assert lost == 1
    check(world, expected)


@pytest.mark.parametrize("fault", [Fault.FAILED, Fault.LOST_REQUEST, Fault.LOST_ACK])
def test_what_was_not_acknowledged_is_published_by_the_next_process(kit: Any, expected: Any, fault: Fault) -> None:
    world = kit.world()
    world.bus.plan(fault, 8)
    with pytest.raises(Unavailable):
        world.settle(world.decider())
    world.settle(world.decider())
    assert all(world.tables.unpublished(f"df:{part}") == [] for part in range(6))
    check(world, expected)


def test_a_zombie_commits_nothing(kit: Any, expected: Any) -> None:
    world = kit.world()
    zombie = world.decider()
    successor = world.decider()
    with pytest.raises(Fenced):
        world.settle(zombie)
    assert world.tables.decisions == {}
    world.settle(successor)
    check(world, expected)


def test_state_is_fed_again_from_the_checkpoint_and_never_decided_again(kit: Any, expected: Any) -> None:
    lines = kit.lines()
    world = kit.world(lines=lines[:150])
    world.settle(world.decider(), 1.1)  # checkpoints at every turn
    world.write(lines[150:250])
    world.settle(world.decider(), 0.0)  # decided and no checkpoint
    world.write(lines[250:])
    last = world.decider()
    behind = [part for part in range(6) if last.partitions[part].start < world.bus.span((topics.RTDL, part))[0] + 250]
    assert behind
    assert any(world.tables.progress["df.state", part][0] < world.tables.progress["df", part][0] for part in range(6))
    world.settle(last)
    check(world, expected)


def with_actor(world: Any, kit: Any, point: str, hits: int) -> None:
    world.settle(world.decider())
    arm(f"{point}:raise:{hits}")
    with pytest.raises(FailpointRaised):
        world.settle(world.actor())
    world.settle(world.actor())


@pytest.mark.parametrize("point", ACT_POINTS)
@pytest.mark.parametrize("hits", [1, 2])
def test_an_action_is_carried_out_once_whatever_crashes(kit: Any, expected: Any, point: str, hits: int) -> None:
    world = kit.world()
    with_actor(world, kit, point, 1 if point == "al.after_commit" else hits)
    outcomes = len(expected["ACTION_OUTCOME"])
    assert len(world.tables.outcomes) == len(world.actuator.effects) == outcomes
    assert len(world.results()["ACTION_OUTCOME"]) == outcomes
    if point == "al.after_call":
        assert world.actuator.asked > outcomes  # it was asked again and did nothing new


def turn_until_it_ends(world: Any, actor: Any) -> None:
    for _ in range(100):
        world.now += 0.3
        actor.turn()
        world.write(sample.Feed().marks(sample.START_US))


@pytest.mark.parametrize("nth", [1, 3])
def test_a_lost_commit_reply_is_no_second_outcome(kit: Any, expected: Any, nth: int) -> None:
    world = kit.world()
    world.settle(world.decider())
    world.tables.lose_reply_of = world.tables.commits + nth
    actor = world.actor()
    with pytest.raises(kit.commit_lost):
        turn_until_it_ends(world, actor)
    world.settle(world.actor())
    assert len(world.results()["ACTION_OUTCOME"]) == len(expected["ACTION_OUTCOME"])


SWITCH_US = sample.START_US + 60_000_000


def test_the_merge_is_held_at_a_switch_until_it_is_announced(kit: Any) -> None:
    world = kit.world(Switch(SWITCH_US, kit.older))
    decider = world.decider()
    world.settle(decider)
    assert len(world.tables.decisions) == 60  # one payment a second
    assert {part.horizon_us() for part in decider.partitions.values()} == {SWITCH_US}
    assert all(part.switched == {} for part in decider.partitions.values())  # held is not switched
    world.announced.add(SWITCH_US)
    world.settle(decider)
    assert sum(part.switched[1] for part in decider.partitions.values()) == 60
    assert len(world.tables.decisions) == kit.count


@pytest.mark.parametrize("batch", [1, 13, 500])
def test_where_a_switch_took_effect_depends_on_no_batch_and_outlives_a_restart(kit: Any, batch: int) -> None:
    world = kit.world(Switch(SWITCH_US, kit.older), lines=())
    world.announced.add(SWITCH_US)
    decider, lines = world.decider(), kit.lines()
    for start in range(0, len(lines), batch):
        world.write(lines[start : start + batch])
        world.now += 0.3
        decider.turn()
    world.settle(decider)
    found = {part: partition.switched[1] for part, partition in decider.partitions.items()}
    assert sum(found.values()) == 60
    again = world.decider()
    assert {part: partition.switched[1] for part, partition in again.partitions.items()} == found
    revs = [(header.order_us, b'"policy_rev":"spine-v0"' in record.value)
            for record, header in world.on_bus(topics.RTDL, Kind.DECISION)]  # fmt: skip
    assert all(older is (order_us >= SWITCH_US) for order_us, older in revs)


def test_facts_of_what_was_published_wait_for_the_next_transaction_and_no_longer(kit: Any) -> None:
    world = kit.world()
    consumer = world.bus.consumer("df")
    decider = Decider(
        world.plan, range(6), kit.store(world.tables), consumer, world.bus.producer(), lambda _: True, world.clock
    )
    decider.turn()
    assert len(world.tables.decisions) == kit.count
    assert any(world.tables.unpublished(f"df:{part}") for part in range(6))
    consumer.pause([(topics.RTDL, part) for part in range(6)])  # nothing more moves: no transaction would come
    world.now += service.PROGRESS_S
    decider.turn()
    assert not any(world.tables.unpublished(f"df:{part}") for part in range(6))


def test_an_orderly_end_leaves_nothing_that_only_memory_knows(kit: Any) -> None:
    world = kit.world()
    decider = world.decider()
    decider.turn()
    decider.finish()
    assert not any(world.tables.unpublished(f"df:{part}") for part in range(6))
    assert {part for stage, part in world.tables.progress if stage == "df.state"} == set(range(6))


def record_of(out: Any, offset: int) -> Record:
    return Record(out.topic, out.partition, offset, out.key, out.value, out.header, out.traceparent, 0)


def test_a_broken_snapshot_is_set_aside_once_and_holds_nobody(kit: Any) -> None:
    feed = sample.Feed()
    lines = [feed.snapshot(number, sample.START_US + number, "acc-1", 10) for number in range(0, 18, 6)]
    lines[1] = lines[1]._replace(value=b'{"event_type":"feature_snapshot"}')
    junk = lines[0]._replace(header=b"junk")
    world = kit.world(lines=[*lines, junk, *feed.marks(kit.end_us)])
    world.settle(world.decider(), 0.0)
    world.settle(world.decider())  # reads everything again
    assert len(world.tables.decisions) == 2
    assert sorted(one.reason for one in world.tables.quarantined.values()) == ["CONTRACT_BROKEN", "UNDECODABLE"]


@pytest.mark.parametrize("vector", ["?", "AAAA", "AAAAAAAAAAA="])
def test_a_vector_that_is_none_is_set_aside(kit: Any, vector: str) -> None:
    feed = sample.Feed()
    world = kit.world(
        lines=[feed.snapshot(0, sample.START_US, "acc-1", feature_vector=vector), *feed.marks(kit.end_us)]
    )
    world.settle(world.decider())
    assert world.tables.decisions == {}
    assert [one.reason for one in world.tables.quarantined.values()] == ["CONTRACT_BROKEN"]


def test_twenty_broken_records_in_a_row_stop_the_lane(kit: Any) -> None:
    junk = kit.lines()[0]._replace(header=b"junk")
    world = kit.world(lines=[junk] * 20)
    with pytest.raises(LaneStopped):
        world.settle(world.decider())


def test_a_sequence_that_says_two_things_stops_the_line(kit: Any) -> None:
    feed, liar = sample.Feed(), sample.Feed()
    one, other = feed.snapshot(0, sample.START_US, "a", 10), liar.snapshot(0, sample.START_US, "a", 11)
    world = kit.world(lines=[one, other])
    decider = world.decider()
    with pytest.raises(HashConflict):
        decider.turn()


def test_records_of_other_runs_and_stages_are_passed_over(kit: Any, expected: Any) -> None:
    from dataclasses import replace

    other = sample.Feed(replace(sample.PINS, platform_run_id=f"{sample.RUN}-x"))
    foreign = [other.snapshot(number, sample.START_US, "acc-1") for number in range(5)]
    world = kit.world(lines=[*foreign, *kit.lines()])
    decider = world.decider()
    world.settle(decider)
    check(world, {**expected, "DECISION": world.results()["DECISION"], "AUDIT_RECORD": []}, ("CASE_TRIGGER",))
    assert len(world.tables.decisions) == kit.count
    assert decider.metrics()["foreign"] == 5
    assert decider.metrics()["decided"] == kit.count
    assert decider.metrics()["waiting"] == 0
