"""What one member keeps of a truth stage: partitions it owns, their progress, records to publish; committed as one."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fp_runtime import outbox, ownership, progress, quarantine, together
from fp_runtime.outbox import Published, Queued
from fp_runtime.postgres import Connection, transaction
from fp_runtime.progress import Advance, Progress
from fp_runtime.quarantine import Quarantined
from fp_runtime.together import Step


class Write(NamedTuple):
    """What one commit brings: progress of partitions, rows of the stage's own tables, records to publish, poison."""

    moves: Sequence[Advance]
    rows: Sequence[Step]
    queued: Sequence[Queued]
    quarantined: Sequence[Quarantined]


class TruthStage:
    """A stage of one run as one member writes it (laws 4 and 5, ADR 19). Every method raises Unavailable."""

    def __init__(self, conn: Connection, run: str, name: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._name = name
        self._owned = ownership.Owned(conn, run, name, instance)

    def own(self, parts: Iterable[int]) -> None:
        """Become the one owner of these partitions: who owned them before is fenced."""
        self._owned.take(parts)

    def held(self, parts: Iterable[int]) -> dict[str, int]:
        """Scope -> epoch of partitions it owns, for `ownership.guard_all` in a transaction of another kind."""
        return self._owned.epochs(parts)

    def load(self, part: int) -> Progress | None:
        """Stored progress of a partition, None before the first commit."""
        return progress.load(self._conn, self._run, self._name, part)

    def unpublished(self, source: str) -> list[Queued]:
        """Committed records of a source without a publish fact, in order."""
        return outbox.unpublished(self._conn, self._run, source)

    def commit(self, write: Write, published: Sequence[Published]) -> None:
        """All of it in one transaction, with where records of earlier ones were acknowledged. Fenced: nothing of it.

        One statement but for poison: with small batches the round trips would cost the most.
        """
        run, name, moves = self._run, self._name, write.moves
        epochs = self.held(move.partition for move in moves)
        steps = [
            ownership.held(epochs), progress.moved(run, name, moves), *write.rows,
            *outbox.stored(run, write.queued), *outbox.recorded(run, published),
        ]  # fmt: skip
        with transaction(self._conn) as cur:
            held_n, moved_n, *_ = together.execute(cur, steps)
            ownership.check(cur, epochs, held_n)
            progress.settle(cur, run, name, moves, moved_n)
            quarantine.add(cur, run, name, write.quarantined)

    def record_facts(self, published: Sequence[Published]) -> None:
        """Where committed records were acknowledged."""
        with transaction(self._conn) as cur:
            outbox.record_facts(cur, self._run, published)
