"""The archive's claims and objects in PostgreSQL."""

from collections.abc import Mapping, Sequence

from fp_contracts.control import EvidenceRef
from fp_rtdl.archive import STAGE, Archived, Range
from fp_runtime import ownership
from fp_runtime.bus import TopicPartition
from fp_runtime.postgres import Connection, transaction


class PgRanges:
    """archive.Ranges; see migrations/0001_rtdl.sql."""

    def __init__(self, conn: Connection, run: str, instance: str) -> None:
        self._conn = conn
        self._run = run
        self._instance = instance
        self._scope = f"{run}|{STAGE}|0"
        self._epoch = 0

    def own(self) -> None:
        """See archive.Ranges."""
        self._epoch = ownership.raise_epoch(self._conn, self._scope, self._instance)

    def reached(self) -> Mapping[TopicPartition, int]:
        """See archive.Ranges."""
        rows = self._conn.execute(
            "SELECT topic, part, max(next_offset) FROM rtdl.archive_claim WHERE run = %s GROUP BY topic, part",
            (self._run,),
        )
        return {(topic, part): next_offset for topic, part, next_offset in rows.fetchall()}

    def unfinished(self) -> Sequence[Range]:
        """See archive.Ranges."""
        rows = self._conn.execute(
            "SELECT topic, part, first_offset, next_offset FROM rtdl.archive_claim c WHERE run = %s AND NOT EXISTS"
            " (SELECT FROM rtdl.archive_object o WHERE o.run = c.run AND o.topic = c.topic AND o.part = c.part"
            " AND o.first_offset = c.first_offset)",
            (self._run,),
        )
        return [Range(*row) for row in rows.fetchall()]

    def claim(self, ranges: Sequence[Range]) -> None:
        """See archive.Ranges."""
        if not ranges:
            return
        with transaction(self._conn) as cur:
            ownership.guard(cur, self._scope, self._epoch)
            cur.executemany(
                "INSERT INTO rtdl.archive_claim (run, topic, part, first_offset, next_offset)"
                " VALUES (%s, %s, %s, %s, %s)",
                [(self._run, *wanted) for wanted in ranges],
            )

    def record(self, objects: Sequence[Archived]) -> None:
        """See archive.Ranges."""
        with transaction(self._conn) as cur:
            ownership.guard(cur, self._scope, self._epoch)
            cur.executemany(
                "INSERT INTO rtdl.archive_object (run, topic, part, first_offset, next_offset, key, sha256, size,"
                " records, content_digest) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (self._run, *o.range, o.ref.key, o.ref.sha256, o.ref.size, o.records, o.content_digest)
                    for o in objects
                ],
            )


def load_objects(conn: Connection, run: str) -> list[Archived]:
    """Every recorded object of a run, ordered by topic, partition and offset."""
    rows = conn.execute(
        "SELECT topic, part, first_offset, next_offset, key, sha256, size, records, content_digest"
        " FROM rtdl.archive_object WHERE run = %s ORDER BY topic, part, first_offset",
        (run,),
    )
    return [
        Archived(Range(topic, part, first, upto), EvidenceRef(key=key, sha256=sha, size=size), records, digest)
        for topic, part, first, upto, key, sha, size, records, digest in rows.fetchall()
    ]
