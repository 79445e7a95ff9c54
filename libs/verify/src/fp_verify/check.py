"""Verification: from the final verdict to every byte it rests on, recomputed. Identical, or FAIL with a blocker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fp_contracts import control as c
from fp_contracts.canonical import canonical_bytes
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
    load_documents,
)
from fp_verify.verdict import final_verdict, proof_matrix, source_matrix

INCOMPLETE, INCONSISTENT = PHASES["P16"].blockers


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
    objects: int


def recompute(read: Read, log: Log, cut: int, metered_microusd: int, torn_down: bool = False) -> Recomputed:
    """Everything that the verdict says, from the records before `cut` and the objects they name."""
    past = log.before(cut)
    broken = check_refs(read, past.refs(), torn_down)
    documents = load_documents(read, past)
    faults = _phase_faults(past, documents, broken)
    cells = all_cells(past, documents, metered_microusd)
    matrices = {
        "source_matrix": source_matrix(past, cut),
        "proof_matrix": proof_matrix(log.run, cells),
        "final_verdict": final_verdict(past, cut, documents, cells, {m.key: m.why for m in faults}, metered_microusd),
    }
    gates = [Mismatch(f"gate {m.key}", m.why, m.blocker) for m in faults if m.key not in {b.key for b in broken}]
    held = [m for m in gates if not any(b.blocker == m.blocker for b in broken)]
    return Recomputed(matrices, cells, broken + held, len({ref.key for _, ref in past.refs()}))


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
    for fault in governance_faults(log, documents):
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
    except (KeyError, TypeError, ValueError) as error:
        missing = PHASES["P17"].blockers[1] if torn_down and isinstance(error, KeyError) else INCOMPLETE
        return _result([*faults, Mismatch(key, f"not readable: {type(error).__name__}", missing)], 0, None)
    found = recompute(read, log, cut, metered, torn_down)
    faults += found.faults
    known = {mismatch.key for mismatch in faults}
    faults += [m for m in _own_objects(read, log, key, found, torn_down, candidate) if m.key not in known]
    if candidate is None:
        faults += _announcement(log, found.documents["final_verdict"]) + addendum_faults(read, log, holds)
    cells = sum(cell.ok for cell in found.cells.values())
    return _result(faults, found.objects + cells + len(found.documents), found.documents["final_verdict"])


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


def _own_objects(
    read: Read, log: Log, key: str, found: Recomputed, torn_down: bool, candidate: str | None
) -> list[Mismatch]:
    """P16's three documents and the proof artifacts against what was recomputed, byte for byte."""
    faults = []
    if candidate is None and (attempt := log.state.attempts.get("P16")) is not None and attempt.event is not None:
        faults += check_refs(read, [("P16", ref) for ref in attempt.event.evidence], torn_down)
    seen = {mismatch.key for mismatch in faults}
    folder = key.rpartition("/")[0]
    expected = {f"{folder}/{name}.json": document for name, document in found.documents.items()}
    for (lane, proof), cell in found.cells.items():
        if cell.ok or _exists(read, proof_key(log.run, lane, proof)):
            expected[proof_key(log.run, lane, proof)] = cell.document(log.run)
    for place, document in expected.items():
        if place in seen:
            continue
        try:
            same = read(place) == canonical_bytes(document)
        except KeyError:
            faults.append(Mismatch(place, "missing", PHASES["P17"].blockers[1] if torn_down else INCOMPLETE))
            continue
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
