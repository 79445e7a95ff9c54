"""The governance log of a run: who decided what, hash-chained in the order of the control log. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fp_contracts import control as c
from fp_contracts.canonical import digest_of

GOVERNED = (
    c.RunPinRequested, c.RunPinned, c.GatePassed, c.GateBlocked, c.PolicyActivated, c.PolicySwitched, c.DrillRequested,
    c.DrillReported, c.RunResumeRequested, c.WaiverGranted, c.RunStopped,
)  # fmt: skip
FIRST = "0" * 64


def entry_of(event_id: str, offset: int, sha256: str, payload: c.ControlPayload) -> dict[str, Any]:
    """What the log says of one control record; the record itself stays on the control log, named by its hash."""
    actor = getattr(payload, "actor", None)
    return {
        "event_id": event_id,
        "kind": payload.type,
        "subject": _subject(payload),
        "actor": actor or "service",
        "offset": offset,
        "sha256": sha256,
    }


def _subject(payload: c.ControlPayload) -> str:
    match payload:
        case c.GatePassed() | c.GateBlocked() | c.RunResumeRequested():
            return f"{payload.phase} attempt {payload.attempt}"
        case c.PolicyActivated():
            return payload.policy_rev
        case c.PolicySwitched():
            return f"{payload.policy_rev} on partition {payload.partition}"
        case c.DrillRequested() | c.DrillReported():
            return f"{payload.instance} {payload.drill_id}"
        case c.WaiverGranted():
            return payload.waiver
        case _:
            return "run"


def chained(previous: str, n: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as number `n` of its chain: entry_hash = digest over the hash before it and itself."""
    linked = {**entry, "n": n, "prev_hash": previous}
    return {**linked, "entry_hash": digest_of(linked)}


def chain_fault(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """The first place where a chain does not recompute, None when it does."""
    previous = FIRST
    for n, entry in enumerate(entries, start=1):
        plain = {key: value for key, value in entry.items() if key != "entry_hash"}
        if entry["n"] != n or entry["prev_hash"] != previous or entry["entry_hash"] != digest_of(plain):
            return f"entry {n} does not follow from the one before it"
        previous = str(entry["entry_hash"])
    return None
