"""The final verdict as a pure function of the control log, the evidence it names and the proof cells."""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.phases import PHASES, SPINE, VERDICT_INPUTS
from fp_contracts.pins import substitutions
from fp_contracts.proofs import LANES, PROOFS, proof_key
from fp_contracts.runconfig import RunHeader
from fp_contracts.windows import SECOND
from fp_verify.cells import Cell, receipts
from fp_verify.log import WINDOW_REPORT, Documents, Log

Cells = Mapping[tuple[str, str], Cell]
"""(lane, proof) -> cell; one that is missing is OPEN."""
JUDGED = ("P(-1)", "P0", *VERDICT_INPUTS)
EQUATIONS = (
    "lines sent = admitted + duplicate + quarantined",
    "admitted lines = records on the ingress topics",
    "auth requests = snapshots on the bus",
    "snapshots on the bus = decisions",
    "decisions = decisions on the bus",
    "decisions = DECIDED audit records",
    "intents = outcomes",
    "outcomes = outcomes on the bus",
    "outcomes = OUTCOME audit records",
    "audit records = audit records on the bus",
    "escalated decisions = case triggers",
    "case triggers = case triggers on the bus",
    "case triggers = CASE_TRIGGERED entries",
    "label assertions = labels on the bus",
    "labels on the bus = merged + pending beyond the window",
    *(f"archived = bus: {name}" for name in topics.DATA),
    "spans that do not tile",
    "publishes in doubt",
    "booked + unbooked spend = metered, µUSD",
)
"""Names of the equations that P11 must show, whatever was found."""


def merkle_root(refs: Iterable[c.EvidenceRef]) -> str:
    """hex64 root over (key, sha256, size) of distinct references, in key order; leaves and nodes are told apart."""
    leaves = sorted({(ref.key, ref.sha256, ref.size) for ref in refs})
    level = [hashlib.sha256(b"\0" + canonical_bytes(list(leaf))).digest() for leaf in leaves]
    if not level:
        return sha256_hex(b"")
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + odd
    return level[0].hex()


def source_matrix(log: Log, cut: int) -> dict[str, Any]:
    """Every gate as it lies on the control log, with offset, hash and evidence; and every reference on the log."""
    gates = [entry for entry in log.entries if isinstance(entry.payload, c.GatePassed | c.GateBlocked)]
    return {
        "run": log.run,
        "control_log": {
            "first": log.records[0].offset if log.records else 0, "cut": cut, "records": len(log.records),
            "digest": log.digest(),
        },
        "gates": [
            {
                "phase": entry.payload.phase,
                "attempt": entry.payload.attempt,
                "type": entry.payload.type,
                "phase_execution_id": entry.payload.phase_execution_id,
                "event_id": entry.event_id,
                "offset": entry.offset,
                "sha256": entry.sha256,
            }
            for entry in gates
            if isinstance(entry.payload, c.GatePassed | c.GateBlocked)
        ],
        "evidence": [{"phase": phase, **ref.model_dump(mode="json")} for phase, ref in log.refs()],
    }  # fmt: skip


def proof_matrix(run: str, cells: Cells) -> dict[str, Any]:
    """All 30 cells: PASS with the reference of its artifact, or OPEN with the reason."""
    lanes: dict[str, Any] = {lane: {} for lane in LANES}
    for lane, proof in product(LANES, PROOFS):
        cell = cells.get((lane, proof))
        if cell is None or not cell.ok:
            reason = "no artifact proves it" if cell is None else cell.reason
            lanes[lane][proof] = {"state": "OPEN", "reason": reason, "ref": None}
        else:
            ref = cell_ref(run, cell)
            lanes[lane][proof] = {"state": "PASS", "reason": "", "ref": ref.model_dump(mode="json")}
    return {"run": run, "lanes": lanes}


def cell_ref(run: str, cell: Cell) -> c.EvidenceRef:
    """The reference of a cell's artifact."""
    body = canonical_bytes(cell.document(run))
    return c.EvidenceRef(key=proof_key(run, cell.lane, cell.proof), sha256=sha256_hex(body), size=len(body))


