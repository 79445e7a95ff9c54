"""What a run came to, read back from its evidence: equations with both sides, and the fingerprints that runs share."""

from typing import Any

import orjson

from fp_contracts.control import EvidenceRef
from fp_contracts.fold import RunState
from fp_contracts.proofs import LANES, PROOFS
from fp_contracts.windows import SECOND
from fp_runtime import evidence
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore

_SUFFIX = "_fingerprint"
WINDOW_2 = "window 2: "


def document(store: EvidenceStore, state: RunState, phase: str, name: str) -> dict[str, Any] | None:
    """One evidence object of the current attempt of a phase, by its reference; None before the phase has one."""
    attempt = state.attempts.get(phase)
    refs = attempt.event.evidence if attempt and attempt.event else ()
    ref = next((ref for ref in refs if ref.key.endswith(f"/{name}.json")), None)
    return None if ref is None else _read(store, ref)


def _read(store: EvidenceStore, ref: EvidenceRef) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(evidence.read(store, ref))
    except (EvidenceMissing, EvidenceBroken) as error:
        raise UserError(f"evidence {ref.key}", str(error), "the run cannot be proven any more: `fp verify`") from error
    return found


def equations(store: EvidenceStore, state: RunState) -> list[dict[str, Any]]:
    """[{"name","left","right","ok"}] of P11, and of window 2 in a full run; empty before they were evaluated."""
    found = document(store, state, "P11", "reconciliation")
    later = state.reconciled.get(SECOND)
    again = _read(store, later.report_ref)["equations"] if later is not None else []
    own = list(found["equations"]) if found else []
    return own + [{**equation, "name": f"{WINDOW_2}{equation['name']}"} for equation in again]


def proofs(store: EvidenceStore, state: RunState) -> dict[str, dict[str, str]]:
    """lane -> proof -> PASS or OPEN, of P16's six-proof matrix; empty before it was made."""
    found = document(store, state, "P16", "proof_matrix")
    if found is None:
        return {}
    return {lane: {proof: str(found["lanes"][lane][proof]["state"]) for proof in PROOFS} for lane in LANES}


def fingerprints(store: EvidenceStore, state: RunState) -> dict[str, str]:
    """Name -> digest of what a replay must reproduce, from P11 and of window 2; empty before it was evaluated."""
    found = document(store, state, "P11", "non_regression")
    results: dict[str, Any] = found["results"] if found else {}
    digests = {name.removesuffix(_SUFFIX): value for name, value in results.items() if name.endswith(_SUFFIX)}
    later = state.reconciled.get(SECOND)
    if later is not None:
        report = _read(store, later.report_ref)
        digests["decision w2"] = report["decision_fingerprint"]
        if "shadow_fingerprint" in report:  # reports of earlier releases know of no challenger
            digests["shadow w2"] = report["shadow_fingerprint"]
        digests["bundle"] = str(report["promoted"]).removeprefix("bundle:")
    return digests


def difference(left: dict[str, str], right: dict[str, str]) -> list[str]:
    """Names whose digests differ or that only one side has."""
    return [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
