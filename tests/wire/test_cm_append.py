"""Timelines on a real server: what is appended at once stands as if appended one after the other, and stands once."""

from collections.abc import Iterator
from random import Random

import pytest

from fp_cm_ls.adapters import append
from fp_cm_ls.domain import Entry, Kind
from fp_runtime.postgres import Connection, connect, transaction

pytestmark = pytest.mark.stack


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    with connect(database, "wire-cm") as conn:
        yield conn


def entry(case: int, ref: int, kind: Kind, n: int) -> Entry:
    return Entry(f"case-{case}", kind, f"ref-{ref}", n, {"n": n, "text": "é'\\\"", "codes": ["A"], "none": None})


def timeline(conn: Connection, run: str) -> list[tuple[object, ...]]:
    return conn.execute(
        "SELECT case_id, n, kind, ref, event_us, detail FROM cm.timeline WHERE run = %s ORDER BY case_id, n", (run,)
    ).fetchall()


def appended(conn: Connection, run: str, batches: list[list[Entry]]) -> list[tuple[object, ...]]:
    for batch in batches:
        with transaction(conn) as cur:
            append(cur, run, batch)
    return timeline(conn, run)


def test_at_once_is_as_one_after_the_other(conn: Connection) -> None:
    random = Random(7)
    entries = [
        entry(random.randrange(4), random.randrange(9), random.choice((Kind.CASE_TRIGGERED, Kind.NOTE)), n)
        for n in range(120)
    ]
    single = appended(conn, "single", [[one] for one in entries])
    assert 20 < len(single) < len(entries)  # some stood there already
    assert appended(conn, "whole", [entries]) == single
    assert appended(conn, "thirds", [entries[:40], entries[40:80], entries[80:], []]) == single
    assert appended(conn, "whole", [entries]) == single  # again changes nothing
    for case in {row[0] for row in single}:
        numbers = [row[1] for row in single if row[0] == case]
        assert numbers == list(range(1, len(numbers) + 1))
