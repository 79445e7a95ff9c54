"""What a teardown rehearsal that went well records, for tests. Pure."""

from typing import Any

from fp_contracts.control import EvidenceRef
from fp_contracts.scratch import KINDS, Scratch

SCRATCH_RUN = "platform_20260101T001000Z-r0123456789ab"
STARTED_US = 2_000_000_000


def rehearsal_documents(run: str, outlived: EvidenceRef) -> dict[str, dict[str, Any]]:
    """Proof -> document; each begins a second after the one before."""
    made = _resources("")
    left = [item for item in made if item["kind"] in ("database", "key", "folder")]
    planted = _resources(".planted")
    evidence = {"kind": "evidence", "name": outlived.key}
    created = [item for item in made if item["kind"] not in ("port", "folder")] + [evidence]
    found: dict[str, dict[str, Any]] = {
        "deploy": {"created": created, "read_back": created},
        "failure_drill": {"pid": 11, "signal": 9, "failpoint": "x", "before": made, "left": left},
        "recovery": {"pid": 12, "exit_code": 0, "before": left, "left": []},
        "monitor": {"before": [], "planted": planted, "found": planted, "after": []},
        "rollback": {"pid": 10, "reader_pid": 13, "objects": [outlived.model_dump(mode="json")]},
        "cost_control": {
            "running": {"processes": ["actuator"], "cost_microusd": 3, "window_us": 1_500_000},
            "idle": {"processes": [], "cost_microusd": 0, "window_us": 1_500_000}, "month_spend_microusd": 40,
        },
    }  # fmt: skip
    return {name: {"run": run, "scratch_run": SCRATCH_RUN, **_times(n), **own} for n, (name, own) in
            enumerate(found.items())}  # fmt: skip


def _times(n: int) -> dict[str, int]:
    return {"began_us": STARTED_US + n * 1_000_000, "ended_us": STARTED_US + n * 1_000_000 + 900_000}


def _resources(suffix: str) -> list[dict[str, str]]:
    scratch = Scratch(SCRATCH_RUN)
    names = {
        "topic": f"{scratch.topic_prefix}fp.bus.control.v1", "database": scratch.database,
        "key": f"{scratch.key_prefix}accounts:0",
    }  # fmt: skip
    return [{"kind": kind, "name": f"{names.get(kind, kind)}{suffix}"} for kind in KINDS]
