"""Verification: from the final verdict to every byte it rests on, recomputed. Identical, or FAIL with a blocker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fp_contracts import control as c
from fp_contracts.canonical import CanonicalError, canonical_bytes
from fp_contracts.phases import PHASES
from fp_contracts.proofs import proof_key
from fp_verify.addendum import Holds, addendum_faults
from fp_verify.cells import Cell, spine_cells
from fp_verify.learning import learning_cells
from fp_verify.log import Documents, Log
from fp_verify.rehearsal import rehearsal_cells
from fp_verify.sources import (
    Mismatch,
    Read,
    blocker_of,
    check_refs,
    gate_faults,
    governance_faults,
    later_faults,
    load_documents,
    no_documents,
    record_faults,
)
from fp_verify.verdict import final_verdict, proof_matrix, source_matrix

INCOMPLETE, INCONSISTENT = PHASES["P16"].blockers
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Result:
    """What verification found. `verdict` and `spine_verdict` as recomputed; FAIL when anything is not as recorded."""

    result: str
    objects: int
    mismatches: tuple[Mismatch, ...]
    verdict: str
    spine_verdict: str


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The three documents of P16 and the proof cells, from one log before one cut."""

    documents: dict[str, Any]
    cells: dict[tuple[str, str], Cell]
    faults: list[Mismatch]


def recompute(read: Read, log: Log, cut: int, metered_microusd: int, torn_down: bool = False) -> Recomputed:
    """Everything that the verdict says, from the records before `cut` and the objects they name."""
    past = log.before(cut)
    documents = load_documents(read, past)
    broken = check_refs(read, past.refs(), torn_down)
    broken += no_documents(past, documents, {mismatch.key for mismatch in broken})
    faults = _phase_faults(past, documents, broken)
    cells = all_cells(past, documents, metered_microusd)
    matrices = {
        "source_matrix": source_matrix(past, cut),
        "proof_matrix": proof_matrix(log.run, cells),
        "final_verdict": final_verdict(past, cut, documents, cells, {m.key: m.why for m in faults}, metered_microusd),
    }
    gates = [Mismatch(f"gate {m.key}", m.why, m.blocker) for m in faults if m.key not in {b.key for b in broken}]
    held = [m for m in gates if not any(b.blocker == m.blocker for b in broken)]
    return Recomputed(matrices, cells, broken + record_faults(past) + held)


def all_cells(log: Log, documents: Documents, metered_microusd: int) -> dict[tuple[str, str], Cell]:
    """Every cell that something may prove, by lane and proof."""
    cells = [
        *spine_cells(log, documents, metered_microusd).values(), *learning_cells(log, documents),
        *rehearsal_cells(log, documents),
    ]  # fmt: skip
    return {(cell.lane, cell.proof): cell for cell in cells}


def _phase_faults(log: Log, documents: Documents, broken: Sequence[Mismatch]) -> list[Mismatch]:
    """One entry per phase whose gate or evidence does not hold; `key` is the phase."""
    owners = {ref.key: phase for phase, ref in log.refs()}
    faults = dict(gate_faults(log))
    for mismatch in broken:
        faults.setdefault(owners[mismatch.key], f"{mismatch.key}: {mismatch.why}")
    for fault in [*governance_faults(log, documents), *(f"{m.key}: {m.why}" for m in record_faults(log))]:
        faults.setdefault("P11", fault)
    return [Mismatch(phase, why, blocker_of(phase)) for phase, why in faults.items()]


