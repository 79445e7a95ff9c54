"""The governance log of a run: who decided what, hash-chained in the order of the control log. Pure."""

from typing import Any

from fp_contracts import control as c

GOVERNED = (
    c.RunPinRequested, c.RunPinned, c.GatePassed, c.GateBlocked, c.PolicyActivated, c.PolicySwitched, c.DrillRequested,
    c.DrillReported, c.RunResumeRequested, c.WaiverGranted, c.RunStopped,
)  # fmt: skip


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
