"""The action layer's desk, the actuator over real HTTP on loopback, and P9's predicates."""

import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import stamina
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fp_contracts import topics
from fp_contracts.downstream import Decision, Intent
from fp_contracts.header import Kind
from fp_contracts.phases import PHASES
from fp_contracts.records import read_derived
from fp_df import sample
from fp_df.act_adapters import HttpActuator
from fp_df.actions import Desk, Executed, Progress
from fp_df.actuator import Effects, make_app
from fp_df.facts import chain_facts
from fp_df.gates import DecisionFacts, evaluate_p9
from fp_runtime.bus import Record
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.listener import Listener


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
        desk.take(record._replace(offset=offset), actuator)
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


def test_what_is_no_decision_of_df_is_set_aside(kit: Any, calm: Any) -> None:
    part, (one, two, *_) = decisions(calm)
    other = Desk(calm.plan, (part + 1) % 6, None)
    other.take(one, kit.actuator())
    desk = Desk(calm.plan, part, None)
    desk.take(one._replace(value=b"{}", offset=0), kit.actuator())
    snapshot = sample.Feed().snapshot(0, sample.START_US, "a")
    desk.take(two._replace(value=snapshot.value, offset=1), kit.actuator())
    desk.take(one._replace(header=b"", offset=2), kit.actuator())
    effects, others = desk.drain(), other.drain()
    assert effects is not None
    assert others is not None
    assert [item.reason for item in effects.quarantined] == ["CONTRACT_BROKEN", "CONTRACT_BROKEN", "UNDECODABLE"]
    assert [item.reason for item in others.quarantined] == ["CONTRACT_BROKEN"]
    assert effects.progress.n == others.progress.n == 0


# --- the actuator over HTTP ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(app: Starlette) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    listener = Listener(app, "127.0.0.1", port)

    def alive() -> bool | None:
        try:
            with urllib.request.urlopen(f"{url}/livez", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return None

    until(alive, 10.0, "the actuator listens")
    try:
        yield url
    finally:
        listener.close()


@pytest.fixture
def actuator_url(tmp_path: Path) -> Iterator[str]:
    yield from served(make_app(Effects(tmp_path / "effects.db")))


@pytest.fixture
def moody() -> Iterator[tuple[str, list[int], list[int]]]:
    """An actuator that answers with given statuses, and what it was asked."""
    statuses: list[int] = []
    asked: list[int] = []

    async def act(_: Request) -> PlainTextResponse:
        asked.append(1)
        return PlainTextResponse("<html>", status_code=statuses.pop(0) if len(statuses) > 1 else statuses[0])

    async def alive(_: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    for url in served(Starlette(routes=[Route("/v1/actions", act, methods=["POST"]), Route("/livez", alive)])):
        yield url, statuses, asked


@pytest.fixture
def asking(calm: Any) -> tuple[Decision, Intent]:
    for record, _ in calm.on_bus(topics.RTDL, Kind.DECISION):
        decision = read_derived(record.value)[1]
        if decision.intents:
            return decision, decision.intents[0]
    raise AssertionError("no decision with an intent")


def test_the_same_key_is_carried_out_once(actuator_url: str, asking: tuple[Decision, Intent]) -> None:
    decision, intent = asking
    actuator = HttpActuator(actuator_url)
    assert [actuator.execute(decision, intent) for _ in range(3)] == [Executed("EXECUTED", 1, None)] * 3
    other = intent.model_copy(update={"kind": "BLOCK_PAYMENT" if intent.kind != "BLOCK_PAYMENT" else "HOLD_FOR_REVIEW"})
    assert actuator.execute(decision, other) == Executed("DENIED", 1, "KEY_REUSED")
    unknown = intent.model_copy(update={"kind": "DANCE"})
    assert actuator.execute(decision, unknown) == Executed("FAILED", 1, "ACTION_UNKNOWN")
    assert httpx.get(f"{actuator_url}/v1/effects").json() == {"effects": 1, "repeats": 3}
    actuator.close()


def test_effects_outlive_the_actuator(tmp_path: Path) -> None:
    first = Effects(tmp_path / "e.db")
    assert first.execute("k", "BLOCK_PAYMENT", "f") == (True, True)
    first.close()
    again = Effects(tmp_path / "e.db")
    assert again.execute("k", "BLOCK_PAYMENT", "f") == (True, False)
    assert again.totals() == {"effects": 1, "repeats": 1}
    again.close()


@pytest.mark.parametrize("status", [301, 401, 403, 408, 429, 500, 502, 503])
def test_an_answer_that_says_nothing_of_the_action_is_asked_again(
    moody: tuple[str, list[int], list[int]], asking: tuple[Decision, Intent], status: int
) -> None:
    url, statuses, asked = moody
    actuator = HttpActuator(url)
    with stamina.set_testing(True, attempts=3):
        statuses[:] = [status, 200]
        assert actuator.execute(*asking) == Executed("EXECUTED", 2, None)
        statuses[:] = [status]
        with pytest.raises(Unavailable):
            actuator.execute(*asking)
    assert len(asked) == 5
    actuator.close()


@pytest.mark.parametrize(("status", "ended"), [(409, "DENIED"), (400, "FAILED"), (422, "FAILED"), (410, "FAILED")])
def test_a_refusal_without_a_problem_document_is_still_an_outcome(
    moody: tuple[str, list[int], list[int]], asking: tuple[Decision, Intent], status: int, ended: str
) -> None:
    url, statuses, _ = moody
    statuses[:] = [status]
    actuator = HttpActuator(url)
    assert actuator.execute(*asking) == Executed(ended, 1, str(status))
    actuator.close()


def test_a_body_that_is_no_action_is_refused(actuator_url: str) -> None:
    for body in (b"", b"[]", b"{", b"1"):
        answer = httpx.post(f"{actuator_url}/v1/actions", content=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 422
    no_key = httpx.post(f"{actuator_url}/v1/actions", json={"kind": "BLOCK_PAYMENT", "flow_id": "f"})
    assert no_key.status_code == 422


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
