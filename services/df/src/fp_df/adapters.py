"""df's truth and checkpoints in PostgreSQL: one transaction for all partitions, under their owner epochs."""

from collections.abc import Mapping, Sequence

from fp_df.audit import Link
from fp_df.marks import Batch, DecisionRow, StateMark, Truth
from fp_df.plan import STAGE, STATE_STAGE
from fp_runtime import outbox, ownership, progress, quarantine
from fp_runtime.outbox import Queued
from fp_runtime.postgres import Connection, Cursor, transaction

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

    def commit(self, batches: Sequence[Batch]) -> None:
        """See service.Store."""
        with transaction(self._conn) as cur:
            self._guard(cur)
            with cur.copy(_DECISION) as copy:
                for batch in batches:
                    for row in batch.rows:
                        copy.write_row(self._decision_row(batch.part, row))
            copy_audit(cur, self._run, [link for batch in batches for link in batch.links])
            outbox.add(cur, self._run, (queued for batch in batches for queued in batch.queued))
            for batch in batches:
                quarantine.add(cur, self._run, STAGE, batch.quarantined)
                doc = batch.truth.to_bytes()
                progress.advance(cur, self._run, STAGE, batch.part, batch.expected_n, batch.truth.n, doc)

    def _decision_row(self, part: int, row: DecisionRow) -> tuple[object, ...]:
        decided = row.decided
        snapshot = decided.snapshot
        return (
            self._run, decided.decision_id, part, row.n, row.seq, snapshot.event_id, snapshot.flow_id,
            snapshot.account_id, decided.action.value, decided.posture.value, decided.policy_rev,
            int(decided.action_id is not None), decided.escalated, bytes.fromhex(row.fingerprint),
        )  # fmt: skip

    def _guard(self, cur: Cursor) -> None:
        for part, epoch in self._epochs.items():
            ownership.guard(cur, scope_of(self._run, STAGE, part), epoch)

    def record_facts(self, published: Sequence[outbox.Published]) -> None:
        """See service.Store."""
        with transaction(self._conn) as cur:
            outbox.record_facts(cur, self._run, published)

    def save(self, saved: Mapping[int, tuple[StateMark, int, Mapping[str, bytes]]]) -> None:
        """See service.Store."""
        with transaction(self._conn) as cur:
            self._guard(cur)
            for part, (mark, expected_n, states) in saved.items():
                cur.execute(
                    "INSERT INTO df.account (run, part, account_id, state)"
                    " SELECT %s, %s, * FROM unnest(%s::text[], %s::bytea[])"
                    " ON CONFLICT (run, part, account_id) DO UPDATE SET state = excluded.state",
                    (self._run, part, list(states), list(states.values())),
                )
                progress.advance(cur, self._run, STATE_STAGE, part, expected_n, mark.n, mark.to_bytes())
