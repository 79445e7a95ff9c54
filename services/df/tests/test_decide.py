"""Policies, postures, and records whose bytes are those of the contract models."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts import derive, topics
from fp_contracts.canonical import canonical_bytes, sha256_hex, trusted_bytes
from fp_contracts.downstream import AuditRecord, CaseTrigger, Decision
from fp_contracts.header import Kind
from fp_contracts.ids import h32
from fp_contracts.reasons import Action, Posture
from fp_contracts.records import RecordError, body_of, read_derived
from fp_df import audit, catalogue, domain, ids, payloads, sample
from fp_df.plan import plan_of
from fp_df.policy import (
    FACTS,
    Escalation,
    Outcome,
    Policy,
    Rule,
    Term,
    decide,
    evaluate,
    parse_policy,
    silent,
    unknown_facts,
)
from fp_df.records import RecordWriter
from fp_df.replay import Replay
from fp_df.snapshot import read_snapshot
from fp_features import CORE_V1, AccountState
from fp_runtime.errors import UserError


def rule(*terms: tuple[str, str, int], action: str = "STEP_UP", name: str = "r") -> Rule:
    when = tuple(Term(fact=fact, op=op, value_milli=value) for fact, op, value in terms)  # type: ignore[arg-type]
    return Rule(name=name, when=when, action=action, reason=f"WHY_{name}")  # type: ignore[arg-type]


def policy(*rules: Rule) -> Policy:
    return Policy(
        policy_rev="p", rules=rules, errored_action="REVIEW", escalation=Escalation(actions=("BLOCK",)),
        review_capacity_per_day=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("op", "hits"),
    [(">=", (False, True, True)), (">", (False, False, True)), ("<=", (True, True, False)),
     ("<", (True, False, False)), ("==", (False, True, False))],
)  # fmt: skip
def test_a_term_compares_with_thousandths(op: str, hits: tuple[bool, ...]) -> None:
    found = tuple(evaluate(rule(("x", op, 1_500)), {"x": value}) is Outcome.HIT for value in (1.4, 1.5, 1.6))
    assert found == hits


@pytest.mark.parametrize("facts", [{}, {"x": math.nan}, {"x": math.inf}, {"x": -math.inf}])
def test_an_unknown_fact_is_an_error_and_never_an_approval(facts: dict[str, float]) -> None:
    asked = rule(("x", ">=", 1_000))
    assert evaluate(asked, facts) is Outcome.ERRORED
    assert decide(policy(asked), facts) == (Action.REVIEW, ("RULE_ERRORED:r",))


def test_a_term_that_fails_settles_a_rule_whatever_is_unknown() -> None:
    both = rule(("unknown", ">=", 1), ("x", ">=", 1_000))
    assert evaluate(both, {"x": 0.0}) is Outcome.MISS
    assert evaluate(both, {"x": 1.0}) is Outcome.ERRORED


@given(st.lists(st.sampled_from(["STEP_UP", "REVIEW", "BLOCK", "ERRORED", "MISS"]), max_size=6))
def test_the_strongest_action_wins_and_every_reason_is_told(wanted: list[str]) -> None:
    rules = [
        rule(("x" if what != "ERRORED" else "gone", ">=", 0 if what != "MISS" else 9_000), name=f"r{at}",
             action=what if what in ("STEP_UP", "REVIEW", "BLOCK") else "STEP_UP")
        for at, what in enumerate(wanted)
    ]  # fmt: skip
    action, reasons = decide(policy(*rules), {"x": 1.0})
    order = ["ALLOW", "STEP_UP", "REVIEW", "BLOCK"]
    asked = ["REVIEW" if what == "ERRORED" else what for what in wanted if what != "MISS"]
    assert action == max([*asked, "ALLOW"], key=order.index)
    assert len(reasons) == len(asked)


FACT = st.sampled_from([0.0, 1.0, 1.5, 2.0, math.nan, math.inf, -math.inf]) | st.floats()
TERM = st.tuples(st.sampled_from([*FACTS[:2], "gone"]), st.sampled_from([">=", ">", "<=", "<", "=="]),
                 st.sampled_from([0, 1_000, 1_500, 2_000]))  # fmt: skip


@settings(max_examples=400)
@given(rules=st.lists(st.lists(TERM, min_size=1, max_size=2), max_size=2), x=FACT, y=FACT)
def test_silence_is_told_only_where_no_rule_speaks(rules: list[list[tuple[str, str, int]]], x: float, y: float) -> None:
    asked = policy(*(rule(*terms, name=f"r{at}") for at, terms in enumerate(rules)))
    values = (x, y, *(0.0,) * len(FACTS[2:]))
    decided = decide(asked, dict(zip(FACTS, values, strict=True)))
    if silent(asked, values):
        assert decided == (Action.ALLOW, ())
    elif math.isfinite(x + y):
        assert decided != (Action.ALLOW, ())  # at finite facts it is always told


VECTOR = (0.0,) * len(CORE_V1.names)


def test_postures() -> None:
    quiet = policy(rule(("amount", ">=", 1_000)))
    assert domain.judge(CORE_V1.schema_digest, (), VECTOR, quiet) == (
        Action.ALLOW, ("MODEL_MISSING",), Posture.GUARDRAILS_ONLY,
    )  # fmt: skip
    assert domain.judge(CORE_V1.schema_digest, ("JOIN_TIMEOUT",), VECTOR, quiet) == (
        Action.STEP_UP, ("JOIN_TIMEOUT", "MODEL_MISSING"), Posture.DEGRADED_CONTEXT,
    )  # fmt: skip
    strong = policy(rule(("degraded", "==", 1_000), action="BLOCK"))
    assert domain.judge(CORE_V1.schema_digest, ("WINDOW_END",), VECTOR, strong)[0] is Action.BLOCK


def test_another_schema_fails_closed_whatever_the_vector() -> None:
    closed = (Action.BLOCK, ("FEATURE_SCHEMA_MISMATCH",), Posture.FAIL_CLOSED)
    assert domain.judge("0" * 64, ("JOIN_TIMEOUT",), (1.0,), policy()) == closed


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(run=TEXT, event=TEXT, topic=TEXT, partition=st.integers(0, 99), offset=st.integers(0, 2**63 - 1),
       chain=st.sampled_from(["DECIDED:0", "OUTCOME:5"]))  # fmt: skip
def test_prepared_ids_are_those_of_the_recipes(
    run: str, event: str, topic: str, partition: int, offset: int, chain: str
) -> None:
    origin = topic, partition, offset
    assert ids.decision_id(run, event, origin) == derive.decision_id(run, event, None, origin)
    assert ids.audit_id(run, chain, offset) == h32("audit", run, chain, str(offset))


def decided_of(snapshot: Any, revision: Policy, run: str = sample.RUN) -> domain.Decided:
    body = body_of(sample.PINS, "feature_snapshot", "e", sample.START_US, "rtdl", snapshot)
    read = read_snapshot(body)
    vector = domain.full_vector(read, AccountState(), sample.START_US)
    return domain.make_decision(run, read, vector, revision)


@given(flow=TEXT, account=st.none() | TEXT, merchant=TEXT, amount=st.integers(-(2**53), 2**53), event=TEXT,
       trace=st.none() | st.just(b"00-a-b-01"))  # fmt: skip
def test_bytes_are_those_of_the_models(
    flow: str, account: str | None, merchant: str, amount: int, event: str, trace: bytes | None
) -> None:
    revision = catalogue.policies()["spine-v1"][0]
    source = {"event_id": event, "origin": {"topic": topics.TRAFFIC, "partition": 1, "offset": 7}}
    snapshot = sample.snapshot_of(1, sample.START_US, account, 5).model_copy(
        update={"flow_id": flow, "merchant_id": merchant, "amount_minor": amount}
    )
    snapshot = type(snapshot).model_validate_json(
        orjson.dumps({**snapshot.model_dump(mode="json"), "source_event": source})
    )
    decided = decided_of(snapshot, revision)
    rendered = payloads.render(decided, 3, 99)
    queued = RecordWriter(sample.PINS, "df:3", sample.plan(revision).partitions).write(
        Kind.DECISION, decided.decision_id, account or flow, sample.START_US, rendered.payload, trace
    )
    model = Decision.model_validate_json(rendered.payload)
    text = None if trace is None else trace.decode()
    wanted = body_of(sample.PINS, "decision", decided.decision_id, sample.START_US, "df", model, text)
    assert queued.out.value == wanted
    assert read_derived(queued.out.value)[1] == model
    assert model.decision_id == derive.decision_id(sample.RUN, event, None, (topics.TRAFFIC, 1, 7))
    values = model.model_dump(mode="json")
    assert rendered.fingerprint == sha256_hex(
        trusted_bytes({"subject": event, **{name: values[name] for name in derive.DECISION_FIELDS}})
    )
    _check_link(decided, rendered, values)
    if decided.escalated:
        CaseTrigger.model_validate_json(orjson.dumps(domain.trigger_of(sample.RUN, decided)))


def _check_link(decided: domain.Decided, rendered: payloads.Rendered, values: dict[str, Any]) -> None:
    fields = {
        "kind": "DECIDED", "decision_id": decided.decision_id, "action_id": None,
        "source_event": values["source_event"], "snapshot_hash": values["snapshot_hash"],
        "policy_rev": values["policy_rev"], "bundle_ref": None, "content_fingerprint": rendered.fingerprint,
    }  # fmt: skip
    given_link, text = payloads.decided_link(sample.RUN, "DECIDED:3", 4, "1" * 64, decided, rendered)
    assert (given_link, text) == audit.link(sample.RUN, "DECIDED:3", 4, "1" * 64, fields)
    AuditRecord.model_validate_json(text)


def test_plain_ascii_fingerprints_are_those_of_the_contract(kit: Any) -> None:
    decided = decided_of(sample.snapshot_of(1, sample.START_US, "acc", 80_000), kit.policy)
    rendered = payloads.render(decided, 0, 1)
    values = orjson.loads(rendered.payload)
    assert canonical_bytes(values).decode() == rendered.payload
    assert rendered.fingerprint == derive.content_fingerprint(derive.DECISION_FIELDS, values, "auth-1")


FIELDS = sorted(sample.snapshot_of(1, 1, "a", 1).model_dump())
# What deciding does not read is left to the contract of rtdl.
UNREAD = {"release_us", "merged_n", "context_offsets", "join_status"}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, 5, "", "x" * 257, [], {}, True, 1.5, 2**63, "MISSING"])
def test_the_reader_refuses_what_the_model_refuses(name: str, value: Any) -> None:
    payload = sample.snapshot_of(1, sample.START_US, "acc", 5).model_dump(mode="json")
    payload[name] = value
    if value == "MISSING":
        del payload[name]
    body = orjson.dumps(
        {**orjson.loads(body_of(sample.PINS, "feature_snapshot", "e", 1, "rtdl", sample.snapshot_of(1, 1, "a", 1))),
         "payload": payload}
    )  # fmt: skip
    try:
        read_derived(body)
    except RecordError:
        if name not in UNREAD:
            with pytest.raises(RecordError):
                read_snapshot(body)
        return
    if name != "feature_vector":  # the model takes any text there
        assert read_snapshot(body).snapshot_hash == payload["snapshot_hash"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"event_type":"decision","payload":{}}'])
def test_what_is_no_snapshot_is_refused(body: bytes) -> None:
    with pytest.raises(RecordError):
        read_snapshot(body)


def test_replay_finds_every_decision_equal_and_sees_each_change(kit: Any, expected: Any, calm: Any) -> None:
    bodies = [body for _, _, body in expected["DECISION"]]
    replay = Replay(sample.RUN, calm.plan.switches)
    for body in bodies:
        replay.take(body)
    assert (replay.replayed, replay.unequal) == (kit.count, 0)
    assert replay.actions == calm.tables.outcomes.keys()
    recorded = orjson.loads(next(b for b in bodies if b'"intents":[{' in b and b"GUARDRAILS_ONLY" in b))
    changes = {
        "action": "ALLOW", "posture": "NORMAL", "reason_codes": [], "policy_rev": "spine-v0", "intents": [],
        "decision_id": "0" * 32, "feature_vector": derive.vector_text(bytes(8 * len(CORE_V1.names))),
        "score": "0.5", "bundle_ref": "b", "shadow": ["s"], "supersedes": "0" * 32,
    }  # fmt: skip
    for name, value in changes.items():
        changed = Replay(sample.RUN, calm.plan.switches)
        changed.take(orjson.dumps({**recorded, "payload": {**recorded["payload"], name: value}}))
        assert changed.unequal == 1, name


def test_replay_repeats_a_decision_that_failed_closed(kit: Any) -> None:
    feed = sample.Feed()
    world = kit.world(lines=[
        feed.snapshot(0, sample.START_US, "acc", feature_schema_digest="f" * 64), *feed.marks(kit.end_us),
    ])  # fmt: skip
    world.settle(world.decider())
    replay = Replay(sample.RUN, world.plan.switches)
    replay.take(world.results()["DECISION"][0][2])
    assert (replay.replayed, replay.unequal) == (1, 0)


CHAIN_FIELDS = sorted(AuditRecord.model_fields)


def chain(expected: Any) -> tuple[str, list[dict[str, Any]]]:
    links = [orjson.loads(body)["payload"] for _, _, body in expected["AUDIT_RECORD"]]
    name = next(one["chain"] for one in links if one["kind"] == "DECIDED")
    return name, sorted((one for one in links if one["chain"] == name), key=lambda one: one["chain_seq"])


def test_a_sound_chain_recomputes_in_any_order(expected: Any) -> None:
    name, links = chain(expected)
    assert len(links) > 5
    assert audit.chain_break(sample.RUN, name, links) is None
    assert audit.chain_break(sample.RUN, name, reversed(links)) is None


@pytest.mark.parametrize("field", CHAIN_FIELDS)
@pytest.mark.parametrize("rehash", [False, True])
def test_a_changed_field_breaks_the_chain_there(expected: Any, field: str, rehash: bool) -> None:
    name, links = chain(expected)
    value = 77 if field == "chain_seq" else "e" * 64
    links[2] = {**links[2], field: value}
    if rehash and field != "record_hash":
        links[2]["record_hash"] = audit.record_hash(links[2])
    fault = audit.chain_break(sample.RUN, name, links)
    assert fault is not None
    assert fault.startswith(f"{name}: link ")


def test_a_link_that_is_gone_or_doubled_is_named(expected: Any) -> None:
    name, links = chain(expected)
    assert audit.chain_break(sample.RUN, name, [*links[:2], *links[3:]]) == f"{name}: link 3 is missing"
    assert audit.chain_break(sample.RUN, name, [*links, links[1]]) == f"{name}: link 2 is there twice"
    del links[4]["prev_hash"]
    assert audit.chain_break(sample.RUN, name, links) == f"{name}: a record is no link"


def test_the_catalogue_carries_two_revisions_whose_facts_are_all_provided() -> None:
    known = catalogue.policies()
    assert set(known) == {"spine-v0", "spine-v1"}
    assert all(unknown_facts(revision, (*CORE_V1.names, "degraded")) == set() for revision, _ in known.values())
    assert unknown_facts(policy(rule(("nobody", ">", 1))), CORE_V1.names) == {"nobody"}


@pytest.mark.parametrize("raw", [b"{}", b'{"policy_rev":"a","policy_rev":"b"}', b"[1.5]", b"\xff"])
def test_what_is_no_policy_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_policy(raw)


def test_a_plan_takes_only_pinned_policies_and_ascending_switches(run_header: Any) -> None:
    known = catalogue.policies()
    digests = {rev: digest for rev, (_, digest) in known.items()}
    assert plan_of(run_header(digests), known).switch_times()[0] < 0
    assert [s.policy.policy_rev for s in plan_of(run_header(digests, (("spine-v0", 5),)), known).switches] == [
        "spine-v1", "spine-v0",
    ]  # fmt: skip
    for pinned, switches in (
        ({**digests, "spine-v1": "0" * 64}, ()),
        ({"spine-v0": digests["spine-v0"]}, ()),
        (digests, (("spine-v9", 5),)),
        (digests, (("spine-v0", 5), ("spine-v1", 5))),
        (digests, (("spine-v0", 6), ("spine-v1", 5))),
    ):
        with pytest.raises(UserError):
            plan_of(run_header(pinned, switches), known)
