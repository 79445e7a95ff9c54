"""Every blocker code of P4 and P7 is reached by breaking exactly one thing."""

from dataclasses import replace
from typing import Any

import pytest

from fp_contracts.canonical import canonical_bytes
from fp_contracts.evaluation import Evaluation
from fp_contracts.phases import PHASES
from fp_contracts.topics import INGRESS, TOPICS, pinned
from fp_ig.audit import IngestFacts, LaneCount, Offsets, PartitionAudit
from fp_ig.gates import Canary, PreflightFacts, Probe, evaluate_p4, evaluate_p7
from fp_ig.records import Stamp
from fp_runtime.bus import TopicState

STATES = {name: TopicState(t.partitions, t.retention_ms, t.max_message_bytes) for name, t in TOPICS.items()}
READY = PreflightFacts(
    [Probe("/livez", 200, 200), Probe("/readyz", 200, 200)],
    [Probe("no credential", 401, 401), Probe("good", 200, 200)],
    STATES,
    [Canary(topic, 0, 7, read_back=True) for topic in INGRESS],
)


def codes(evaluation: Evaluation) -> set[str]:
    return {p.code.removeprefix("DFULL-RUN-") for p in evaluation.predicates if not p.ok}


def without(name: str) -> dict[str, TopicState]:
    return {topic: state for topic, state in STATES.items() if topic != name}


def test_a_ready_gateway_passes_p4_with_its_evidence() -> None:
    evaluation = evaluate_p4(READY, TOPICS)
    assert codes(evaluation) == set()
    assert set(evaluation.documents) == set(PHASES["P4"].evidence)
    canonical_bytes(evaluation.documents["preflight"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"health": [Probe("/livez", 200, 200), Probe("/readyz", 200, 503)]}, "B4"),
        ({"health": [Probe("/livez", 200, 0), Probe("/readyz", 200, 200)]}, "B4"),
        ({"auth": [Probe("no credential", 401, 200), Probe("good", 200, 200)]}, "B4"),
        ({"auth": [Probe("no credential", 401, 401), Probe("good", 200, 401)]}, "B4"),
        ({"topics": without(INGRESS[0])}, "B4.1"),
        ({"topics": STATES | {INGRESS[0]: STATES[INGRESS[0]]._replace(partitions=5)}}, "B4.1"),
        ({"topics": STATES | {INGRESS[0]: STATES[INGRESS[0]]._replace(retention_ms=1)}}, "B4.1"),
        ({"canaries": [*READY.canaries[:3], Canary(INGRESS[3], 0, None, read_back=False)]}, "B4.1"),
    ],
)
def test_p4_blocks(change: dict[str, Any], code: str) -> None:
    assert codes(evaluate_p4(replace(READY, **change), TOPICS)) == {code}


def test_p4_holds_the_broker_against_the_topics_of_its_profile() -> None:
    local = {name: TopicState(t.partitions, t.retention_ms, t.max_message_bytes) for name, t in pinned("local").items()}
    assert codes(evaluate_p4(replace(READY, topics=local), pinned("local"))) == set()
    of_six = evaluate_p4(READY, pinned("local"))
    assert codes(of_six) == {"B4.1"}
    told = {p.name: (p.observed.split()[0], p.required.split()[0]) for p in of_six.predicates if not p.ok}
    assert told[f"topic {INGRESS[0]}"] == ("6", "2")
    assert codes(evaluate_p4(replace(READY, topics=local), pinned("kind"))) == {"B4.1"}


def audit(**changes: Any) -> PartitionAudit:
    made = PartitionAudit(Stamp(b"12345678", "ig-0"), INGRESS[0], 0, 0, 9, 5, Offsets([]), frozenset({3}))
    made.claimed = made.matched = 5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def facts(**changes: Any) -> IngestFacts:
    base = IngestFacts(
        lanes=[LaneCount(0, 8, 5, 1, 2), LaneCount(1, 0, 0, 0, 0)], partitions=[audit()],
        reasons={"NOT_JSON": 1, "PAYLOAD_HASH_MISMATCH": 1}, kept_aside=2, aside_digest="0" * 64, identities=5,
        unknown_open=0, unknown_seen=1, empty_run_waived=False,
    )  # fmt: skip
    return replace(base, **changes)


EMPTY = {"lanes": [LaneCount(0, 0, 0, 0, 0)], "partitions": [audit(claimed=0, matched=0)], "reasons": {},
         "kept_aside": 0, "identities": 0}  # fmt: skip


def test_committed_admissions_pass_p7_with_their_evidence() -> None:
    evaluation = evaluate_p7(facts())
    assert codes(evaluation) == set()
    assert set(evaluation.documents) == set(PHASES["P7"].evidence)
    assert evaluation.documents["receipt_summary"]["sent"] == 8
    for document in evaluation.documents.values():
        canonical_bytes(document)


@pytest.mark.parametrize(
    ("change", "code", "final"),
    [
        (EMPTY, "B7", True),
        ({"lanes": [LaneCount(0, 9, 5, 1, 2)]}, "B7", True),
        ({"lanes": [LaneCount(0, 7, 5, 1, 2), LaneCount(1, 1, 0, 0, 0)]}, "B7", True),
        ({"partitions": [audit(without_offset=1, matched=4)]}, "B7", False),
        ({"unknown_open": 1}, "B7", False),
        ({"kept_aside": 1}, "B7", True),
        ({"reasons": {"NOT_JSON": 1}}, "B7", True),
        ({"identities": 4}, "B7.1", True),
        ({"partitions": [audit(claimed=4, matched=4)]}, "B7.1", True),
        ({"partitions": [audit(matched=4)]}, "B7.1", True),
        ({"partitions": [audit(topic_sum=1)]}, "B7.1", True),
        ({"partitions": [audit(unexplained=1)]}, "B7.1", True),
        ({"partitions": [audit(copies=[(4, b"x")], copies_equal=1)]}, "B7.1", True),
        ({"partitions": [audit(copies=[(3, b"x")], copies_equal=0)]}, "B7.1", True),
    ],
)
def test_p7_blocks(change: dict[str, Any], code: str, final: bool) -> None:
    evaluation = evaluate_p7(facts(**change))
    assert codes(evaluation) == {code}
    assert evaluation.settled() is final


def test_zero_traffic_passes_only_with_the_waiver() -> None:
    assert codes(evaluate_p7(facts(**EMPTY, empty_run_waived=True))) == set()


def test_a_copy_beside_a_recorded_unknown_is_no_drift() -> None:
    assert codes(evaluate_p7(facts(partitions=[audit(copies=[(3, b"x")], copies_equal=1)]))) == set()
