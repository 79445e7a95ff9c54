"""Owner epochs: who may write the truth of a scope ("run|stage|partition"); only the newest epoch is not fenced."""

from collections.abc import Iterable, Mapping

from fp_runtime import together
from fp_runtime.errors import Fenced
from fp_runtime.pgarrays import int8s, texts
from fp_runtime.postgres import Connection, Cursor
from fp_runtime.together import Step


class Owned:
    """The partitions of a stage that one member owns, and since which epoch."""

    def __init__(self, conn: Connection, run: str, stage: str, owner: str) -> None:
        self._conn = conn
        self._prefix = f"{run}|{stage}|"
        self._owner = owner
        self._epochs: dict[int, int] = {}

    def take(self, parts: Iterable[int]) -> None:
        """Become the owner of these partitions, and of no other."""
        self._epochs = {part: raise_epoch(self._conn, f"{self._prefix}{part}", self._owner) for part in parts}

    def epochs(self, parts: Iterable[int] | None = None) -> dict[str, int]:
        """Scope -> epoch, for `held` and `guard_all`; None = all it took. KeyError for a partition that it did not."""
        return {f"{self._prefix}{part}": self._epochs[part] for part in (self._epochs if parts is None else parts)}


def raise_epoch(conn: Connection, scope: str, owner: str) -> int:
    """Become the owner of `scope`; the new epoch, one above the last. Every earlier owner is fenced from here on."""
    row = conn.execute(
        "INSERT INTO ops.owner (scope, epoch, owner) VALUES (%s, 1, %s)"
        " ON CONFLICT (scope) DO UPDATE SET epoch = owner.epoch + 1, owner = excluded.owner,"
        " raised_at = clock_timestamp() RETURNING epoch",
        (scope, owner),
    ).fetchone()
    assert row is not None
    return int(row[0])


def guard(cur: Cursor, scope: str, epoch: int) -> None:
    """Hold the ownership until the end of this transaction; Fenced when another owner has raised the epoch."""
    cur.execute("SELECT 1 FROM ops.owner WHERE scope = %s AND epoch = %s FOR SHARE", (scope, epoch))
    if cur.fetchone() is None:
        raise Fenced(f"{scope}: epoch {epoch} is no longer the owner's")


# Epochs are compared behind the lock: a row that another owner was just raising is read again once it is free.
_HELD = """
SELECT 1 FROM (SELECT scope, epoch FROM ops.owner WHERE scope = ANY(%s) FOR SHARE) o
JOIN unnest(%s, %s) AS t (scope, epoch) USING (scope, epoch)
"""


def held(epochs: Mapping[str, int]) -> Step:
    """`guard` for every scope at once, scope -> epoch: returns a row for each that is held, for `check`."""
    scopes = texts(list(epochs))
    return Step(_HELD, (scopes, scopes, int8s(list(epochs.values()))))


def check(cur: Cursor, epochs: Mapping[str, int], held_n: int) -> None:
    """Fenced when `held` returned fewer rows than scopes; names those that have another owner."""
    if held_n == len(epochs):
        return
    cur.execute("SELECT scope, epoch FROM ops.owner WHERE scope = ANY(%s)", (texts(list(epochs)),))
    found: dict[str, int] = dict(cur.fetchall())
    lost = sorted(scope for scope, epoch in epochs.items() if found.get(scope) != epoch)
    raise Fenced(f"{', '.join(lost)}: no longer the owner's")


def guard_all(cur: Cursor, epochs: Mapping[str, int]) -> None:
    """`held` and `check` by themselves."""
    check(cur, epochs, together.execute(cur, [held(epochs)])[0])
