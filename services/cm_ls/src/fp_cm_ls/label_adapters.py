"""The label store in PostgreSQL: labeldesk.Store of one run."""

from collections.abc import Sequence

from fp_cm_ls import domain
from fp_cm_ls.adapters import append, lock_cases, scope_of
from fp_cm_ls.labeldesk import Content, LabelBatch, LaneState, LineRow
from fp_cm_ls.plan import LABEL_SOURCE
from fp_contracts.downstream import LabelAssertion
from fp_runtime import outbox, ownership
from fp_runtime.bus import Producer
from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, Cursor, transaction


class PgLabels:
    """See labeldesk.Store."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._epoch = 0

    def own(self) -> None:
        """See labeldesk.Store."""
        self._epoch = ownership.raise_epoch(self._conn, scope_of(self._run, "labels"), self._instance)

    def load(self) -> LaneState | None:
        """See labeldesk.Store."""
        row = self._conn.execute(
            "SELECT last_lane_seq, frontier_us, seqs, floors_us FROM cm.label_lane WHERE run = %s", (self._run,)
        ).fetchone()
        return None if row is None else LaneState(row[0], row[1], tuple(row[2]), tuple(row[3]))

    def lines(self, first: int, last: int) -> list[LineRow]:
        """See labeldesk.Store."""
        rows = self._conn.execute(
            "SELECT lane_seq, class, detail, sha256 FROM cm.label_line WHERE run = %s AND lane_seq BETWEEN %s AND %s"
            " ORDER BY lane_seq",
            (self._run, first, last),
        ).fetchall()
        return [LineRow(lane_seq, line_class, detail, bytes(digest)) for lane_seq, line_class, detail, digest in rows]

    def known(self, assertion_ids: Sequence[str]) -> dict[str, Content]:
        """See labeldesk.Store."""
        if not assertion_ids:
            return {}
        rows = self._conn.execute(
            "SELECT assertion_id, fingerprint, merchant_id, account_id FROM cm.assertion"
            " WHERE run = %s AND assertion_id = ANY(%s)",
            (self._run, list(assertion_ids)),
        ).fetchall()
        return {str(name): Content(bytes(digest).hex(), merchant, account) for name, digest, merchant, account in rows}

    def commit(self, batch: LabelBatch) -> None:
        """See labeldesk.Store."""
        with transaction(self._conn) as cur:
            ownership.guard(cur, scope_of(self._run, "labels"), self._epoch)
            self._add_lines(cur, batch)
            if batch.rows:
                lock_cases(cur)
                self._add_assertions(cur, batch)
                self._attach(cur, [row.assertion for row in batch.rows])
            outbox.add(cur, self._run, batch.queued)
            self._advance(cur, batch.before, batch.after)

    def _add_lines(self, cur: Cursor, batch: LabelBatch) -> None:
        if not batch.lines:
            return
        rows = [(r.lane_seq, r.line_class, r.detail, r.sha256) for r in batch.lines]
        cur.execute(
            "INSERT INTO cm.label_line (run, principal, lane_seq, class, detail, sha256)"
            " SELECT %s, %s, * FROM unnest(%s::int8[], %s::text[], %s::text[], %b::bytea[])",
            (self._run, batch.principal, *map(list, zip(*rows, strict=True))),
        )

    def _add_assertions(self, cur: Cursor, batch: LabelBatch) -> None:
        rows = [
            (
                r.assertion.assertion_id, r.assertion.subject.event_id, r.assertion.subject.merchant_id,
                r.assertion.subject.account_id, r.assertion.label_type, r.assertion.label_value,
                r.assertion.effective_us, r.assertion.observed_us, r.order_us, r.assertion.source,
                r.assertion.actor, r.part, r.seq, bytes.fromhex(r.fingerprint),
            )
            for r in batch.rows
        ]  # fmt: skip
        cur.execute(
            "INSERT INTO cm.assertion (run, assertion_id, event_id, merchant_id, account_id, label_type, label_value,"
            " effective_us, observed_us, order_us, source, actor, part, seq, fingerprint) SELECT %s, * FROM"
            " unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int8[], %s::int8[],"
            " %s::int8[], %s::text[], %s::text[], %s::int4[], %s::int8[], %b::bytea[])",
            (self._run, *map(list, zip(*rows, strict=True))),
        )

    def _attach(self, cur: Cursor, assertions: Sequence[LabelAssertion]) -> None:
        """Labels to the cases of their payments that are there before them."""
        events = [assertion.subject.event_id for assertion in assertions]
        rows = cur.execute(
            "SELECT DISTINCT source_event_id, case_id FROM cm.trigger WHERE run = %s AND source_event_id = ANY(%s)"
            " ORDER BY case_id",
            (self._run, events),
        )
        cases: dict[str, list[str]] = {}
        for event_id, case_id in rows.fetchall():
            cases.setdefault(event_id, []).append(case_id)
        attached = ((case_id, one) for one in assertions for case_id in cases.get(one.subject.event_id, ()))
        append(cur, self._run, [domain.label_attached(case_id, one) for case_id, one in attached])

    def _advance(self, cur: Cursor, before: LaneState, after: LaneState) -> None:
        """Compare-and-set on the lane's position; zero rows = another writer took it."""
        values = {
            "run": self._run, "seq": after.last_lane_seq, "frontier": after.frontier_us, "seqs": list(after.seqs),
            "floors": list(after.floors_us), "before": before.last_lane_seq, "was": before.frontier_us,
        }  # fmt: skip
        cur.execute(
            "INSERT INTO cm.label_lane AS l (run, last_lane_seq, frontier_us, seqs, floors_us)"
            " VALUES (%(run)s, %(seq)s, %(frontier)s, %(seqs)s, %(floors)s) ON CONFLICT (run) DO UPDATE SET"
            " last_lane_seq = excluded.last_lane_seq, frontier_us = excluded.frontier_us, seqs = excluded.seqs,"
            " floors_us = excluded.floors_us WHERE l.last_lane_seq = %(before)s AND l.frontier_us = %(was)s",
            values,
        )
        if cur.rowcount != 1:
            raise Fenced("the adjudication lane was moved by another writer")

    def publish_all(self, producer: Producer) -> None:
        """See labeldesk.Store."""
        outbox.drain(self._conn, producer, self._run, [LABEL_SOURCE])
