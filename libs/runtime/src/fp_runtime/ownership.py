"""Owner epochs: who may write the truth of a scope ("run|stage|partition"); only the newest epoch is not fenced."""

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
