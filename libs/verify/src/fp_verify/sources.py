"""Reads what a control log names and says where it does not hold. Pure but for the `read` that is handed in."""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from fp_contracts import control as c
from fp_contracts.canonical import sha256_hex
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_contracts.windows import SECOND
from fp_verify.chain import chain_fault
from fp_verify.log import REHEARSAL, WINDOW_REPORT, Documents, Log, gate_refs

Read = Callable[[str], bytes]
"""Key to bytes; KeyError when there is no such object."""
_GONE = "missing"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as recorded, with the blocker it raises."""

    key: str
    why: str
    blocker: str


def blocker_of(phase: str) -> str:
    """The first blocker of a phase."""
    return PHASES[phase].blockers[0]


def check_refs(read: Read, refs: Iterable[tuple[str, c.EvidenceRef]], torn_down: bool) -> list[Mismatch]:
    """Every reference against its bytes. After a teardown an object that is gone is B17.1, before it its owner's."""
    found = []
    for phase, ref in refs:
        fault = _fault(read, ref)
        if fault is not None:
            gone = torn_down and fault == _GONE
            found.append(Mismatch(ref.key, fault, PHASES["P17"].blockers[1] if gone else blocker_of(phase)))
    return found


def _fault(read: Read, ref: c.EvidenceRef) -> str | None:
    try:
        body = read(ref.key)
    except KeyError:
        return _GONE
    if len(body) != ref.size:
        return f"{len(body)} bytes, recorded {ref.size}"
    return None if sha256_hex(body) == ref.sha256 else "sha256 is not the recorded one"


def later_faults(read: Read, log: Log, cut: int, torn_down: bool) -> list[Mismatch]:
    """What came after `cut`, P16's and P17's gates above all, by the rules that hold before it."""
    past = log.before(cut)
    judged, earlier, known = set(past.refs()), gate_faults(past), set(past.unreadable)
    faults = check_refs(read, [named for named in log.refs() if named not in judged], torn_down)
    faults += no_documents(log, load_documents(read, log), {fault.key for fault in faults})
    faults += [fault for record, fault in zip(log.unreadable, record_faults(log), strict=True) if record not in known]
    return faults + [
        Mismatch(f"gate {phase}", why, blocker_of(phase))
        for phase, why in gate_faults(log).items() if earlier.get(phase) != why
    ]  # fmt: skip


def record_faults(log: Log) -> list[Mismatch]:
    """The records of a run that break their contract, by offset."""
    blocker = PHASES["P16"].blockers[1]
    return [Mismatch(f"control log, offset {record.offset}", record.why, blocker) for record in log.unreadable]


def load_documents(read: Read, log: Log) -> Documents:
    """(phase, name) -> JSON object of each passed gate; one that is not what the gate names is left out."""
    named = dict(gate_refs(log.state))
    for said in log.state.reconciled.values():
        if said.window == SECOND:
            named[WINDOW_REPORT] = said.report_ref
    for told in log.state.rehearsals[-1:]:
        if all(_fault(read, ref) is None for ref in (*told.evidence, *told.outlived)):
            named |= {(REHEARSAL, name_of(ref)): ref for ref in told.evidence}
    found = {place: _document(read, ref) for place, ref in named.items() if _fault(read, ref) is None}
    return {place: document for place, document in found.items() if document is not None}


def _document(read: Read, ref: c.EvidenceRef) -> dict[str, Any] | None:
    try:
        found = orjson.loads(read(ref.key))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def no_documents(log: Log, documents: Documents, known: Container[str]) -> list[Mismatch]:
    """Evidence of passed gates that is as recorded, and no JSON object; `known` = keys that are not as recorded."""
    missing = {place: ref for place, ref in gate_refs(log.state).items() if place not in documents}
    return [
        Mismatch(ref.key, "is no JSON object", blocker_of(phase))
        for (phase, _), ref in missing.items() if ref.key not in known
    ]  # fmt: skip


def name_of(ref: c.EvidenceRef) -> str:
    """The name of a JSON object: the last segment of its key without its ending."""
    return ref.key.rpartition("/")[2].removesuffix(".json")


def gate_faults(log: Log) -> dict[str, str]:
    """phase -> why its passed gate does not hold by itself: the registry decides what it must show."""
    faults = {}
    for phase, attempt in log.state.attempts.items():
        if isinstance(attempt.event, c.GatePassed) and (fault := _gate_fault(log.run, attempt.event)) is not None:
            faults[phase] = fault
    return faults


def _gate_fault(run: str, gate: c.GatePassed) -> str | None:
    spec = PHASES[gate.phase]
    failed = [check.name for check in gate.checks if not check.ok]
    if failed or not gate.checks:
        return f"passed over failed checks: {', '.join(failed) or 'no check at all'}"
    names = [name_of(ref) for ref in gate.evidence]
    if sorted(names) != sorted(spec.evidence):
        return f"evidence is {', '.join(sorted(names))}, required {', '.join(sorted(spec.evidence))}"
    receipt = gate.receipt
    if (receipt.phase, receipt.attempt) != (gate.phase, gate.attempt):
        return "the receipt is of another attempt"
    if gate.phase in ("P(-1)", "P0"):
        return None
    if gate.phase_execution_id != phase_execution_id(run, gate.phase, gate.attempt):
        return "the execution id does not recompute"
    expected = {spec.evidence_key(run, gate.phase_execution_id, name) for name in spec.evidence}
    foreign = sorted({ref.key for ref in gate.evidence} - expected)
    return f"evidence outside its attempt: {foreign[0]}" if foreign else None


def governance_faults(log: Log, documents: Documents) -> list[str]:
    """Where P11's governance log does not recompute or says what the control log does not."""
    document = documents.get(("P11", "log"))
    if document is None:
        return []
    entries = document.get("entries", [])
    faults = [fault] if (fault := chain_fault(entries)) is not None else []
    known = {(entry.offset, entry.sha256) for entry in log.entries}
    strangers = [entry for entry in entries if (entry.get("offset"), entry.get("sha256")) not in known]
    return faults + [f"entry {entry.get('n')} names no record of the control log" for entry in strangers]
