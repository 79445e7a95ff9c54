"""P16 FULL_PLATFORM_CLOSED: the verdict, recomputed by a second process from read-back objects (gates.md). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fp_contracts.control import EvidenceRef, VerdictPublished
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES

INCOMPLETE, INCONSISTENT = PHASES["P16"].blockers


@dataclass(frozen=True, slots=True)
class FinalFacts:
    """What P16 rests on. documents: source_matrix, proof_matrix, final_verdict.

    faults: evidence or gates that do not hold; conflicts: proof artifacts that already say something else;
    second_opinion: what `python -m fp_verify` printed, None = it could not judge.
    """

    documents: Mapping[str, Mapping[str, Any]]
    faults: Sequence[str]
    conflicts: Sequence[str]
    second_opinion: Mapping[str, Any] | None


def evaluate_p16(facts: FinalFacts) -> Evaluation:
    """Nothing here improves by waiting: every predicate is final."""
    final = facts.documents["final_verdict"]
    states: Mapping[str, Mapping[str, Any]] = final["phases"]
    waiting = [f"{key} {phase['state']}" for key, phase in states.items() if phase["state"] != "PASS"]
    cells = [f"{lane}/{proof}" for lane, proofs in final["proofs"].items()
             for proof, state in proofs.items() if state != "PASS"]  # fmt: skip
    broken = final["equations"]["broken"]
    return Evaluation(
        (
            _is("phases P(-1)–P15", ", ".join(waiting) or "all passed", "all passed", not waiting, INCOMPLETE),
            _is("six-proof matrix", f"{len(cells)} open: {', '.join(cells)}" if cells else "complete", "complete",
                not cells, INCOMPLETE),
            _is("equations", "; ".join(broken[:3]) or "all hold", "all hold", not broken, INCOMPLETE),
            _is("evidence and gates", "; ".join(facts.faults[:3]) or "all hold", "all hold", not facts.faults,
                INCOMPLETE),
            _is("proof artifacts written once", ", ".join(facts.conflicts) or "all", "all", not facts.conflicts,
                INCONSISTENT),
            _second(final, facts.second_opinion),
        ),
        dict(facts.documents),
    )  # fmt: skip


def _second(final: Mapping[str, Any], opinion: Mapping[str, Any] | None) -> Predicate:
    own = f"PASS {final['verdict']}, spine {final['spine_verdict']}"
    if opinion is None:
        return _is("verdict recomputed by a second process", "no answer", own, False, INCONSISTENT)
    theirs = f"{opinion['result']} {opinion['verdict']}, spine {opinion['spine_verdict']}"
    first = [f"; {m['key']}: {m['why']}" for m in opinion["mismatches"][:1]]
    return _is("verdict recomputed by a second process", theirs + "".join(first), own, theirs == own, INCONSISTENT)


def announcement(final: Mapping[str, Any], ref: EvidenceRef) -> VerdictPublished:
    """The event that publishes a final verdict."""
    return VerdictPublished(
        verdict=final["verdict"], spine_verdict=final["spine_verdict"], profile=final["profile"],
        merkle_root=final["merkle_root"], verdict_ref=ref,
    )  # fmt: skip


def _is(name: str, observed: str, required: str, ok: bool, code: str) -> Predicate:
    return Predicate(name, observed, required, ok, code, final=True)
