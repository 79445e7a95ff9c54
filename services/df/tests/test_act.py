"""The action layer's desk and loop, and P9's predicates."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.downstream import Decision
from fp_contracts.header import Kind
from fp_contracts.phases import PHASES
from fp_contracts.records import RecordError, read_derived
from fp_df import sample
from fp_df.actmarks import Executed, Progress
from fp_df.desk import Desk
from fp_df.facts import chain_facts
from fp_df.gates import DecisionFacts, evaluate_p9
from fp_df.unasked import asks_for_nothing
from fp_runtime.bus import Record
from fp_runtime.errors import Unavailable


@pytest.mark.parametrize("status", ["EXECUTED", "DENIED", "FAILED"])
def test_how_an_action_ended_is_an_outcome(kit: Any, status: str) -> None:
    world = kit.world()
    world.actuator.answers = dict.fromkeys(
        ("BLOCK_PAYMENT", "HOLD_FOR_REVIEW", "REQUEST_STEP_UP"), Executed(status, 2, "WHY")
    )
    world.settle(world.decider())
    actor = world.actor()
    world.settle(actor)
    assert set(world.tables.outcomes.values()) == {status}
    assert actor.metrics() == {f"outcome_{status.lower()}": len(world.tables.outcomes)}


def test_an_actuator_that_cannot_be_reached_leaves_progress_where_it_was(kit: Any, expected: Any) -> None:
    world = kit.world()
    world.settle(world.decider())
    world.actuator.fault = Unavailable("actuator: gone")
    for _ in range(2):
        with pytest.raises(Unavailable):
            world.settle(world.actor())
    assert world.tables.outcomes == {}
    assert [key for key in world.tables.progress if key[0] == "actions"] == []
    world.actuator.fault = None
    world.settle(world.actor())
    assert len(world.tables.outcomes) == len(expected["ACTION_OUTCOME"])


def decisions(calm: Any) -> tuple[int, list[Record]]:
    """The decisions of the partition with the most, in order."""
    found: dict[int, list[Record]] = {}
    for record, _ in calm.on_bus(topics.RTDL, Kind.DECISION):
        found.setdefault(record.partition, []).append(record)
    part = max(found, key=lambda one: len(found[one]))
    return part, found[part]


@pytest.mark.parametrize("restart_after", range(5))
def test_gaps_outlive_a_restart_and_nothing_is_worked_twice(kit: Any, calm: Any, restart_after: int) -> None:
    part, records = decisions(calm)
    one, two, three, four = records[:4]
    arrived = [one, four, three, four, two, one]  # an unacknowledged record comes later than those behind it
    actuator = kit.actuator()
    desk, last = Desk(calm.plan, part, None), Progress()
    for offset, record in enumerate([*arrived, records[4]]):
        desk.take(record._replace(offset=offset))
        desk.ended(actuator.execute(desk.asked()))
        effects = desk.drain()
        assert effects is not None
        last = Progress.from_bytes(effects.progress.n, effects.progress.to_bytes())
        assert last == effects.progress
        if offset == restart_after:
            desk = Desk(calm.plan, part, last)
    assert last.n == 5
    assert last.gaps == ()
    intents = [intent for record in records[:5] for intent in read_derived(record.value)[1].intents]
    assert len(actuator.effects) == actuator.asked == len(intents)


def test_what_is_no_decision_of_df_is_set_aside(calm: Any) -> None:
    part, (one, two, *_) = decisions(calm)
    other = Desk(calm.plan, (part + 1) % 6, None)
    other.take(one)
    desk = Desk(calm.plan, part, None)
    desk.take(one._replace(value=b"{}", offset=0))
    snapshot = sample.Feed().snapshot(0, sample.START_US, "a")
    desk.take(two._replace(value=snapshot.value, offset=1))
    desk.take(one._replace(header=b"", offset=2))
    effects, others = desk.drain(), other.drain()
    assert effects is not None
    assert others is not None
    assert [item.reason for item in effects.quarantined] == ["CONTRACT_BROKEN", "CONTRACT_BROKEN", "UNDECODABLE"]
    assert [item.reason for item in others.quarantined] == ["CONTRACT_BROKEN"]
    assert effects.progress.n == others.progress.n == 0


RUN_N = f"{sample.RUN}\n"
BREAKS: dict[str, Any] = {
    "event_id": [None, "", "x" * 257, 1], "event_type": ["feature_snapshot", None], "schema_version": ["v2", 1],
    "ts_utc": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z\n", 1], "platform_run_id": ["run", RUN_N],
    "scenario_run_id": ["A" * 32, "a" * 31, "a" * 32 + "\n"], "manifest_fingerprint": ["g" * 64, "a" * 63],
    "run_config_digest": [None, "a" * 65], "producer": [""], "traceparent": [1],
}  # fmt: skip
PAYLOAD_BREAKS: dict[str, Any] = {
    "decision_id": ["A" * 32, "a" * 31], "source_event": [{}, {"event_id": "e"}, {"event_id": "", "origin": {}}],
    "flow_id": ["", None], "account_id": ["", 1, "x" * 257], "merchant_id": [None], "event_us": [2**63, 1.5, "1"],
    "amount_minor": [2**53 + 1, -(2**53) - 1, True, 1.0, None], "currency": ["eur", "EURO", "EUR\n"],
    "action": ["DANCE", 1], "score": [1], "reason_codes": [None, [1], "A"], "posture": ["FINE"], "bundle_ref": [1],
    "policy_rev": [None, 1], "snapshot_hash": ["A" * 64], "feature_vector": [None, 1], "shadow": [[1], None],
    "snapshot_offset": [{"topic": "t", "partition": "1", "offset": 1}, None], "supersedes": ["x"],
    "intents": [None, [{}], {}, [1]],
}  # fmt: skip


def accepted(body: bytes) -> bool:
    """Whether the contract's models take it for a decision without intents."""
    try:
        payload = read_derived(body)[1]
    except RecordError:
        return False
    return isinstance(payload, Decision) and not payload.intents


