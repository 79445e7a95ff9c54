"""Leases: one holder at a time, by the database's clock.

A holder is an instance, so that its next process goes on at once after a crash. That an instance is one process is
kept elsewhere: by `writer` for the singletons, by owner epochs for the ordinals.
"""

from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, Cursor


def acquire(conn: Connection, name: str, holder: str, ttl_s: float) -> bool:
    """Take or renew the lease for `ttl_s` seconds from now; False while another holder's has not run out."""
    cur = conn.execute(
        "INSERT INTO ops.lease (name, holder, expires_at)"
        " VALUES (%(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(ttl)s))"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,"
        " expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)"
        " WHERE lease.holder = excluded.holder OR lease.expires_at <= clock_timestamp()",
        {"name": name, "holder": holder, "ttl": ttl_s},
    )
    return cur.rowcount == 1


def release(conn: Connection, name: str, holder: str) -> None:
    """Give the lease up at once; nothing happens when another holds it."""
    conn.execute("UPDATE ops.lease SET expires_at = clock_timestamp() WHERE name = %s AND holder = %s", (name, holder))


def guard(cur: Cursor, name: str, holder: str) -> None:
    """Hold the lease until the end of this transaction; Fenced when it ran out or is another's."""
    cur.execute(
        "SELECT 1 FROM ops.lease WHERE name = %s AND holder = %s AND expires_at > clock_timestamp() FOR SHARE",
        (name, holder),
    )
    if cur.fetchone() is None:
        raise Fenced(f"lease {name} is not held by {holder}")


def holder_of(conn: Connection, name: str) -> str | None:
    """Who holds the lease now, None when nobody does."""
    row = conn.execute(
        "SELECT holder FROM ops.lease WHERE name = %s AND expires_at > clock_timestamp()", (name,)
    ).fetchone()
    return None if row is None else str(row[0])
