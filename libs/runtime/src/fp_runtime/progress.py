"""Stored progress of a stage's partition: the position from which a restart goes on, advanced by compare-and-set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, Cursor


@dataclass(frozen=True, slots=True)
class Progress:
    """n = merged position; doc = what the stage wrote to go on from there."""

    n: int
    doc: bytes


class Advance(NamedTuple):
    """One partition's step: from `expected_n` (0 also stands for no row yet) to `n`."""

    partition: int
    expected_n: int
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


_UPDATE = """
UPDATE ops.progress p SET n = w.n, doc = w.doc, at = clock_timestamp()
FROM unnest(%s::int4[], %s::int8[], %s::int8[], %b::bytea[]) AS w(part, expected, n, doc)
WHERE p.run = %s AND p.stage = %s AND p.part = w.part AND p.n = w.expected
RETURNING p.part
"""
_INSERT = """
INSERT INTO ops.progress (run, stage, part, n, doc)
SELECT %s, %s, * FROM unnest(%s::int4[], %s::int8[], %b::bytea[]) ON CONFLICT DO NOTHING RETURNING part
"""


def advance(cur: Cursor, run: str, stage: str, partition: int, expected_n: int, n: int, doc: bytes) -> None:
    """Set progress from `expected_n` (0 also stands for no row yet) to `n`; Fenced when the stored n is another.

    `n` may equal `expected_n` when only offsets moved. ValueError when it would go back.
    """
    advance_all(cur, run, stage, [Advance(partition, expected_n, n, doc)])


def advance_all(cur: Cursor, run: str, stage: str, steps: Sequence[Advance]) -> None:
    """`advance` for several partitions of a stage at once, each at most once; Fenced when any stands elsewhere."""
    if not steps:
        return
    for step in steps:
        if step.n < step.expected_n:
            raise ValueError(f"progress of {stage} {step.partition} would go back from {step.expected_n} to {step.n}")
    cur.execute(_UPDATE, (*map(list, zip(*steps, strict=True)), run, stage))
    done = {part for (part,) in cur.fetchall()}
    fresh = [step for step in steps if step.partition not in done and step.expected_n == 0]
    if fresh:
        parts, _, ns, docs = map(list, zip(*fresh, strict=True))
        cur.execute(_INSERT, (run, stage, parts, ns, docs))
        done.update(part for (part,) in cur.fetchall())
    lost = [step for step in steps if step.partition not in done]
    if lost:
        raise Fenced(f"progress of {stage} {lost[0].partition} is no longer at {lost[0].expected_n}")
