"""Cases as JSON for people and tools: the list by pages, and one case with its timeline."""

from typing import Any

from fp_cm_ls.domain import Entry, Kind, fold_all
from fp_runtime.postgres import Connection

LISTED, MOST_LISTED = 100, 500


def cases(conn: Connection, run: str, after: str, limit: int) -> dict[str, Any]:
    """The first `limit` cases behind the id `after`, by id; `next` is the `after` of the next page, None at the end."""
    files = conn.execute(
        "SELECT case_id, account_id, opened_us FROM cm.case_file WHERE run = %s AND case_id > %s"
        " ORDER BY case_id LIMIT %s",
        (run, after, limit + 1),
    ).fetchall()
    page = files[:limit]
    rows = conn.execute(
        "SELECT case_id, kind, ref, event_us, detail FROM cm.timeline WHERE run = %s AND case_id = ANY(%s)"
        " ORDER BY case_id, n",
        (run, [case_id for case_id, *_ in page]),
    ).fetchall()
    timelines: dict[str, list[Entry]] = {}
    for case_id, *rest in rows:
        timelines.setdefault(case_id, []).append(_entry(case_id, *rest))
    found = [_summary(timelines.get(case_id, []), case_id, *rest) for case_id, *rest in page]
    return {"cases": found, "next": page[-1][0] if len(files) > limit else None}


def case(conn: Connection, run: str, case_id: str) -> dict[str, Any] | None:
    """One case with its whole timeline; None when the run has no such case."""
    row = conn.execute(
        "SELECT account_id, opened_us FROM cm.case_file WHERE run = %s AND case_id = %s", (run, case_id)
    ).fetchone()
    if row is None:
        return None
    rows = conn.execute(
        "SELECT kind, ref, event_us, detail FROM cm.timeline WHERE run = %s AND case_id = %s ORDER BY n", (run, case_id)
    ).fetchall()
    entries = [_entry(case_id, *row) for row in rows]
    timeline = [
        {"n": n, "kind": entry.kind.value, "ref": entry.ref, "event_us": entry.event_us, "detail": dict(entry.detail)}
        for n, entry in enumerate(entries, 1)
    ]
    return {**_summary(entries, case_id, *row), "timeline": timeline}


def _summary(entries: list[Entry], case_id: str, account_id: str | None, opened_us: int) -> dict[str, Any]:
    state = fold_all(case_id, entries)
    return {
        "case_id": case_id,
        "account_id": account_id,
        "opened_us": opened_us,
        "status": state.status,
        "triggers": len(state.triggers),
        "amount_minor": state.amount_minor,
        "outcomes": dict(state.outcomes),
        "labels": state.labels,
    }


def _entry(case_id: str, kind: str, ref: str, event_us: int, detail: dict[str, Any]) -> Entry:
    return Entry(case_id, Kind(kind), ref, event_us, detail)