def final_verdict(
    log: Log, cut: int, documents: Documents, cells: Cells, faults: Mapping[str, str],
    metered_microusd: int,
) -> dict[str, Any]:  # fmt: skip
    """The verdict document. `faults`: phase -> why its gate or evidence does not hold, from `gate_faults`.

    The metered sum is the one number that neither the log nor an evidence object holds: it is recorded here.
    """
    header = log.state.header
    assert header is not None
    proofs = proof_matrix(log.run, cells)
    sources = source_matrix(log, cut)
    phases = {key: _phase(log, key, faults.get(key)) for key in JUDGED}
    open_phases = [f"{key} {phases[key]['state']}" for key in JUDGED if phases[key]["state"] != "PASS"]
    open_cells = [
        f"{lane}/{proof}: {cell['reason']}"
        for lane, of_lane in proofs["lanes"].items()
        for proof, cell in of_lane.items()
        if cell["state"] != "PASS"
    ]
    broken = equation_faults(documents.get(("P11", "reconciliation")))
    later = [f"window 2: {fault}" for fault in window_faults(log, documents)]
    why = [*open_phases, *open_cells, *broken, *later]
    spine_why = [line for line in why if line.split(" ")[0] in SPINE or line.startswith("spine/")] + broken
    refs = [ref for _, ref in log.refs()] + [cell_ref(log.run, cell) for cell in cells.values() if cell.ok]
    return {
        **_identity(header),
        "control_log": sources["control_log"],
        "phases": phases,
        "proofs": {lane: {proof: cell["state"] for proof, cell in of_lane.items()}
                   for lane, of_lane in proofs["lanes"].items()},
        "equations": {"required": len(EQUATIONS), "broken": [*broken, *later]},
        "receipts_microusd": sum(receipt.spend_microusd for receipt in receipts(log).values()),
        "metered_microusd": metered_microusd,
        "evidence_objects": len({ref.key for ref in refs}),
        "merkle_root": merkle_root(refs),
        "source_matrix_sha256": digest_of(sources),
        "proof_matrix_sha256": digest_of(proofs),
        "open": why,
        "spine_open": spine_why,
        "verdict": "BLOCKED" if why else "GREEN",
        "spine_verdict": "BLOCKED" if spine_why else "GREEN",
    }  # fmt: skip


def _identity(header: RunHeader) -> dict[str, Any]:
    config = header.config
    return {
        "run": header.platform_run_id,
        "scenario_run_id": header.scenario_run_id,
        "run_config_digest": header.run_config_digest,
        "manifest_fingerprint": config.manifest_fingerprint,
        "image_manifest_digest": config.image_manifest_digest,
        "profile": config.profile,
        "substitutions": substitutions(config.profile),
        "scope": config.scope,
    }


def _phase(log: Log, key: str, fault: str | None) -> dict[str, Any]:
    attempt = log.state.attempts.get(key)
    blockers = attempt.event.blockers if attempt and isinstance(attempt.event, c.GateBlocked) else ()
    state = "BLOCKED" if fault is not None and log.state.passed(key) else log.state.state_of(key)
    return {
        "state": state,
        "attempt": log.state.attempt_of(key),
        "blockers": sorted({b.code for b in blockers} | ({PHASES[key].blockers[0]} if fault is not None else set())),
    }


def window_faults(log: Log, documents: Documents) -> list[str]:
    """Why window 2 of a full run is not reconciled: by its report, which must show every equation, and its event."""
    header = log.state.header
    if header is None or header.config.scope != "full":
        return []
    said, shown = log.state.reconciled.get(SECOND), documents.get(WINDOW_REPORT)
    if said is None or shown is None:
        return ["nothing shows that it is reconciled"]
    checks = [check.model_dump(mode="json") for check in said.checks]
    faults = [] if checks == shown.get("checks") and checks else ["its event and its report say different things"]
    faults += [f"{check.name}: {check.observed}" for check in said.checks if not check.ok]
    return [*faults, *equation_faults(shown)]


def equation_faults(reconciliation: Any) -> list[str]:
    """Equations that are missing, repeated or whose sides differ, by what the registry demands."""
    if reconciliation is None:
        return ["equations: P11 did not show them"]
    shown = reconciliation.get("equations", [])
    names = [equation["name"] for equation in shown]
    faults = [f"equation missing: {name}" for name in EQUATIONS if names.count(name) != 1]
    broken = [e for e in shown if e["left"] != e["right"] or e["ok"] is not True]
    return faults + [f"equation broken: {e['name']}: {e['left']} ≠ {e['right']}" for e in broken]
