"""A watch outlives servers that are restarted, says so once, and gives up on those that stay away."""

from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest

from fp_contracts.fold import RunState
from fp_operator.following import Log, Outages, Stages
from fp_operator.pinning import Follower
from fp_operator.stack.server import NotReady
from fp_runtime.errors import Unavailable
from fp_runtime.postgres import Connection

from .pinned import RUN


class Answer:
    """What a query gives: stages, or the one row of what was ingested."""

    def fetchall(self) -> list[tuple[str, int]]:
        return [("rtdl", 5)]

    def fetchone(self) -> tuple[int]:
        return (7,)


class Server:
    """PostgreSQL as a watcher meets it: `lost` = its connections break, `down` = it takes none."""

    def __init__(self) -> None:
        self.lost = self.down = False
        self.opened = 0

    def open(self) -> Connection:
        if self.down:
            raise Unavailable("connection refused")
        self.opened += 1
        return cast(Connection, self)

    def execute(self, *_: Any) -> Answer:
        if self.lost:
            raise psycopg.errors.AdminShutdown("terminating connection\ndue to administrator command")
        return Answer()

    def close(self) -> None:
        self.lost = False


def test_a_lost_connection_is_one_line_and_the_next_look_has_another() -> None:
    server = Server()
    stages = Stages(server.open)
    assert stages.look(RunState(RUN), 1.0).stages == {"rtdl": 5, "ingest": 7}
    server.lost = True
    with pytest.raises(Unavailable, match=r"^terminating connection due to administrator command$"):
        stages.look(RunState(RUN), 2.0)
    server.down = True
    with pytest.raises(Unavailable, match="connection refused"):
        stages.look(RunState(RUN), 3.0)
    server.down = False
    assert stages.look(RunState(RUN), 4.0).ingested == 7
    assert server.opened == 2


def test_an_outage_is_told_once_and_another_one_again() -> None:
    told: list[str] = []
    outages = Outages(told.append, patience_s=60)
    for second in range(50):
        outages.away("PostgreSQL", "connection refused", second)
    assert told == ["PostgreSQL does not answer (connection refused); the run is watched on when it is back"]
    outages.back("PostgreSQL")
    outages.away("PostgreSQL", "terminating connection", 100.0)
    assert len(told) == 2


def test_a_server_that_stays_away_ends_the_watch() -> None:
    outages = Outages(lambda _: None, patience_s=60)
    outages.away("Kafka", "no broker", 10.0)
    outages.away("Kafka", "no broker", 70.0)
    with pytest.raises(Unavailable, match="Kafka has been away for 60 s: no broker"):
        outages.away("Kafka", "no broker", 70.5)


class Quiet:
    """A follower to whom nothing is said until `speaks`."""

    def __init__(self) -> None:
        self.state = RunState(RUN)
        self.speaks = False

    def poll(self, timeout_s: float) -> RunState:
        if self.speaks:
            self.state = RunState(RUN)
        return self.state


def refusing(asked: list[float]) -> Callable[[], None]:
    def probe() -> None:
        asked.append(1)
        raise NotReady("Broker transport failure")

    return probe


def test_a_broker_is_asked_only_when_the_log_is_silent() -> None:
    asked: list[float] = []
    quiet = Quiet()
    log = Log(cast(Follower, quiet), refusing(asked), 0.0)
    log.poll(4.0)
    assert asked == []
    with pytest.raises(Unavailable, match="Broker transport failure"):
        log.poll(6.0)
    quiet.speaks = True
    assert log.poll(7.0) is quiet.state
    quiet.speaks = False
    log.poll(11.0)
    assert len(asked) == 1