def test_what_asks_for_nothing_is_told_as_the_contract_tells_it(calm: Any) -> None:
    bodies = [record.value for record, _ in calm.on_bus(topics.RTDL, Kind.DECISION)]
    told = [asks_for_nothing(body, sample.PINS) for body in bodies]
    assert told == [accepted(body) for body in bodies]
    assert {True, False} == set(told)
    sound = orjson.loads(bodies[told.index(True)])
    for name in sound:
        gone = orjson.dumps({key: value for key, value in sound.items() if key != name})
        assert asks_for_nothing(gone, sample.PINS) is accepted(gone)
    for name in sound["payload"]:
        gone = orjson.dumps({**sound, "payload": {k: v for k, v in sound["payload"].items() if k != name}})
        assert asks_for_nothing(gone, sample.PINS) is accepted(gone)
    more = orjson.dumps({**sound, "new": 1, "payload": {**sound["payload"], "new": 1}})
    assert asks_for_nothing(more, sample.PINS) is accepted(more) is True


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_envelope_is_no_decision_that_asks_for_nothing(calm: Any, name: str) -> None:
    sound = calm_body(calm)
    for value in BREAKS[name]:
        body = orjson.dumps({**sound, name: value})
        assert asks_for_nothing(body, sample.PINS) is accepted(body) is False, value


@pytest.mark.parametrize("name", PAYLOAD_BREAKS)
def test_a_broken_payload_is_no_decision_that_asks_for_nothing(calm: Any, name: str) -> None:
    sound = calm_body(calm)
    for value in PAYLOAD_BREAKS[name]:
        body = orjson.dumps({**sound, "payload": {**sound["payload"], name: value}})
        assert not accepted(body), value
        assert not asks_for_nothing(body, sample.PINS), value


def calm_body(calm: Any) -> dict[str, Any]:
    bodies = (record.value for record, _ in calm.on_bus(topics.RTDL, Kind.DECISION))
    found: dict[str, Any] = orjson.loads(next(body for body in bodies if accepted(body)))
    return found


def test_progress_without_effects_is_committed_now_and_then_and_at_the_end(kit: Any) -> None:
    world = kit.world()
    world.settle(world.decider())
    actor = world.actor()
    world.settle(actor)
    before = world.tables.commits
    for _ in range(9):
        world.write(sample.Feed().marks(sample.START_US))
        actor.turn()
    assert world.tables.commits == before
    actor.finish()
    assert world.tables.commits == before + 1
    assert all(desk.start == world.bus.span((topics.RTDL, part))[1] for part, desk in actor.desks.items())


def test_facts_of_what_was_published_wait_for_the_next_transaction_and_no_longer(kit: Any) -> None:
    world = kit.world()
    world.settle(world.decider())
    actor = world.actor()
    actor.turn()
    assert world.tables.unpublished("al:0")
    actor.finish()
    assert not any(world.tables.unpublished(f"al:{part}") for part in range(6))


