"""What a run came to, read back from its evidence: equations with both sides, and the fingerprints that runs share."""

from typing import Any

import orjson

from fp_contracts.fold import RunState
from fp_runtime import evidence
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore

_SUFFIX = "_fingerprint"


def document(store: EvidenceStore, state: RunState, phase: str, name: str) -> dict[str, Any] | None:
    """One evidence object of the current attempt of a phase, by its reference; None before the phase has one."""
    attempt = state.attempts.get(phase)
    refs = attempt.event.evidence if attempt and attempt.event else ()
    ref = next((ref for ref in refs if ref.key.endswith(f"/{name}.json")), None)
    if ref is None:
        return None
    try:
        found: dict[str, Any] = orjson.loads(evidence.read(store, ref))
    except (EvidenceMissing, EvidenceBroken) as error:
        raise UserError(f"evidence {ref.key}", str(error), "the run cannot be proven any more: `fp verify`") from error
    return found


def equations(store: EvidenceStore, state: RunState) -> list[dict[str, Any]]:
    """[{"name","left","right","ok"}] of P11; empty before it was evaluated."""
    found = document(store, state, "P11", "reconciliation")
    return list(found["equations"]) if found else []


def fingerprints(store: EvidenceStore, state: RunState) -> dict[str, str]:
    """Name -> digest of what a replay must reproduce, from P11; empty before it was evaluated."""
    found = document(store, state, "P11", "non_regression")
    results: dict[str, Any] = found["results"] if found else {}
    return {name.removesuffix(_SUFFIX): value for name, value in results.items() if name.endswith(_SUFFIX)}


def difference(left: dict[str, str], right: dict[str, str]) -> list[str]:
    """Names whose digests differ or that only one side has."""
    return [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]
