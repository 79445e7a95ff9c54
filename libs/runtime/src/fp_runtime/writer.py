"""One process per writer: a lock that dies with its database session, so a killed holder delays nobody.

What a second writer would do is safe without it (fences, compare-and-set, same identities): this saves the work done
twice, and says so. A lease would hold a restart up for the rest of its time.
"""

import os
import socket
import time

import psycopg

from fp_runtime.errors import Unavailable
from fp_runtime.postgres import connect

_CHECK_S = 1.0
# A holder whose machine vanished without a word is let go of within about 11 s.
_VANISHED = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
_HOLDER = (
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.datname = current_database()"
    " AND l.database = a.datid AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%s, 0)"
)


class Writer:
    """The right to write under a name, in one database, for as long as the session of this object lives."""

    def __init__(self, dsn: str, name: str, instance: str) -> None:
        self.name = name
        self._conn = connect(dsn, f"{instance}@{socket.gethostname()[:32]}:{os.getpid()}")
        self._conn.execute(_VANISHED)
        self._checked_at = time.monotonic()

    def take(self) -> str | None:
        """None when the right is ours from now on, else who has it: instance@host:pid. Unavailable."""
        try:
            row = self._conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (self.name,)).fetchone()
            if row is not None and row[0]:
                return None
            holder = self._conn.execute(_HOLDER, (self.name,)).fetchone()
        except psycopg.OperationalError as error:
            raise self._gone(error) from error
        return str(holder[0]) if holder else "somebody who just left"

    def check(self) -> None:
        """Unavailable when the session, and so the right, is gone; asks the server once a second at most."""
        now = time.monotonic()
        if now - self._checked_at < _CHECK_S:
            return
        self._checked_at = now
        try:
            self._conn.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise self._gone(error) from error

    def close(self) -> None:
        """Give the right up."""
        self._conn.close()

    def _gone(self, error: psycopg.Error) -> Unavailable:
        return Unavailable(f"the session that holds writer {self.name} ended: {str(error).strip()}")
