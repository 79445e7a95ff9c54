"""df's truth and checkpoints in PostgreSQL: one transaction for all partitions, under their owner epochs."""

from collections.abc import Mapping, Sequence

from fp_df.audit import Link
from fp_df.marks import Batch, StateMark, Truth
from fp_df.plan import STAGE, STATE_STAGE
from fp_runtime import ownership, progress
from fp_runtime.outbox import Published, Queued
from fp_runtime.pgarrays import byteas, int8s, texts
from fp_runtime.postgres import Connection, transaction
from fp_runtime.progress import Advance
from fp_runtime.together import Step
from fp_runtime.truthstage import TruthStage, Write

# Arrays unnested in the target list go in step, row by row; FROM unnest(…) would keep each in a tuplestore first.
_DECISION = """
INSERT INTO df.decision (run, decision_id, part, n, seq, event_id, flow_id, account_id, action, posture, policy_rev,
    intents, escalated, fingerprint)
SELECT %s, unnest(%s), unnest(%s)::int4, unnest(%s), unnest(%s), unnest(%s), unnest(%s), unnest(%s), unnest(%s),
    unnest(%s), unnest(%s), unnest(%s)::int4, unnest(%s) = 1, unnest(%s)
RETURNING 1
"""
_AUDIT = """
INSERT INTO df.audit (run, chain, chain_seq, kind, decision_id, action_id, prev_hash, record_hash)
SELECT %s, unnest(%s), unnest(%s), unnest(%s), unnest(%s), unnest(%s), unnest(%s), unnest(%s)
RETURNING 1
"""


def audited(run: str, links: Sequence[Link]) -> list[Step]:
    """Append links to their chains; a unique violation means a link was given twice."""
    if not links:
        return []
    _, chains, seqs, kinds, decisions, actions, before, own = zip(*links, strict=True)
    hashes = (byteas([bytes.fromhex(one) for one in column]) for column in (before, own))
    columns = (texts(chains), int8s(seqs), texts(kinds), texts(decisions), texts(actions), *hashes)
    return [Step(_AUDIT, (run, *columns))]


def _decided(run: str, batches: Sequence[Batch]) -> list[Step]:
    """The decisions of all partitions."""
    rows = [row for batch in batches for row in batch.rows]
    if not rows:
        return []
    parts = [batch.part for batch in batches for _ in batch.rows]
    ids, ns, seqs, events, flows, accounts, actions, postures, policies, intents, escalated, fingerprints = zip(
        *rows, strict=True
    )
    columns = (
        texts(ids), int8s(parts), int8s(ns), int8s(seqs), texts(events), texts(flows), texts(accounts), texts(actions),
        texts(postures), texts(policies), int8s(intents), int8s(escalated),
        byteas([bytes.fromhex(one) for one in fingerprints]),
    )  # fmt: skip
    return [Step(_DECISION, (run, *columns))]


class PgStore:
    """service.Store for one member of a run."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._stage = TruthStage(conn, run, STAGE, instance)

    def own(self, parts: Sequence[int]) -> None:
        """See service.Store."""
        self._stage.own(parts)

    def load(self, part: int) -> tuple[Truth, StateMark | None, Mapping[str, bytes]]:
        """See service.Store."""
        found = self._stage.load(part)
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
        return self._stage.unpublished(f"df:{part}")

    def commit(self, batches: Sequence[Batch], published: Sequence[Published]) -> None:
        """See service.Store."""
        links = [link for batch in batches for link in batch.links]
        write = Write(
            [Advance(b.part, b.expected_n, b.truth.n, b.truth.to_bytes()) for b in batches],
            [*_decided(self._run, batches), *audited(self._run, links)],
            [queued for batch in batches for queued in batch.queued],
            [item for batch in batches for item in batch.quarantined],
        )
        self._stage.commit(write, published)

    def record_facts(self, published: Sequence[Published]) -> None:
        """See service.Store."""
        self._stage.record_facts(published)

    def save(self, saved: Mapping[int, tuple[StateMark, int, Mapping[str, bytes]]]) -> None:
        """See service.Store."""
        rows = [(part, name, state) for part, (_, _, states) in saved.items() for name, state in states.items()]
        columns = int8s([row[0] for row in rows]), texts([row[1] for row in rows]), byteas([row[2] for row in rows])
        steps = [Advance(part, expected_n, mark.n, mark.to_bytes()) for part, (mark, expected_n, _) in saved.items()]
        with transaction(self._conn) as cur:
            ownership.guard_all(cur, self._stage.held(saved))
            cur.execute(
                "INSERT INTO df.account (run, part, account_id, state)"
                " SELECT %s, part::int4, account_id, state FROM unnest(%s, %s, %s) AS t (part, account_id, state)"
                " ON CONFLICT (run, part, account_id) DO UPDATE SET state = excluded.state",
                (self._run, *columns),
            )
            progress.advance_all(cur, self._run, STATE_STAGE, steps)
