"""Several statements of a transaction as one: one round trip, whatever they are (ADR 19)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from fp_runtime.postgres import Cursor


class Step(NamedTuple):
    """One statement that returns its rows (RETURNING, or a SELECT with locks) and its values.

    Arrays are those of `pgarrays`: PostgreSQL takes their types from them.
    """

    sql: str
    values: tuple[Any, ...]


def execute(cur: Cursor, steps: Sequence[Step]) -> list[int]:
    """Execute them as one statement; how many rows each of them returned.

    All see the database as it was before: no step may build on what another of them writes.
    """
    cur.execute(_text(tuple(step.sql for step in steps)), [value for step in steps for value in step.values])
    found = cur.fetchone()
    assert found is not None
    return list(found)


@lru_cache(maxsize=256)
def _text(statements: tuple[str, ...]) -> str:
    parts = ", ".join(f"s{at} AS ({text})" for at, text in enumerate(statements))
    counts = ", ".join(f"(SELECT count(*) FROM s{at})" for at in range(len(statements)))
    return f"WITH {parts} SELECT {counts}"
