"""Reads what a control log names and says where it does not hold. Pure but for the `read` that is handed in."""

from collections.abc import Callable, Iterable
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
        try:
            body = read(ref.key)
        except KeyError:
            blocker = PHASES["P17"].blockers[1] if torn_down else blocker_of(phase)
            found.append(Mismatch(ref.key, "missing", blocker))
            continue
        if len(body) != ref.size:
            found.append(Mismatch(ref.key, f"{len(body)} bytes, recorded {ref.size}", blocker_of(phase)))
        elif sha256_hex(body) != ref.sha256:
            found.append(Mismatch(ref.key, "sha256 is not the recorded one", blocker_of(phase)))
    return found


def load_documents(read: Read, log: Log) -> Documents:
    """(phase, name) -> JSON document of each passed gate; one that is not what the gate names is left out."""
    documents: dict[tuple[str, str], Any] = {}
    for place, ref in gate_refs(log.state).items():
        if not check_refs(read, [(place[0], ref)], torn_down=False):
            documents[place] = orjson.loads(read(ref.key))
    for said in log.state.reconciled.values():
        if said.window == SECOND and not check_refs(read, [("P15", said.report_ref)], torn_down=False):
            documents[WINDOW_REPORT] = orjson.loads(read(said.report_ref.key))
    for told in log.state.rehearsals[-1:]:
        if not check_refs(read, [("P16", ref) for ref in (*told.evidence, *told.outlived)], torn_down=False):
            documents |= {(REHEARSAL, name_of(ref)): orjson.loads(read(ref.key)) for ref in told.evidence}
    return documents


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