def test_nothing_is_passed_while_an_intent_has_not_ended(calm: Any) -> None:
    part, records = decisions(calm)
    desk = Desk(calm.plan, part, None)
    for record in records:
        desk.take(record)
    assert desk.asked()
    with pytest.raises(ValueError, match="not ended"):
        desk.drain()


# --- P9 ---

CHAIN, AUDIT = PHASES["P9"].blockers
SOUND = DecisionFacts(
    caught_up=True, open_gaps=0, unpublished=0, quarantined=0, topic_auth_requests=9, topic_snapshots=9,
    topic_decisions=9, topic_outcomes=3, topic_audits=12, row_decisions=9, row_intents=3, row_outcomes=3,
    row_decided=9, row_outcome_audits=3, chain_faults=(), chains={"DECIDED:0": (9, "a" * 64)}, replayed=9, unequal=0,
    unmatched=0, fingerprint="f" * 64, by_action={"ALLOW": 9}, by_posture={}, by_policy={}, by_status={}, escalated=0,
)  # fmt: skip
BROKEN = {
    "caught_up": (False, CHAIN), "open_gaps": (1, CHAIN), "unpublished": (1, CHAIN), "quarantined": (1, CHAIN),
    "topic_auth_requests": (10, CHAIN), "topic_snapshots": (8, CHAIN), "topic_decisions": (8, CHAIN),
    "topic_outcomes": (2, CHAIN), "topic_audits": (11, AUDIT), "row_decisions": (8, CHAIN), "row_intents": (4, CHAIN),
    "row_outcomes": (2, CHAIN), "row_decided": (8, AUDIT), "row_outcome_audits": (2, AUDIT),
    "chain_faults": (("DECIDED:0: link 2 was changed",), AUDIT), "replayed": (8, CHAIN), "unequal": (1, CHAIN),
    "unmatched": (2, CHAIN),
}  # fmt: skip


def test_a_sound_chain_passes_with_its_three_documents() -> None:
    evaluation = evaluate_p9(SOUND)
    assert evaluation.settled()
    assert all(predicate.ok for predicate in evaluation.predicates)
    assert set(evaluation.documents) == set(PHASES["P9"].evidence)


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_fact_blocks_with_its_code(name: str) -> None:
    value, code = BROKEN[name]
    evaluation = evaluate_p9(replace(SOUND, **{name: value}))  # type: ignore[arg-type]
    codes = {predicate.code for predicate in evaluation.predicates if not predicate.ok}
    assert code in codes
    assert codes <= {CHAIN, AUDIT}


def test_every_predicate_can_fail_and_every_fact_is_broken_above() -> None:
    failed = set()
    values: list[tuple[str, Any]] = [
        ("topic_auth_requests", 0),
        *((name, value) for name, (value, _) in BROKEN.items()),
    ]
    for name, value in values:
        evaluation = evaluate_p9(replace(SOUND, **{name: value}))
        failed |= {predicate.name for predicate in evaluation.predicates if not predicate.ok}
    assert failed == {predicate.name for predicate in evaluate_p9(SOUND).predicates}


def test_no_traffic_at_all_does_not_pass() -> None:
    nothing = replace(
        SOUND, topic_auth_requests=0, topic_snapshots=0, topic_decisions=0, topic_outcomes=0, topic_audits=0,
        row_decisions=0, row_intents=0, row_outcomes=0, row_decided=0, row_outcome_audits=0, replayed=0, chains={},
    )  # fmt: skip
    assert CHAIN in {predicate.code for predicate in evaluate_p9(nothing).predicates if not predicate.ok}


@pytest.mark.parametrize("name", ["topic_decisions", "topic_outcomes", "row_outcomes", "unpublished"])
def test_what_only_needs_time_waits_until_the_stage_has_caught_up(name: str) -> None:
    assert not evaluate_p9(replace(SOUND, caught_up=False, **{name: BROKEN[name][0]})).settled()  # type: ignore[arg-type]


def test_chain_facts_name_a_link_that_speaks_of_another_decision(expected: Any) -> None:
    bodies = [body for _, _, body in expected["AUDIT_RECORD"]]
    payloads = [orjson.loads(body)["payload"] for body in bodies]
    decided = {one["decision_id"]: one["content_fingerprint"] for one in payloads if one["kind"] == "DECIDED"}
    chains, faults = chain_facts(sample.RUN, bodies, decided)
    assert faults == []
    assert sum(n for n, _ in chains.values()) == len(bodies)
    first = next(iter(decided))
    _, faults = chain_facts(sample.RUN, bodies, {**decided, first: "0" * 64})
    assert len(faults) == 1
    assert faults[0].endswith("is of another decision")
