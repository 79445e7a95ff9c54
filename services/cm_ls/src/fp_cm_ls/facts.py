"""The facts behind P10, from tables, progress and topics: never from a member's memory."""

from typing import Any

from fp_cm_ls.cases import Position, lag
from fp_cm_ls.gates import CaseFacts
from fp_cm_ls.plan import STAGE, RunPlan, plan_of
from fp_contracts import topics
from fp_contracts.derive import multiset_digest
from fp_contracts.fold import RunState
from fp_contracts.header import HeaderError, Kind, unpack
from fp_contracts.windows import FIRST
from fp_runtime import progress
from fp_runtime.bus import Consumer
from fp_runtime.postgres import Connection
from fp_runtime.readback import read_back

_COUNTED = {topics.CASE_TRIGGERS: Kind.CASE_TRIGGER, topics.LABELS: Kind.LABEL_ASSERTION}

# Each row: name of a fact and the count behind it.
_COUNTS = {
    "quarantined": "SELECT count(*) FROM ops.quarantine WHERE run = %(run)s AND stage = 'cm_ls'",
    "trigger_rows": "SELECT count(*) FROM cm.trigger WHERE run = %(run)s",
    "triggered_entries": "SELECT count(*) FROM cm.timeline WHERE run = %(run)s AND kind = 'CASE_TRIGGERED'",
    "doubled_triggers": "SELECT count(*) FROM (SELECT ref FROM cm.timeline WHERE run = %(run)s"
    " AND kind = 'CASE_TRIGGERED' GROUP BY ref HAVING count(*) > 1) d",
    "cases": "SELECT count(*) FROM cm.case_file WHERE run = %(run)s",
    "empty_cases": "SELECT count(*) FROM cm.case_file f WHERE run = %(run)s AND NOT EXISTS (SELECT 1"
    " FROM cm.timeline t WHERE t.run = f.run AND t.case_id = f.case_id AND t.kind = 'CASE_TRIGGERED')",
    "broken_timelines": "SELECT count(*) FROM (SELECT case_id FROM cm.timeline WHERE run = %(run)s"
    " GROUP BY case_id HAVING max(n) <> count(*) OR min(n) <> 1) b",
    "escalated_intents": "SELECT coalesce(sum(intents), 0) FROM (SELECT case_id, decision_id, max(intents) AS intents"
    " FROM cm.trigger WHERE run = %(run)s AND decision_id IS NOT NULL GROUP BY case_id, decision_id) d",
    "outcomes_attached": "SELECT count(*) FROM cm.timeline WHERE run = %(run)s AND kind = 'ACTION_OUTCOME_ATTACHED'",
    "lines": "SELECT count(*) FROM cm.label_line WHERE run = %(run)s",
    "assertions": "SELECT count(*) FROM cm.assertion WHERE run = %(run)s",
    "acked": "SELECT coalesce(sum(upper(span) - lower(span)), 0) FROM (SELECT unnest(range_agg(int8range(first_seq,"
    " first_seq + n))) AS span FROM ops.outbox_fact WHERE run = %(run)s AND source = 'ls' GROUP BY topic, part) f",
    "conflicting_lines": "SELECT count(*) FROM (SELECT event_id FROM cm.assertion WHERE run = %(run)s"
    " GROUP BY event_id, label_type, source, effective_us, observed_us HAVING count(DISTINCT label_value) > 1) c",
    "principals": "SELECT count(DISTINCT principal) FROM cm.label_line WHERE run = %(run)s",
}


def lane_ended(conn: Connection, state: RunState) -> bool:
    """Whether window 1 ended and the adjudicator's frontier reached its end."""
    assert state.header is not None
    if FIRST not in state.windows_ended:
        return False
    end_us = state.header.config.windows[FIRST - 1].end_us
    row = conn.execute("SELECT frontier_us FROM cm.label_lane WHERE run = %s", (state.platform_run_id,)).fetchone()
    return row is not None and row[0] >= end_us


def topic_counts(consumer: Consumer, state: RunState, plan: RunPlan) -> dict[Kind, int]:
    """Distinct (source, seq) of triggers and labels of this run on their topics, from the run's start to now."""
    assert state.header is not None
    seen: dict[Kind, set[tuple[str, int, int]]] = {kind: set() for kind in _COUNTED.values()}
    starts = {(topic, part): at for topic in _COUNTED for part, at in state.header.starts(topic).items()}
    for record in read_back(consumer, starts):
        try:
            header = unpack(record.header)
        except HeaderError:
            continue
        if header.run_tag == plan.tag and header.kind is _COUNTED[record.topic]:
            seen[header.kind].add((header.source, record.partition, header.seq))
    return {kind: len(found) for kind, found in seen.items()}


def gather(conn: Connection, consumer: Consumer, state: RunState) -> CaseFacts:
    """All facts of P10 as of now: the topics, then the tables at one moment behind them.

    What came in between counts as not yet read. Rows and position are of one moment: a position that is ahead of the
    rows would say that all is read while triggers are missing, and that is final.
    """
    assert state.header is not None
    plan = plan_of(state.header)
    ended, before = lane_ended(conn, state), consumer.ends(plan.starts)
    on_bus = topic_counts(consumer, state, plan)
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        stored, position = _stored(conn, state.platform_run_id)
    after = consumer.ends(plan.starts)
    moved = sum(after[place] - before[place] for place in after)
    return CaseFacts(
        lane_ended=ended,
        lag=moved + lag(position, after, plan.starts),
        open_gaps=0 if position is None else position.open_gaps,
        topic_triggers=on_bus[Kind.CASE_TRIGGER],
        topic_labels=on_bus[Kind.LABEL_ASSERTION],
        declared_lines=_declared(state),
        **stored,
    )


def _stored(conn: Connection, run: str) -> tuple[dict[str, Any], Position | None]:
    """The facts that tables tell, by their names, and where the cases' loop stands."""
    stored = {
        **_counts(conn, run),
        "lines_by_class": _histogram(conn, "SELECT class, count(*) FROM cm.label_line WHERE run = %s GROUP BY 1", run),
        "trigger_fingerprint": _fingerprint(conn, "SELECT fingerprint FROM cm.trigger WHERE run = %s", run),
        "label_fingerprint": _fingerprint(conn, "SELECT fingerprint FROM cm.assertion WHERE run = %s", run),
        "entries_by_kind": _histogram(conn, "SELECT kind, count(*) FROM cm.timeline WHERE run = %s GROUP BY 1", run),
    }
    found = progress.load(conn, run, STAGE, 0)
    return stored, None if found is None else Position.from_bytes(found.n, found.doc)


def _declared(state: RunState) -> int:
    """Lines of the adjudication lane as wsp declared them at the end of window 1."""
    assert state.header is not None
    if FIRST not in state.windows_ended:
        return 0
    return state.windows_ended[FIRST].lane_seqs.get(str(state.header.config.lanes), 0)


def _counts(conn: Connection, run: str) -> dict[str, Any]:
    statement = "SELECT " + ", ".join(f"({query})::bigint" for query in _COUNTS.values())
    row = conn.execute(statement.encode(), {"run": run}).fetchone()
    assert row is not None
    return dict(zip(_COUNTS, row, strict=True))


def _histogram(conn: Connection, query: str, run: str) -> dict[str, int]:
    return {str(name): int(n) for name, n in conn.execute(query.encode(), (run,)).fetchall()}


def _fingerprint(conn: Connection, query: str, run: str) -> str:
    return multiset_digest([bytes(row[0]).hex() for row in conn.execute(query.encode(), (run,)).fetchall()])
