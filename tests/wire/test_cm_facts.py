"""The facts of P10 on a real server: rows and position are of one moment, whatever is committed while they are read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fp_cm_ls import facts
from fp_cm_ls.cases import Position
from fp_cm_ls.plan import STAGE
from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_runtime import progress
from fp_runtime.bus import TopicPartition
from fp_runtime.postgres import Connection, connect, transaction

from .cell import RUN, config_of, header_of

pytestmark = pytest.mark.stack
RECORDS = 6


class Bus:
    """Every topic ends where it began, but for six records of triggers."""

    def ends(self, places: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {place: RECORDS if place == (topics.CASE_TRIGGERS, 0) else at for place, at in places.items()}

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        pass


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    with connect(database, "wire-p10") as conn:
        yield conn


def test_a_commit_between_rows_and_position_does_not_look_like_lost_triggers(
    conn: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Callable[..., dict[str, Any]] = facts._counts

    def then_committed(of: Connection, run: str) -> dict[str, Any]:
        """The rows as they are; the cases' loop commits right behind that look."""
        found = counts(of, run)
        with connect(database, "wire-cases") as other, transaction(other) as cur:
            position = Position(offsets={(topics.CASE_TRIGGERS, 0): RECORDS})
            progress.advance(cur, RUN, STAGE, 0, 0, RECORDS, position.to_bytes())
        return found

    monkeypatch.setattr(facts, "_counts", then_committed)
    monkeypatch.setattr(facts, "topic_counts", lambda *_: dict.fromkeys(facts._COUNTED.values(), RECORDS))
    state = RunState(RUN, header=header_of(config_of()))
    found = facts.gather(conn, Bus(), state)  # type: ignore[arg-type]
    assert (found.trigger_rows, found.lag) == (0, RECORDS)
