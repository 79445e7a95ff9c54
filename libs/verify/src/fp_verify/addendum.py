"""The closing addendum of a torn-down run: written once the servers were gone, so no gate names it. Pure.

It must be about this verdict and this teardown, and say that nothing ran any more. Its signature is by the key that P0
recorded; who checks needs a library for that, and hands the check in.
"""

from collections.abc import Callable
from typing import Any

import orjson

from fp_contracts.canonical import canonical_bytes, digest_of, parse_strict
from fp_contracts.phases import PHASES
from fp_verify.log import Log, gate_refs
from fp_verify.sources import Mismatch, Read, name_of

RESIDUE, UNREADABLE = PHASES["P17"].blockers
Holds = Callable[[str, bytes, str], bool]
"""(public key, what was signed, signature) -> whether it is so."""


def addendum_faults(read: Read, log: Log, holds: Holds | None) -> list[Mismatch]:
    """Where the addendum does not hold; none for a run that has none (not torn down, or killed before it was put).

    Without `holds` the signature is not looked at.
    """
    attempt, verdict = log.state.attempts.get("P17"), log.state.verdict
    if attempt is None or attempt.event is None or verdict is None:
        return []
    key = PHASES["P17"].evidence_key(log.run, attempt.event.phase_execution_id, "addendum")
    try:
        body = read(key)
    except KeyError:
        return []
    try:
        document: dict[str, Any] = parse_strict(body)
        digest, signature = document.pop("digest"), document.pop("signature", None)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        return [Mismatch(key, f"not readable: {type(error).__name__}", UNREADABLE)]
    recorded = {name_of(ref): ref.sha256 for ref in attempt.event.evidence}
    seals = {"digest": digest} | ({} if signature is None else {"signature": signature})
    wrong = {
        "is not canonical": canonical_bytes(document | seals) != body,
        "its digest does not recompute": digest_of(document) != digest,
        "is about another run": document.get("platform_run_id") != log.run,
        "is about another verdict": document.get("verdict_sha256") != verdict.verdict_ref.sha256,
        "is about another teardown": document.get("teardown") != recorded,
        "is not signed by the key that P0 recorded": not _signed(read, log, holds, document, signature),
    }
    faults = [Mismatch(key, why, UNREADABLE) for why, found in wrong.items() if found]
    left = document.get("residue_after_servers")
    return faults if left == [] else [*faults, Mismatch(key, f"ran on after the servers: {left}", RESIDUE)]


def _signed(read: Read, log: Log, holds: Holds | None, document: dict[str, Any], signature: Any) -> bool:
    """Whether there is nothing to say against the signature; a P0 that recorded no key asks for none."""
    ref = gate_refs(log.state).get(("P0", "stack_snapshots"))
    try:
        snapshots = orjson.loads(read(ref.key)) if ref is not None else {}
    except (KeyError, ValueError):
        return False
    ops = snapshots.get("ops") if isinstance(snapshots, dict) else None
    key = ops.get("signing_key") if isinstance(ops, dict) else None
    if key is None or holds is None:
        return True
    return isinstance(signature, str) and holds(str(key), canonical_bytes(document), signature)
