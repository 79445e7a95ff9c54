"""Owner epochs: who may write the truth of a scope ("run|stage|partition"); only the newest epoch is not fenced."""

from collections.abc import Mapping

from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, Cursor


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


def guard_all(cur: Cursor, epochs: Mapping[str, int]) -> None:
    """`guard` for every scope at once, scope -> epoch; Fenced when any of them has another owner."""
    # The epochs are compared here: a row that another owner was just raising is read again once its lock is free.
    cur.execute("SELECT scope, epoch FROM ops.owner WHERE scope = ANY(%s) FOR SHARE", (list(epochs),))
    found: dict[str, int] = dict(cur.fetchall())
    lost = sorted(scope for scope, epoch in epochs.items() if found.get(scope) != epoch)
    if lost:
        raise Fenced(f"{', '.join(lost)}: no longer the owner's")
