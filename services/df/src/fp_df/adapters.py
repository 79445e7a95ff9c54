"""df's truth and checkpoints in PostgreSQL: one transaction for all partitions, under their owner epochs."""

from collections.abc import Iterable, Mapping, Sequence

from fp_df.audit import Link
from fp_df.marks import Batch, DecisionRow, StateMark, Truth
from fp_df.plan import STAGE, STATE_STAGE
from fp_runtime import outbox, ownership, progress, quarantine
from fp_runtime.outbox import Queued
from fp_runtime.postgres import Connection, Cursor, transaction
from fp_runtime.progress import Advance

_DECISION = (
    "COPY df.decision (run, decision_id, part, n, seq, event_id, flow_id, account_id, action, posture, policy_rev,"
    " intents, escalated, fingerprint) FROM STDIN"
)
_AUDIT = "COPY df.audit (run, chain, chain_seq, kind, decision_id, action_id, prev_hash, record_hash) FROM STDIN"


def scope_of(run: str, stage: str, part: int) -> str:
    """The owner scope of a partition of a stage."""
    return f"{run}|{stage}|{part}"


def copy_audit(cur: Cursor, run: str, links: Sequence[Link]) -> None:
    """Append links to their chains; a unique violation means a link was given twice."""
    if not links:
        return
    with cur.copy(_AUDIT) as copy:
        for link in links:
            hashes = bytes.fromhex(link.prev_hash), bytes.fromhex(link.record_hash)
            copy.write_row((run, link.chain, link.chain_seq, link.kind, link.decision_id, link.action_id, *hashes))


class PgStore:
    """service.Store for one member of a run."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._epochs: dict[int, int] = {}

    def own(self, parts: Sequence[int]) -> None:
        """See service.Store."""
        self._epochs = {
            part: ownership.raise_epoch(self._conn, scope_of(self._run, STAGE, part), self._instance) for part in parts
        }

    def load(self, part: int) -> tuple[Truth, StateMark | None, Mapping[str, bytes]]:
        """See service.Store."""
        found = progress.load(self._conn, self._run, STAGE, part)
        truth = Truth() if found is None else Truth.from_bytes(found.n, found.doc)
        state = progress.load(self._conn, self._run, STATE_STAGE, part)
        if state is None:
            return truth, None, {}
        rows = self._conn.execute(
            "SELECT account_id, state FROM df.account WHERE run = %s AND part = %s", (self._run, part)
        )
        accounts: dict[str, bytes] = dict(rows.fetchall())
        return truth, StateMark.from_bytes(state.n, state.doc), accounts

    def unpublished(self, part: int) -> list[Queued]:
        """See service.Store."""
        return outbox.unpublished(self._conn, self._run, f"df:{part}")

    def commit(self, batches: Sequence[Batch], published: Sequence[outbox.Published]) -> None:
        """See service.Store."""
        with transaction(self._conn) as cur:
            self._guard(cur, [batch.part for batch in batches])
            self._add_decisions(cur, batches)
            copy_audit(cur, self._run, [link for batch in batches for link in batch.links])
            outbox.add(cur, self._run, [queued for batch in batches for queued in batch.queued])
            outbox.record_facts(cur, self._run, published)
            quarantine.add(cur, self._run, STAGE, [item for batch in batches for item in batch.quarantined])
            steps = [Advance(b.part, b.expected_n, b.truth.n, b.truth.to_bytes()) for b in batches]
            progress.advance_all(cur, self._run, STAGE, steps)

    def _add_decisions(self, cur: Cursor, batches: Sequence[Batch]) -> None:
        rows = [(batch.part, row) for batch in batches for row in batch.rows]
        if not rows:
            return
        with cur.copy(_DECISION) as copy:
            for part, row in rows:
                copy.write_row(self._decision_row(part, row))

    def _decision_row(self, part: int, row: DecisionRow) -> tuple[object, ...]:
        decided = row.decided
        snapshot = decided.snapshot
        return (
            self._run, decided.decision_id, part, row.n, row.seq, snapshot.event_id, snapshot.flow_id,
            snapshot.account_id, str(decided.action), str(decided.posture), decided.policy_rev,
            int(decided.action_id is not None), decided.escalated, bytes.fromhex(row.fingerprint),
        )  # fmt: skip

    def _guard(self, cur: Cursor, parts: Iterable[int]) -> None:
        ownership.guard_all(cur, {scope_of(self._run, STAGE, part): self._epochs[part] for part in parts})

    def record_facts(self, published: Sequence[outbox.Published]) -> None:
        """See service.Store."""
        with transaction(self._conn) as cur:
            outbox.record_facts(cur, self._run, published)

    def save(self, saved: Mapping[int, tuple[StateMark, int, Mapping[str, bytes]]]) -> None:
        """See service.Store."""
        rows = [(part, name, state) for part, (_, _, states) in saved.items() for name, state in states.items()]
        steps = [Advance(part, expected_n, mark.n, mark.to_bytes()) for part, (mark, expected_n, _) in saved.items()]
        with transaction(self._conn) as cur:
            self._guard(cur, saved)
            cur.execute(
                "INSERT INTO df.account (run, part, account_id, state)"
                " SELECT %s, * FROM unnest(%s::int4[], %s::text[], %b::bytea[])"
                " ON CONFLICT (run, part, account_id) DO UPDATE SET state = excluded.state",
                (self._run, *([row[column] for row in rows] for column in range(3))),
            )
            progress.advance_all(cur, self._run, STATE_STAGE, steps)
