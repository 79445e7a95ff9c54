"""Stored progress of a stage's partition: the position from which a restart goes on, advanced by compare-and-set."""

from dataclasses import dataclass

from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, Cursor


@dataclass(frozen=True, slots=True)
class Progress:
    """n = merged position; doc = what the stage wrote to go on from there."""

    n: int
    doc: bytes


def load(conn: Connection, run: str, stage: str, partition: int) -> Progress | None:
    """The stored progress, None before the first advance."""
    row = conn.execute(
        "SELECT n, doc FROM ops.progress WHERE run = %s AND stage = %s AND part = %s", (run, stage, partition)
    ).fetchone()
    return None if row is None else Progress(row[0], row[1])


def load_all(conn: Connection, run: str, stage: str) -> dict[int, Progress]:
    """The stored progress of every partition of a stage that has one."""
    rows = conn.execute("SELECT part, n, doc FROM ops.progress WHERE run = %s AND stage = %s", (run, stage))
    return {part: Progress(n, doc) for part, n, doc in rows.fetchall()}


def advance(cur: Cursor, run: str, stage: str, partition: int, expected_n: int, n: int, doc: bytes) -> None:
    """Set progress from `expected_n` (0 also stands for no row yet) to `n`; Fenced when the stored n is another.

    `n` may equal `expected_n` when only offsets moved. ValueError when it would go back.
    """
    if n < expected_n:
        raise ValueError(f"progress of {stage} {partition} would go back from {expected_n} to {n}")
    place = {"run": run, "stage": stage, "part": partition, "expected": expected_n, "n": n, "doc": doc}
    cur.execute(
        "UPDATE ops.progress SET n = %(n)s, doc = %(doc)s, at = clock_timestamp()"
        " WHERE run = %(run)s AND stage = %(stage)s AND part = %(part)s AND n = %(expected)s",
        place,
    )
    if cur.rowcount == 0 and expected_n == 0:
        cur.execute(
            "INSERT INTO ops.progress (run, stage, part, n, doc)"
            " VALUES (%(run)s, %(stage)s, %(part)s, %(n)s, %(doc)s) ON CONFLICT DO NOTHING",
            place,
        )
    if cur.rowcount == 0:
        raise Fenced(f"progress of {stage} {partition} is no longer at {expected_n}")
