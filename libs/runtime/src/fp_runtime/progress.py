"""Stored progress of a stage's partition: the position from which a restart goes on, advanced by compare-and-set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fp_runtime import together
from fp_runtime.errors import Fenced
from fp_runtime.pgarrays import byteas, int8s
from fp_runtime.postgres import Connection, Cursor
from fp_runtime.together import Step


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
FROM unnest(%s, %s, %s, %s) AS w (part, expected, n, doc)
WHERE p.run = %s AND p.stage = %s AND p.part = w.part AND p.n = w.expected
RETURNING 1
"""
_INSERT = """
INSERT INTO ops.progress (run, stage, part, n, doc)
SELECT %s, %s, part::int4, n, doc FROM unnest(%s, %s, %s) AS w (part, n, doc) ON CONFLICT DO NOTHING RETURNING 1
"""


def advance(cur: Cursor, run: str, stage: str, partition: int, expected_n: int, n: int, doc: bytes) -> None:
    """Set progress from `expected_n` (0 also stands for no row yet) to `n`; Fenced when the stored n is another.

    `n` may equal `expected_n` when only offsets moved. ValueError when it would go back.
    """
    advance_all(cur, run, stage, [Advance(partition, expected_n, n, doc)])


def advance_all(cur: Cursor, run: str, stage: str, steps: Sequence[Advance]) -> None:
    """`advance` for several partitions of a stage at once, each at most once; Fenced when any stands elsewhere."""
    if steps:
        settle(cur, run, stage, steps, together.execute(cur, [moved(run, stage, steps)])[0])


def moved(run: str, stage: str, steps: Sequence[Advance]) -> Step:
    """`advance_all` as a step: returns a row for each partition that had a row where it was expected, for `settle`."""
    for step in steps:
        if step.n < step.expected_n:
            raise ValueError(f"progress of {stage} {step.partition} would go back from {step.expected_n} to {step.n}")
    parts, expected, ns, docs = zip(*steps, strict=True)
    return Step(_UPDATE, (int8s(parts), int8s(expected), int8s(ns), byteas(docs), run, stage))


def settle(cur: Cursor, run: str, stage: str, steps: Sequence[Advance], moved_n: int) -> None:
    """The rest of `moved`, in its transaction: partitions without a row get one; Fenced when any stood elsewhere."""
    if moved_n == len(steps):
        return
    fresh = [step for step in steps if step.expected_n == 0]
    if fresh:
        parts, _, ns, docs = zip(*fresh, strict=True)
        moved_n += together.execute(cur, [Step(_INSERT, (run, stage, int8s(parts), int8s(ns), byteas(docs)))])[0]
    if moved_n == len(steps):
        return
    cur.execute("SELECT part, n FROM ops.progress WHERE run = %s AND stage = %s", (run, stage))
    stands: dict[int, int] = dict(cur.fetchall())
    lost = [step for step in steps if stands.get(step.partition) != step.n] or list(steps)
    raise Fenced(f"progress of {stage} {lost[0].partition} is no longer at {lost[0].expected_n}")
