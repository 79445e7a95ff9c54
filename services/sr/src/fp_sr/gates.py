"""P5: exactly one READY identity on the control topic, read back by offset (gates.md). Pure."""

from dataclasses import dataclass

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES

EMISSION, AMBIGUITY = PHASES["P5"].blockers


@dataclass(frozen=True, slots=True)
class ReadyRecord:
    """One READY record as found on the log."""

    ready_id: str
    event_id: str
    partition: int
    offset: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ReadyFacts:
    """What the log and the table say about READY."""

    expected: str
    recorded: str | None
    found: tuple[ReadyRecord, ...]


def evaluate_p5(facts: ReadyFacts) -> Evaluation:
    """A repeat of the same identity after a crash is harmless; a second identity is ambiguous for good."""
    identities = sorted({record.ready_id for record in facts.found})
    foreign = [identity for identity in identities if identity != facts.expected]
    return Evaluation(
        (
            Predicate("READY recorded", facts.recorded or "none", facts.expected, facts.recorded == facts.expected,
                      EMISSION),
            Predicate("READY on control", f"{len(facts.found)} records", "at least 1", bool(facts.found), EMISSION),
            Predicate("READY identities", ", ".join(identities) or "none", facts.expected, not foreign, AMBIGUITY,
                      final=True),
        ),
        {
            "ready_event_proof": {"records": [_as_document(record) for record in facts.found]},
            "ready_receipt": {"ready_id": facts.expected, "recorded": facts.recorded, "identities": identities},
        },
    )  # fmt: skip


def _as_document(record: ReadyRecord) -> dict[str, str | int]:
    return {
        "ready_id": record.ready_id,
        "event_id": record.event_id,
        "partition": record.partition,
        "offset": record.offset,
        "sha256": record.sha256,
    }
