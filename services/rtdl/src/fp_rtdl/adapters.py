"""rtdl's checkpoints in PostgreSQL: one transaction for all partitions of a member, under their owner epochs."""

from collections.abc import Sequence

from fp_contracts import topics
from fp_rtdl.checkpoint import Checkpoint, Restored, context_bytes, position_bytes, read_context, read_position
from fp_rtdl.plan import STAGE
from fp_runtime import ownership, progress, quarantine, spans
from fp_runtime.postgres import Connection, Cursor, transaction


def scope_of(run: str, part: int) -> str:
    """The owner scope of a partition."""
    return f"{run}|{STAGE}|{part}"


def label_stage(part: int) -> str:
    """The stage name of label spans: two ingress partitions read each label partition, each with its own progress."""
    return f"{STAGE}:{part}"


class PgCheckpoints:
    """service.Checkpoints; see migrations/0001_rtdl.sql."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._epochs: dict[int, int] = {}

    def own(self, parts: Sequence[int]) -> None:
        """See service.Checkpoints."""
        self._epochs = {
            part: ownership.raise_epoch(self._conn, scope_of(self._run, part), self._instance) for part in parts
        }

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
        """See service.Checkpoints."""
        with transaction(self._conn) as cur:
            for part, epoch in self._epochs.items():
                ownership.guard(cur, scope_of(self._run, part), epoch)
            for checkpoint in checkpoints:
                self._save(cur, checkpoint)

    def _save(self, cur: Cursor, checkpoint: Checkpoint) -> None:
        run, part, position = self._run, checkpoint.part, checkpoint.position
        doc = position_bytes(position)
        progress.advance(cur, run, STAGE, part, checkpoint.expected_n, position.n, doc)
        self._save_state(cur, checkpoint)
        labels = [span for span in checkpoint.spans if span.topic == topics.LABELS]
        spans.record(cur, run, STAGE, [span for span in checkpoint.spans if span.topic != topics.LABELS])
        spans.record(cur, run, label_stage(part), labels)
        quarantine.add(cur, run, STAGE, checkpoint.quarantined)
        if checkpoint.rebinds:
            cur.executemany(
                "INSERT INTO rtdl.rebind (run, part, kafka_offset, flow_id, standing_offset)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(run, part, again.offset, again.flow_id, again.standing_offset) for again in checkpoint.rebinds],
            )

    def _save_state(self, cur: Cursor, checkpoint: Checkpoint) -> None:
        place = (self._run, checkpoint.part)
        if checkpoint.merchants:
            cur.execute(
                "INSERT INTO rtdl.merchant (run, part, merchant_id, state)"
                " SELECT %s, %s, * FROM unnest(%s::text[], %s::bytea[])"
                " ON CONFLICT (run, part, merchant_id) DO UPDATE SET state = excluded.state",
                (*place, list(checkpoint.merchants), list(checkpoint.merchants.values())),
            )
        if checkpoint.context:
            newest_us = max(kept.expires_us for kept in checkpoint.context)
            cur.execute(
                "INSERT INTO rtdl.context (run, part, newest_us, n, entries) VALUES (%s, %s, %s, %s, %s)",
                (*place, newest_us, checkpoint.position.n, context_bytes(checkpoint.context)),
            )
            clock_us = checkpoint.position.clock_us
            cur.execute("DELETE FROM rtdl.context WHERE run = %s AND part = %s AND newest_us < %s", (*place, clock_us))
