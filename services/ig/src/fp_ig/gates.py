"""P4 and P7: what must hold for the gateway to be ready, and for its admissions to be committed (gates.md). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.topics import Topic
from fp_ig.audit import IngestFacts, LaneCount, PartitionAudit
from fp_runtime.bus import TopicState

BOUNDARY, TOPIC_READINESS = PHASES["P4"].blockers
RECEIPTS, DEDUPE = PHASES["P7"].blockers


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to the gateway's own address: the status it must give and the one it gave (0 = no answer)."""

    name: str
    required: int
    observed: int


@dataclass(frozen=True, slots=True)
class Canary:
    """One canary record: where it was produced (None = not) and whether the same bytes were consumed there."""

    topic: str
    partition: int
    offset: int | None
    read_back: bool


@dataclass(frozen=True, slots=True)
class PreflightFacts:
    """What the live probes found."""

    health: Sequence[Probe]
    auth: Sequence[Probe]
    topics: dict[str, TopicState]
    canaries: Sequence[Canary]


def evaluate_p4(facts: PreflightFacts, pinned: Mapping[str, Topic]) -> Evaluation:
    """Boundary healthy and closed to wrong credentials; every topic as pinned; each ingress topic takes and gives."""
    probes = [_probe(kind, probe) for kind in ("health", "auth") for probe in getattr(facts, kind)]
    canaries = [
        Predicate(
            f"canary {canary.topic}[{canary.partition}]",
            "read back" if canary.read_back else f"produced at {canary.offset}, not read back",
            "read back", canary.read_back, TOPIC_READINESS,
        )
        for canary in facts.canaries
    ]  # fmt: skip
    return Evaluation(
        (*probes, *[_topic(topic, facts.topics.get(topic.name)) for topic in pinned.values()], *canaries),
        {
            "preflight": {
                "health": {p.name: p.observed for p in facts.health},
                "auth": {p.name: {"required": p.required, "observed": p.observed} for p in facts.auth},
                "topics": {name: list(state) for name, state in sorted(facts.topics.items())},
                "canaries": [
                    {"topic": c.topic, "partition": c.partition, "offset": c.offset, "read_back": c.read_back}
                    for c in facts.canaries
                ],
            }
        },
    )


def _probe(kind: str, probe: Probe) -> Predicate:
    ok = probe.observed == probe.required
    return Predicate(f"{kind}: {probe.name}", str(probe.observed), str(probe.required), ok, BOUNDARY)


def _topic(pinned: Topic, state: TopicState | None) -> Predicate:
    required = TopicState(pinned.partitions, pinned.retention_ms, pinned.max_message_bytes)
    observed = "missing" if state is None else _shape(state)
    return Predicate(f"topic {pinned.name}", observed, _shape(required), state == required, TOPIC_READINESS)


def _shape(state: TopicState) -> str:
    return f"{state.partitions} partitions, {state.retention_ms} ms, {state.max_message_bytes} bytes"


def evaluate_p7(facts: IngestFacts) -> Evaluation:
    """Every line has one class, every claim one record with its exact bytes, and nothing else is on the topics."""
    return Evaluation(
        (*_receipt_predicates(facts), *_dedupe_predicates(facts)),
        {
            "receipt_summary": {
                "sent": _sum(facts.lanes, "declared"),
                "admitted": _sum(facts.lanes, "admitted"),
                "duplicate": _sum(facts.lanes, "duplicate"),
                "quarantined": _sum(facts.lanes, "quarantined"),
                "lanes": {str(lane.lane): _lane_document(lane) for lane in facts.lanes},
                "empty_run_waived": facts.empty_run_waived,
            },
            "quarantine_summary": {
                "reasons": dict(sorted(facts.reasons.items())),
                "kept": facts.kept_aside,
                "digest": facts.aside_digest,
            },
            "offset_proof": {
                "partitions": [_partition_document(audit) for audit in facts.partitions],
                "unknown_seen": facts.unknown_seen,
                "unknown_open": facts.unknown_open,
            },
        },
    )


def _receipt_predicates(facts: IngestFacts) -> tuple[Predicate, ...]:
    sent, quarantined = _sum(facts.lanes, "declared"), _sum(facts.lanes, "quarantined")
    classes = " + ".join(str(_sum(facts.lanes, name)) for name in ("admitted", "duplicate", "quarantined"))
    unlike = [lane.lane for lane in facts.lanes if not lane.closed]
    without = sum(audit.without_offset for audit in facts.partitions)
    traffic = sent > 0 or facts.empty_run_waived
    reasons = sum(facts.reasons.values())
    return (
        Predicate("traffic", f"{sent} lines", "at least 1, or the waiver empty_run", traffic, RECEIPTS, final=True),
        Predicate("sent = admitted + duplicate + quarantined", f"{sent} = {classes}, lanes that differ {unlike}",
                  "equal in every lane", not unlike, RECEIPTS, final=True),
        Predicate("claims without an offset", str(without), "0", without == 0, RECEIPTS),
        Predicate("publishes in doubt", str(facts.unknown_open), "0", facts.unknown_open == 0, RECEIPTS),
        Predicate("quarantined lines kept with a reason", f"{facts.kept_aside} kept, {reasons} with a reason",
                  f"{quarantined} each", facts.kept_aside == quarantined == reasons, RECEIPTS, final=True),
    )  # fmt: skip


def _dedupe_predicates(facts: IngestFacts) -> tuple[Predicate, ...]:
    admitted = _sum(facts.lanes, "admitted")
    claimed = sum(audit.claimed for audit in facts.partitions)
    unequal = _places(audit for audit in facts.partitions if not audit.equal)
    unexplained = sum(audit.unexplained for audit in facts.partitions)
    copies = sum(len(audit.copies) for audit in facts.partitions)
    strange = _places(audit for audit in facts.partitions if not audit.copies_explained)
    return (
        Predicate("identities admitted once", f"{facts.identities} identities", f"{admitted} admitted lines",
                  facts.identities == admitted, DEDUPE, final=True),
        Predicate("admitted lines have their bytes", f"{claimed} in the journal", f"{admitted} admitted lines",
                  claimed == admitted, DEDUPE, final=True),
        Predicate("topic records equal claims byte for byte", f"differ: {unequal}", "differ: none",
                  unequal == "none", DEDUPE, final=True),
        Predicate("records without a claim", str(unexplained), "0", unexplained == 0, DEDUPE, final=True),
        Predicate("extra copies", f"{copies}, unexplained in: {strange}", "unexplained in: none", strange == "none",
                  DEDUPE, final=True),
    )  # fmt: skip


def _sum(lanes: Sequence[LaneCount], name: str) -> int:
    return sum(getattr(lane, name) for lane in lanes)


def _places(audits: Any) -> str:
    return ", ".join(f"{audit.topic}[{audit.partition}]" for audit in audits) or "none"


def _lane_document(lane: LaneCount) -> dict[str, int]:
    return {
        "sent": lane.declared,
        "admitted": lane.admitted,
        "duplicate": lane.duplicate,
        "quarantined": lane.quarantined,
    }


def _partition_document(audit: PartitionAudit) -> dict[str, Any]:
    return {
        "topic": audit.topic,
        "partition": audit.partition,
        "start": audit.start,
        "end": audit.end,
        "last_seq": audit.last_seq,
        "claimed": audit.claimed,
        "matched": audit.matched,
        "extra_copies": len(audit.copies),
        "unexplained": audit.unexplained,
        "later": audit.later,
        "others": dict(sorted(audit.others.items())),
        "claim_digest": f"{audit.claim_sum:064x}",
        "topic_digest": f"{audit.topic_sum:064x}",
    }
