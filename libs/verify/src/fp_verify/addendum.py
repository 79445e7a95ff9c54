"""The closing addendum of a torn-down run: written once the servers were gone, so no gate names it. Pure.

It must be about this verdict and this teardown, and say that nothing ran any more.
"""

from typing import Any

import orjson

from fp_contracts.canonical import canonical_bytes, digest_of
from fp_contracts.phases import PHASES
from fp_verify.log import Log
from fp_verify.sources import Mismatch, Read, name_of

RESIDUE, UNREADABLE = PHASES["P17"].blockers


def addendum_faults(read: Read, log: Log) -> list[Mismatch]:
    """Where the addendum does not hold; none for a run that has none (not torn down, or killed before it was put)."""
    attempt, verdict = log.state.attempts.get("P17"), log.state.verdict
    if attempt is None or attempt.event is None or verdict is None:
        return []
    key = PHASES["P17"].evidence_key(log.run, attempt.event.phase_execution_id, "addendum")
    try:
        body = read(key)
    except KeyError:
        return []
    try:
        document: dict[str, Any] = orjson.loads(body)
        digest = document.pop("digest")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        return [Mismatch(key, f"not readable: {type(error).__name__}", UNREADABLE)]
    recorded = {name_of(ref): ref.sha256 for ref in attempt.event.evidence}
    wrong = {
        "is not canonical": canonical_bytes(document | {"digest": digest}) != body,
        "its digest does not recompute": digest_of(document) != digest,
        "is about another run": document.get("platform_run_id") != log.run,
        "is about another verdict": document.get("verdict_sha256") != verdict.verdict_ref.sha256,
        "is about another teardown": document.get("teardown") != recorded,
    }
    faults = [Mismatch(key, why, UNREADABLE) for why, found in wrong.items() if found]
    left = document.get("residue_after_servers")
    return faults if left == [] else [*faults, Mismatch(key, f"ran on after the servers: {left}", RESIDUE)]
