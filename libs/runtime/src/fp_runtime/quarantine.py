"""Quarantine of bus records that can never succeed, and the limit beyond which they mean a bad deploy."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fp_runtime.bus import Record
from fp_runtime.errors import LaneStopped
from fp_runtime.postgres import Connection, Cursor

WINDOW = 10_000
MAX_IN_WINDOW = 100
MAX_IN_A_ROW = 20


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record and the reason code. `keep_body` false keeps its hash only (card numbers)."""

    record: Record
    reason: str
    keep_body: bool = True


def add(cur: Cursor, run: str, stage: str, items: Iterable[Quarantined]) -> None:
    """Insert quarantine rows in the transaction of the span; the same record again changes nothing."""
    rows = [_row(run, stage, item) for item in items]
    if not rows:
        return  # as a rule: no statement, no round trip
    cur.executemany(
        "INSERT INTO ops.quarantine (run, stage, topic, part, kafka_offset, reason, body, body_sha256)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        rows,
    )


def _row(run: str, stage: str, item: Quarantined) -> tuple[object, ...]:
    record = item.record
    body = record.value if item.keep_body else None
    digest = hashlib.sha256(record.value).digest()
    return (run, stage, record.topic, record.partition, record.offset, item.reason, body, digest)


def counts(conn: Connection, run: str, stage: str) -> dict[str, int]:
    """Number of quarantined records by reason."""
    rows: list[tuple[str, int]] = conn.execute(
        "SELECT reason, count(*) FROM ops.quarantine WHERE run = %s AND stage = %s GROUP BY reason", (run, stage)
    ).fetchall()
    return dict(rows)


class PoisonLimit:
    """Stops a lane at 20 poison inputs in a row, or at 1 % of the last 10,000 inputs."""

    def __init__(self) -> None:
        self._position = 0
        self._in_a_row = 0
        self._recent: list[int] = []

    def good(self, n: int = 1) -> None:
        """`n` inputs were fine."""
        self._position += n
        if n:
            self._in_a_row = 0

    def poison(self) -> None:
        """One input was quarantined; LaneStopped when that is one too many."""
        self._position += 1
        self._in_a_row += 1
        oldest = self._position - WINDOW
        self._recent = [at for at in self._recent if at > oldest] + [self._position]
        if self._in_a_row >= MAX_IN_A_ROW:
            raise LaneStopped(f"{self._in_a_row} poison inputs in a row")
        if len(self._recent) >= MAX_IN_WINDOW:
            raise LaneStopped(f"{len(self._recent)} poison inputs in the last {WINDOW}")
