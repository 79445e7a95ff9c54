"""Cases and labels in PostgreSQL. Attaching is symmetric: whichever side comes second attaches, under one lock."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from fp_cm_ls import domain
from fp_cm_ls.cases import Batch, OutcomeRow, Position, TriggerRow
from fp_cm_ls.domain import Entry, Kind
from fp_cm_ls.plan import STAGE
from fp_contracts.downstream import LabelAssertion, LabelSubject
from fp_runtime import ownership, progress, quarantine
from fp_runtime.postgres import Connection, Cursor, transaction

_ATTACH_LOCK = 5141


def scope_of(run: str, part: str) -> str:
    """The owner scope of one of the two loops: `cases` or `labels`."""
    return f"{run}|{STAGE}|{part}"


def lock_cases(cur: Cursor) -> None:
    """Held to the end of the transaction: triggers, outcomes and labels attach one after the other."""
    cur.execute("SELECT pg_advisory_xact_lock(%s)", (_ATTACH_LOCK,))


def append(cur: Cursor, run: str, entries: Iterable[Entry]) -> None:
    """Append to timelines with the next dense number; an entry that stands there already is passed over."""
    for entry in entries:
        cur.execute(
            "INSERT INTO cm.timeline (run, case_id, n, kind, ref, event_us, detail)"
            " SELECT %(run)s, %(case)s, 1 + coalesce(max(n), 0), %(kind)s, %(ref)s, %(at)s, %(detail)s"
            " FROM cm.timeline WHERE run = %(run)s AND case_id = %(case)s"
            " HAVING NOT EXISTS (SELECT 1 FROM cm.timeline WHERE run = %(run)s AND case_id = %(case)s"
            "  AND kind = %(kind)s AND ref = %(ref)s)",
            {
                "run": run, "case": entry.case_id, "kind": entry.kind.value, "ref": entry.ref, "at": entry.event_us,
                "detail": Jsonb(dict(entry.detail)),
            },
        )  # fmt: skip


class PgCases:
    """cases.Store of one run."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._epoch = 0

    def own(self) -> None:
        """See cases.Store."""
        self._epoch = ownership.raise_epoch(self._conn, scope_of(self._run, "cases"), self._instance)

    def load(self) -> Position | None:
        """See cases.Store."""
        found = progress.load(self._conn, self._run, STAGE, 0)
        return None if found is None else Position.from_bytes(found.n, found.doc)

    def commit(self, batch: Batch) -> None:
        """See cases.Store."""
        with transaction(self._conn) as cur:
            ownership.guard(cur, scope_of(self._run, "cases"), self._epoch)
            if batch.triggers or batch.outcomes:
                lock_cases(cur)
            self._add_triggers(cur, batch.triggers)
            self._add_outcomes(cur, batch.outcomes)
            self._attach(cur, batch)
            quarantine.add(cur, self._run, STAGE, batch.quarantined)
            at = batch.position
            progress.advance(cur, self._run, STAGE, 0, batch.expected_n, at.n, at.to_bytes())

    def _add_triggers(self, cur: Cursor, rows: Sequence[TriggerRow]) -> None:
        cur.executemany(
            "INSERT INTO cm.case_file (run, case_id, account_id, opened_us) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            [(self._run, r.trigger.case_id, r.trigger.account_id, r.trigger.event_us) for r in rows],
        )
        cur.executemany(
            "INSERT INTO cm.trigger (run, trigger_id, case_id, source, part, seq, decision_id, source_event_id,"
            " intents, amount_minor, fingerprint) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [self._trigger_values(row) for row in rows],
        )

    def _trigger_values(self, row: TriggerRow) -> tuple[object, ...]:
        t = row.trigger
        return (
            self._run, t.trigger_id, t.case_id, row.source, row.part, row.seq, t.decision_id, t.source_event_id,
            t.intents, t.amount_minor, bytes.fromhex(row.fingerprint),
        )  # fmt: skip

    def _add_outcomes(self, cur: Cursor, rows: Sequence[OutcomeRow]) -> None:
        cur.executemany(
            "INSERT INTO cm.outcome (run, action_id, decision_id, kind, status, event_us)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (self._run, r.outcome.action_id, r.outcome.decision_id, r.outcome.kind, r.outcome.status, r.event_us)
                for r in rows
            ],
        )

    def _attach(self, cur: Cursor, batch: Batch) -> None:
        """Triggers with what came before them, then outcomes with the cases that were there before."""
        for row in batch.triggers:
            append(cur, self._run, domain.triggered(row.trigger))
            append(cur, self._run, self._earlier(cur, row))
        for outcome in batch.outcomes:
            for (case_id,) in cur.execute(
                "SELECT DISTINCT case_id FROM cm.trigger WHERE run = %s AND decision_id = %s",
                (self._run, outcome.outcome.decision_id),
            ).fetchall():
                append(cur, self._run, [domain.outcome_attached(case_id, outcome.outcome, outcome.event_us)])

    def _earlier(self, cur: Cursor, row: TriggerRow) -> list[Entry]:
        """Outcomes and labels of a trigger's payment that came before the trigger did."""
        trigger, entries = row.trigger, []
        outcomes = cur.execute(
            "SELECT action_id, kind, status, event_us FROM cm.outcome WHERE run = %s AND decision_id = %s"
            " ORDER BY action_id",
            (self._run, trigger.decision_id),
        ).fetchall()
        for action_id, kind, status, event_us in outcomes:
            detail = {"decision_id": trigger.decision_id, "kind": kind, "status": status}
            entries.append(Entry(trigger.case_id, Kind.ACTION_OUTCOME_ATTACHED, action_id, event_us, detail))
        known = assertions_of(cur, self._run, trigger.source_event_id)
        return [*entries, *(domain.label_attached(trigger.case_id, assertion) for assertion in known)]


def assertions_of(cur: Cursor, run: str, event_id: str) -> list[LabelAssertion]:
    """All assertions about one payment, as they were made."""
    rows = cur.execute(
        "SELECT assertion_id, event_id, merchant_id, account_id, label_type, label_value, effective_us, observed_us,"
        " source, actor FROM cm.assertion WHERE run = %s AND event_id = %s ORDER BY observed_us, assertion_id",
        (run, event_id),
    ).fetchall()
    return [_assertion(run, row) for row in rows]


def _assertion(run: str, row: tuple[Any, ...]) -> LabelAssertion:
    assertion_id, event_id, merchant_id, account_id, label_type, value, effective_us, observed_us, source, actor = row
    subject = LabelSubject(
        platform_run_id=run, event_id=event_id, merchant_id=merchant_id, account_id=account_id
    )  # fmt: skip
    return LabelAssertion(
        assertion_id=assertion_id, subject=subject, label_type=label_type, label_value=value,
        effective_us=effective_us, observed_us=observed_us, source=source, actor=actor,
    )  # fmt: skip
