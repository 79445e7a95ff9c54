"""rtdl's checkpoints in PostgreSQL: one transaction for all partitions of a member, under their owner epochs."""

from collections.abc import Sequence

from fp_contracts import topics
from fp_rtdl.checkpoint import Checkpoint, Restored, context_bytes, position_bytes, read_context, read_position
from fp_rtdl.plan import STAGE
from fp_runtime import ownership, progress, quarantine, spans
from fp_runtime.postgres import Connection, Cursor, transaction


def label_stage(part: int) -> str:
    """The stage name of label spans: two ingress partitions read each label partition, each with its own progress."""
    return f"{STAGE}:{part}"


class PgCheckpoints:
    """service.Checkpoints; see migrations/0001_rtdl.sql."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._owned = ownership.Owned(conn, run, STAGE, instance)

    def own(self, parts: Sequence[int]) -> None:
        """See service.Checkpoints."""
        self._owned.take(parts)

    def load(self, part: int) -> Restored | None:
        """See service.Checkpoints."""
        found = progress.load(self._conn, self._run, STAGE, part)
        if found is None:
            return None
        place = (self._run, part)
        states = self._conn.execute("SELECT merchant_id, state FROM rtdl.merchant WHERE run = %s AND part = %s", place)
        merchants: dict[str, bytes] = dict(states.fetchall())
        chunks = self._conn.execute(
            "SELECT entries FROM rtdl.context WHERE run = %s AND part = %s ORDER BY n", place
        ).fetchall()
        entries = [kept for (raw,) in chunks for kept in read_context(raw)]
        return Restored(read_position(found.doc), merchants, tuple(entries))

    def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """See service.Checkpoints. One statement per table, whatever the number of partitions."""
        with transaction(self._conn) as cur:
            ownership.guard_all(cur, self._owned.epochs())
            progress.advance_all(cur, self._run, STAGE, [
                progress.Advance(c.part, c.expected_n, c.position.n, position_bytes(c.position)) for c in checkpoints
            ])  # fmt: skip
            self._save_merchants(cur, checkpoints)
            self._save_context(cur, checkpoints)
            spans.record_all(cur, self._run, [(_stage_of(c.part, span), span) for c in checkpoints for span in c.spans])
            for checkpoint in checkpoints:
                quarantine.add(cur, self._run, STAGE, checkpoint.quarantined)
                self._save_rebinds(cur, checkpoint)

    def _save_merchants(self, cur: Cursor, checkpoints: Sequence[Checkpoint]) -> None:
        rows = [(c.part, name, state) for c in checkpoints for name, state in c.merchants.items()]
        if rows:
            cur.execute(
                "INSERT INTO rtdl.merchant (run, part, merchant_id, state)"
                " SELECT %s, * FROM unnest(%b::int4[], %b::text[], %b::bytea[])"
                " ON CONFLICT (run, part, merchant_id) DO UPDATE SET state = excluded.state",
                (self._run, *map(list, zip(*rows, strict=True))),
            )

    def _save_context(self, cur: Cursor, checkpoints: Sequence[Checkpoint]) -> None:
        chunks = [(c.part, max(kept.expires_us for kept in c.context), c.position.n, context_bytes(c.context))
                  for c in checkpoints if c.context]  # fmt: skip
        if chunks:
            cur.execute(
                "INSERT INTO rtdl.context (run, part, newest_us, n, entries)"
                " SELECT %s, * FROM unnest(%b::int4[], %b::int8[], %b::int8[], %b::bytea[])",
                (self._run, *map(list, zip(*chunks, strict=True))),
            )
        cur.execute(
            "DELETE FROM rtdl.context c USING unnest(%b::int4[], %b::int8[]) AS w(part, clock_us)"
            " WHERE c.run = %s AND c.part = w.part AND c.newest_us < w.clock_us",
            ([c.part for c in checkpoints], [c.position.clock_us for c in checkpoints], self._run),
        )

    def _save_rebinds(self, cur: Cursor, checkpoint: Checkpoint) -> None:
        if checkpoint.rebinds:
            cur.executemany(
                "INSERT INTO rtdl.rebind (run, part, kafka_offset, flow_id, standing_offset)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [
                    (self._run, checkpoint.part, again.offset, again.flow_id, again.standing_offset)
                    for again in checkpoint.rebinds
                ],
            )


def _stage_of(part: int, span: spans.Span) -> str:
    return label_stage(part) if span.topic == topics.LABELS else STAGE
