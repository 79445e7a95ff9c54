"""Cases and labels in PostgreSQL. Attaching is symmetric: whichever side comes second attaches, under one lock."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from fp_cm_ls import domain
from fp_cm_ls.cases import Batch, OutcomeRow, Position, TriggerRow
from fp_cm_ls.domain import Entry, Kind
from fp_cm_ls.plan import STAGE
from fp_contracts.downstream import LabelAssertion, LabelSubject
from fp_runtime import ownership, progress, quarantine
from fp_runtime.pgarrays import byteas, int8s, texts
from fp_runtime.postgres import Connection, Cursor, transaction

_ATTACH_LOCK = 5141


def scope_of(run: str, part: str) -> str:
    """The owner scope of one of the two loops: `cases` or `labels`."""
    return f"{run}|{STAGE}|{part}"


def lock_cases(cur: Cursor) -> None:
    """Held to the end of the transaction: triggers, outcomes and labels attach one after the other."""
    cur.execute("SELECT pg_advisory_xact_lock(%s)", (_ATTACH_LOCK,))


_APPEND = """
WITH given AS (
    SELECT * FROM unnest(%(cases)s::text[], %(kinds)s::text[], %(refs)s::text[], %(ats)s::int8[], %(details)s::text[])
        WITH ORDINALITY AS g(case_id, kind, ref, event_us, detail, place)
), fresh AS (
    SELECT g.*, row_number() OVER (PARTITION BY case_id ORDER BY place) AS step
    FROM given g WHERE NOT EXISTS (
        SELECT FROM cm.timeline t
        WHERE t.run = %(run)s AND t.case_id = g.case_id AND t.kind = g.kind AND t.ref = g.ref)
), tail AS (
    SELECT case_id, (SELECT coalesce(max(n), 0) FROM cm.timeline t WHERE t.run = %(run)s AND t.case_id = c.case_id) AS n
    FROM (SELECT DISTINCT case_id FROM fresh) c
)
INSERT INTO cm.timeline (run, case_id, n, kind, ref, event_us, detail)
SELECT %(run)s, case_id, tail.n + step, kind, ref, event_us, detail::jsonb FROM fresh JOIN tail USING (case_id)
"""


def append(cur: Cursor, run: str, entries: Iterable[Entry]) -> None:
    """Append to timelines with the next dense numbers; an entry that stands there already is passed over."""
    once: dict[tuple[str, Kind, str], Entry] = {}
    for entry in entries:
        once.setdefault((entry.case_id, entry.kind, entry.ref), entry)
    given = tuple(once.values())
    if not given:
        return
    cur.execute(
        _APPEND,
        {
            "run": run,
            "cases": texts([entry.case_id for entry in given]),
            "kinds": texts([entry.kind.value for entry in given]),
            "refs": texts([entry.ref for entry in given]),
            "ats": int8s([entry.event_us for entry in given]),
            "details": texts([orjson.dumps(entry.detail).decode() for entry in given]),
        },
    )


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
                append(cur, self._run, self._entries(cur, batch))
            quarantine.add(cur, self._run, STAGE, batch.quarantined)
            at = batch.position
            progress.advance(cur, self._run, STAGE, 0, batch.expected_n, at.n, at.to_bytes())

    def _add_triggers(self, cur: Cursor, rows: Sequence[TriggerRow]) -> None:
        if not rows:
            return
        triggers = [row.trigger for row in rows]
        cur.execute(
            "INSERT INTO cm.case_file (run, case_id, account_id, opened_us)"
            " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::int8[]) ON CONFLICT DO NOTHING",
            (
                self._run, texts([t.case_id for t in triggers]), texts([t.account_id for t in triggers]),
                int8s([t.event_us for t in triggers]),
            ),
        )  # fmt: skip
        ids, cases, sources, parts, seqs, decisions, events, intents, amounts, fingerprints = zip(
            *map(_trigger_values, rows), strict=True
        )
        cur.execute(
            "INSERT INTO cm.trigger (run, trigger_id, case_id, source, part, seq, decision_id, source_event_id,"
            " intents, amount_minor, fingerprint) SELECT %s, trigger_id, case_id, source, part::int4, seq, decision_id,"
            " event_id, intents::int4, amount_minor, fingerprint FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " AS t (trigger_id, case_id, source, part, seq, decision_id, event_id, intents, amount_minor, fingerprint)",
            (
                self._run, texts(ids), texts(cases), texts(sources), int8s(parts), int8s(seqs), texts(decisions),
                texts(events), int8s(intents), int8s(amounts), byteas(fingerprints),
            ),
        )  # fmt: skip

    def _add_outcomes(self, cur: Cursor, rows: Sequence[OutcomeRow]) -> None:
        if not rows:
            return
        said = [row.outcome for row in rows]
        cur.execute(
            "INSERT INTO cm.outcome (run, action_id, decision_id, kind, status, event_us)"
            " SELECT %s, * FROM unnest(%s, %s, %s, %s, %s)",
            (
                self._run, texts([one.action_id for one in said]), texts([one.decision_id for one in said]),
                texts([one.kind for one in said]), texts([one.status for one in said]),
                int8s([row.event_us for row in rows]),
            ),
        )  # fmt: skip

    def _entries(self, cur: Cursor, batch: Batch) -> list[Entry]:
        """Triggers with what came before them, then outcomes with the cases that were there before."""
        triggers = [row.trigger for row in batch.triggers]
        entries: list[Entry] = []
        outcomes = self._outcomes_of(cur, [trigger.decision_id for trigger in triggers])
        known = assertions_of(cur, self._run, [trigger.source_event_id for trigger in triggers])
        for trigger in triggers:
            entries += domain.triggered(trigger)
            for action_id, kind, status, event_us in outcomes.get(trigger.decision_id, ()):
                detail = {"decision_id": trigger.decision_id, "kind": kind, "status": status}
                entries.append(Entry(trigger.case_id, Kind.ACTION_OUTCOME_ATTACHED, action_id, event_us, detail))
            said = known.get(trigger.source_event_id, ())
            entries += [domain.label_attached(trigger.case_id, assertion) for assertion in said]
        cases = self._cases_of(cur, [row.outcome.decision_id for row in batch.outcomes])
        for row in batch.outcomes:
            of_it = cases.get(row.outcome.decision_id, ())
            entries += [domain.outcome_attached(case_id, row.outcome, row.event_us) for case_id in of_it]
        return entries

    def _outcomes_of(
        self, cur: Cursor, decision_ids: Sequence[str | None]
    ) -> dict[str | None, list[tuple[str, str, str, int]]]:
        """(action, kind, status, event time in µs) of the outcomes of each of these decisions, by action."""
        found: dict[str | None, list[tuple[str, str, str, int]]] = {}
        if not decision_ids:
            return found
        rows = cur.execute(
            "SELECT decision_id, action_id, kind, status, event_us FROM cm.outcome"
            " WHERE run = %s AND decision_id = ANY(%s) ORDER BY action_id",
            (self._run, decision_ids),
        )
        for decision_id, *outcome in rows.fetchall():
            found.setdefault(decision_id, []).append((outcome[0], outcome[1], outcome[2], outcome[3]))
        return found

    def _cases_of(self, cur: Cursor, decision_ids: Sequence[str]) -> dict[str, list[str]]:
        """The cases that each of these decisions triggered."""
        found: dict[str, list[str]] = {}
        if not decision_ids:
            return found
        rows = cur.execute(
            "SELECT DISTINCT decision_id, case_id FROM cm.trigger WHERE run = %s AND decision_id = ANY(%s)"
            " ORDER BY case_id",
            (self._run, decision_ids),
        )
        for decision_id, case_id in rows.fetchall():
            found.setdefault(decision_id, []).append(case_id)
        return found


def _trigger_values(row: TriggerRow) -> tuple[object, ...]:
    t = row.trigger
    return (
        t.trigger_id, t.case_id, row.source, row.part, row.seq, t.decision_id, t.source_event_id, t.intents,
        t.amount_minor, bytes.fromhex(row.fingerprint),
    )  # fmt: skip


def assertions_of(cur: Cursor, run: str, event_ids: Sequence[str]) -> dict[str, list[LabelAssertion]]:
    """All assertions about each of these payments, as they were made."""
    found: dict[str, list[LabelAssertion]] = {}
    if not event_ids:
        return found
    rows = cur.execute(
        "SELECT assertion_id, event_id, merchant_id, account_id, label_type, label_value, effective_us, observed_us,"
        " source, actor FROM cm.assertion WHERE run = %s AND event_id = ANY(%s) ORDER BY observed_us, assertion_id",
        (run, list(event_ids)),
    )
    for row in rows.fetchall():
        found.setdefault(row[1], []).append(_assertion(run, row))
    return found


def _assertion(run: str, row: tuple[Any, ...]) -> LabelAssertion:
    assertion_id, event_id, merchant_id, account_id, label_type, value, effective_us, observed_us, source, actor = row
    subject = LabelSubject(
        platform_run_id=run, event_id=event_id, merchant_id=merchant_id, account_id=account_id
    )  # fmt: skip
    return LabelAssertion(
        assertion_id=assertion_id, subject=subject, label_type=label_type, label_value=value,
        effective_us=effective_us, observed_us=observed_us, source=source, actor=actor,
    )  # fmt: skip
