"""Cases by pages on a real server: each comes once, with its own timeline, and no page reads another's."""

from collections.abc import Iterator
from typing import Any

import pytest

from fp_cm_ls.adapters import append
from fp_cm_ls.domain import Entry, Kind
from fp_cm_ls.reading import case, cases
from fp_runtime.postgres import Connection, connect, transaction

pytestmark = pytest.mark.stack
RUN, OTHER_RUN = "platform_20260101T000000Z", "platform_20260102T000000Z"


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    with connect(database, "wire-cm") as conn:
        yield conn


def opened(conn: Connection, run: str, case_id: str, payments: int = 1) -> None:
    """A case with a trigger for each payment, of 100 minor units each."""
    detail = {"amount_minor": 100}
    entries = [
        Entry(case_id, Kind.CASE_TRIGGERED, f"t{n}", n, detail | {"event_id": f"{case_id}-{n}"})
        for n in range(payments)
    ]
    conn.execute("INSERT INTO cm.case_file VALUES (%s, %s, %s, %s)", (run, case_id, "a1", 7))
    with transaction(conn) as cur:
        append(cur, run, entries)


def pages(conn: Connection, limit: int) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    after: str | None = ""
    while after is not None:
        page = cases(conn, RUN, after, limit)
        found.append(page["cases"])
        after = page["next"]
    return found


def test_every_case_comes_once_whatever_the_size_of_a_page(conn: Connection) -> None:
    assert pages(conn, 3) == [[]]
    ids = [f"c{n}" for n in range(7)]
    for n, case_id in enumerate(reversed(ids)):
        opened(conn, RUN, case_id, payments=n + 1)
    opened(conn, OTHER_RUN, "c3x")
    for limit in (1, 3, 6, 7, 8):
        found = pages(conn, limit)
        assert [len(page) for page in found] == [limit] * (7 // limit) + ([7 % limit] if 7 % limit else [])
        listed = [one for page in found for one in page]
        assert [one["case_id"] for one in listed] == ids
        assert [one["amount_minor"] for one in listed] == [100 * (7 - n) for n in range(7)]
        assert listed == [_without_timeline(case(conn, RUN, case_id)) for case_id in ids]


def test_a_page_reads_the_timelines_of_its_own_cases(conn: Connection) -> None:
    for case_id in ("c0", "c1", "c2"):
        opened(conn, RUN, case_id)
    conn.execute("INSERT INTO cm.timeline VALUES (%s, 'c2', 9, 'OF_A_LATER_RELEASE', 'r', 1, '{}')", (RUN,))
    assert [one["case_id"] for one in cases(conn, RUN, "", 2)["cases"]] == ["c0", "c1"]
    with pytest.raises(ValueError, match="OF_A_LATER_RELEASE"):
        cases(conn, RUN, "c1", 2)


def _without_timeline(found: dict[str, Any] | None) -> dict[str, Any]:
    assert found is not None
    return {name: value for name, value in found.items() if name != "timeline"}