def verify(read: Read, log: Log, candidate: str | None = None, holds: Holds | None = None) -> Result:
    """Verify the published verdict of a run; `candidate` = the key of a verdict that is not published yet.

    `holds` checks a signature: without it the closing addendum is checked by its hashes alone.
    """
    faults: list[Mismatch] = []
    key = candidate or _published_key(log, faults)
    if key is None or log.state.header is None:
        faults.append(Mismatch("control log", "no pin, or no published verdict", INCONSISTENT))
        return _result(faults, 0, None)
    torn_down = log.state.passed("P17")
    try:
        recorded = orjson.loads(read(key))
        cut, metered = int(recorded["control_log"]["cut"]), int(recorded["metered_microusd"])
    except _MALFORMED as error:
        faults += check_refs(read, log.refs(), torn_down)
        return _result(_with(faults, [Mismatch(key, f"not readable: {type(error).__name__}", INCOMPLETE)]), 0, None)
    try:
        found = recompute(read, log, cut, metered, torn_down)
    except _MALFORMED as error:  # evidence whose hashes hold, in another form than whoever owns it writes
        why = f"does not recompute: {type(error).__name__} {str(error)[:120]}"
        return _result([*faults, *check_refs(read, log.refs(), torn_down), Mismatch(key, why, INCONSISTENT)], 0, None)
    faults = _with([*faults, *found.faults], later_faults(read, log, cut, torn_down))
    expected = _own_documents(read, log, key, found)
    faults = _with(faults, _own_faults(read, key, expected, torn_down))
    if candidate is None:
        faults += _announcement(log, found.documents["final_verdict"]) + addendum_faults(read, log, holds)
    objects = {ref.key for _, ref in log.refs()} | expected.keys()
    return _result(faults, len(objects), found.documents["final_verdict"])


def _with(faults: Sequence[Mismatch], more: Sequence[Mismatch]) -> list[Mismatch]:
    """What is found first about an object is what is said of it."""
    known = {mismatch.key for mismatch in faults}
    return [*faults, *(mismatch for mismatch in more if mismatch.key not in known)]


def _result(faults: Sequence[Mismatch], objects: int, final: dict[str, Any] | None) -> Result:
    if final is None or faults:
        return Result("FAIL", objects, tuple(faults), "FAIL", "FAIL")
    return Result("PASS", objects, (), final["verdict"], final["spine_verdict"])


def _published_key(log: Log, faults: list[Mismatch]) -> str | None:
    """The key of the final verdict, as the event and P16's gate both name it."""
    published, attempt = log.state.verdict, log.state.attempts.get("P16")
    if published is None:
        return None
    event = attempt.event if attempt is not None else None
    named = [] if event is None else [ref for ref in event.evidence if ref == published.verdict_ref]
    if not named:
        faults.append(Mismatch("gate P16", "does not name the published verdict", INCONSISTENT))
    return published.verdict_ref.key


def _own_documents(read: Read, log: Log, key: str, found: Recomputed) -> dict[str, dict[str, Any]]:
    """Key -> document that P16 must have put there: its three, and the proof artifacts."""
    folder = key.rpartition("/")[0]
    expected = {f"{folder}/{name}.json": document for name, document in found.documents.items()}
    for (lane, proof), cell in found.cells.items():
        if cell.ok or _exists(read, proof_key(log.run, lane, proof)):
            expected[proof_key(log.run, lane, proof)] = cell.document(log.run)
    return expected


def _own_faults(read: Read, key: str, expected: Mapping[str, dict[str, Any]], torn_down: bool) -> list[Mismatch]:
    """P16's documents and the proof artifacts against what was recomputed, byte for byte."""
    faults, folder = [], key.rpartition("/")[0]
    for place, document in expected.items():
        try:
            same = read(place) == canonical_bytes(document)
        except KeyError:
            faults.append(Mismatch(place, "missing", PHASES["P17"].blockers[1] if torn_down else INCOMPLETE))
            continue
        except CanonicalError:  # evidence brought a number in that no document of ours holds
            same = False
        if not same:
            owner = INCONSISTENT if place.startswith(folder) else INCOMPLETE
            faults.append(Mismatch(place, "is not what the evidence recomputes to", owner))
    return faults


def _exists(read: Read, key: str) -> bool:
    try:
        read(key)
    except KeyError:
        return False
    return True


def _announcement(log: Log, final: dict[str, Any]) -> list[Mismatch]:
    published = log.state.verdict
    assert isinstance(published, c.VerdictPublished)
    said = (published.verdict, published.spine_verdict, published.profile, published.merkle_root)
    recomputed = (final["verdict"], final["spine_verdict"], final["profile"], final["merkle_root"])
    if said == recomputed:
        return []
    return [Mismatch("verdict_published", "says another verdict than the evidence", INCONSISTENT)]
