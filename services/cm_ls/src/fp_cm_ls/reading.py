"""Cases as JSON for people and tools: the list, and one case with its timeline."""

from typing import Any

from fp_cm_ls.domain import Entry, Kind, fold_all
from fp_runtime.postgres import Connection


def cases(conn: Connection, run: str) -> list[dict[str, Any]]:
    """Open cases first, then by amount; at most 500."""
    rows = conn.execute("SELECT case_id, account_id, opened_us FROM cm.case_file WHERE run = %s", (run,)).fetchall()
    found = [_summary(conn, run, *row) for row in rows]
    found.sort(key=lambda case: (case["status"] != "OPEN", -case["amount_minor"], case["case_id"]))
    return found[:500]


def case(conn: Connection, run: str, case_id: str) -> dict[str, Any] | None:
    """One case with its whole timeline; None when the run has no such case."""
    row = conn.execute(
        "SELECT case_id, account_id, opened_us FROM cm.case_file WHERE run = %s AND case_id = %s", (run, case_id)
    ).fetchone()
    if row is None:
        return None
    timeline = [
        {"n": n, "kind": entry.kind.value, "ref": entry.ref, "event_us": entry.event_us, "detail": dict(entry.detail)}
        for n, entry in enumerate(_timeline(conn, run, case_id), 1)
    ]
    return {**_summary(conn, run, *row), "timeline": timeline}


def _summary(conn: Connection, run: str, case_id: str, account_id: str | None, opened_us: int) -> dict[str, Any]:
    state = fold_all(case_id, _timeline(conn, run, case_id))
    return {
        "case_id": case_id,
        "account_id": account_id,
        "opened_us": opened_us,
        "status": state.status,
        "triggers": len(state.triggers),
        "amount_minor": state.amount_minor,
        "outcomes": dict(state.outcomes),
        "labels": dict(state.labels),
    }


def _timeline(conn: Connection, run: str, case_id: str) -> list[Entry]:
    rows = conn.execute(
        "SELECT kind, ref, event_us, detail FROM cm.timeline WHERE run = %s AND case_id = %s ORDER BY n", (run, case_id)
    ).fetchall()
    return [Entry(case_id, Kind(kind), ref, event_us, detail) for kind, ref, event_us, detail in rows]
