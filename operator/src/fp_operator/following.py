"""Following a run to its end: its folded control log, how far each stage is, and when there is nothing to wait for."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg

from fp_contracts.fold import RunState
from fp_contracts.phases import SPINE, VERDICT_INPUTS
from fp_operator.mesh import check_fatal
from fp_operator.pinning import Follower, Pinned
from fp_operator.rehearsal.program import Rehearser
from fp_operator.stack import Supervisor
from fp_operator.stack.kafka import probe_kafka
from fp_operator.stack.server import NotReady
from fp_operator.substrate import Environment
from fp_runtime.errors import Unavailable
from fp_runtime.postgres import Connection, connect

AWAY_S = 120.0
"""How long a server may be away before the watch gives up: a killed one is back in 10 to 40 s on a busy machine."""
_LOOK_EVERY_S = 1.0
_SILENT_S = 5.0
"""Services say every second that they live, so after so long the broker itself is asked."""
_INGESTED = "ingest"
Tell = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is at one moment; `stages`: records done per stage, `total`: lines wsp will send (0 = unknown)."""

    at: float
    stages: Mapping[str, int]
    total: int

    @property
    def ingested(self) -> int:
        return self.stages.get(_INGESTED, 0)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a watcher sees: state; progress now, one look before, at the first look; seconds since the watch began."""

    state: RunState
    progress: Progress
    before: Progress
    first: Progress
    seconds: float

    def rate_per_s(self, stage: str = _INGESTED) -> float:
        """Records per second of a stage between the two looks."""
        span = self.progress.at - self.before.at
        done = self.progress.stages.get(stage, 0) - self.before.stages.get(stage, 0)
        return done / span if span > 0 else 0.0

    def eta_s(self) -> float | None:
        """Seconds until the stream is in, at the mean rate since the first look; None while that is not known."""
        done, span = self.progress.ingested - self.first.ingested, self.progress.at - self.first.at
        if done <= 0 or span <= 0 or not self.progress.total:
            return None
        return max(0, self.progress.total - self.progress.ingested) * span / done


def over(state: RunState) -> str | None:
    """Why there is nothing to wait for, None while there is: verdict, stopped, blocked or refused."""
    if state.verdict is not None and state.closed is not None:
        return "verdict"
    if state.stopped is not None:
        return "stopped"
    if any(phase in SPINE or phase in VERDICT_INPUTS for phase in state.blocked()):
        return "blocked"
    return None


class Outages:
    """Servers that do not answer for now: each outage is told in one line, and ends the watch when it lasts."""

    def __init__(self, tell: Tell, patience_s: float = AWAY_S) -> None:
        self._tell = tell
        self._patience_s = patience_s
        self._since: dict[str, float] = {}

    def away(self, server: str, why: str, now: float) -> None:
        """The server did not answer. Unavailable when it has not for longer than the patience."""
        if server not in self._since:
            self._since[server] = now
            self._tell(f"{server} does not answer ({why}); the run is watched on when it is back")
        if now - self._since[server] > self._patience_s:
            raise Unavailable(f"{server} has been away for {self._patience_s:.0f} s: {why}")

    def back(self, server: str) -> None:
        """The server answered."""
        self._since.pop(server, None)


class Stages:
    """How far each stage is, as PostgreSQL has it; connects when first asked, and anew after a lost connection."""

    def __init__(self, open_connection: Callable[[], Connection]) -> None:
        self._open = open_connection
        self._conn: Connection | None = None

    def look(self, state: RunState, now: float) -> Progress:
        """Progress as of now; Unavailable while the server is away."""
        try:
            self._conn = self._conn or self._open()
            return _look(self._conn, state, now)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            raise Unavailable(" ".join(str(error).split())) from error

    def close(self) -> None:
        """Let go of the connection."""
        if self._conn is not None:
            self._conn.close()
        self._conn = None


class Log:
    """The run's control log as it grows; a broker that went silent is asked whether it lives."""

    def __init__(self, follower: Follower, probe: Callable[[], None], now: float) -> None:
        self._follower = follower
        self._probe = probe
        self._heard = now

    def poll(self, now: float) -> RunState:
        """The state with what came; Unavailable while the broker is away."""
        before = self._follower.state
        state = self._follower.poll(0.25)
        if state is not before:
            self._heard = now
        elif now - self._heard > _SILENT_S:
            try:
                self._probe()
            except NotReady as error:
                raise Unavailable(str(error)) from error
            self._heard = now
        return state


def follow(
    environment: Environment, pinned: Pinned, see: Callable[[Moment], None], timeout_s: float, tell: Tell | None = None
) -> tuple[RunState, str]:
    """Watch until the run is over; (state, verdict | stopped | blocked | timeout). UserError when a service is gone.

    Servers that are restarted meanwhile are waited for; Unavailable when one stays away.
    """
    began = time.monotonic()
    follower, rehearser, outages = Follower(environment, pinned), Rehearser(environment), Outages(tell or _say)
    log = Log(follower, partial(probe_kafka, environment.addresses.kafka_bootstrap), began)
    stages = Stages(lambda: connect(environment.settings().pg_dsn, "fp-watch", wait_s=0))
    first = last = before = Progress(began, {}, 0)
    try:
        while True:
            now = time.monotonic()
            state = _asked(outages, "Kafka", now, partial(log.poll, now)) or follower.state
            if now - last.at >= _LOOK_EVERY_S:
                check_fatal(Supervisor(environment.state_dir), environment.state_dir)
                seen = _asked(outages, "PostgreSQL", now, partial(stages.look, state, now))
                if seen is not None:
                    before, last = last, seen
                    first = last if not first.ingested else first
                    rehearser.look(state)
            see(Moment(state, last, before, first, now - began))
            end = over(state) or ("timeout" if now - began > timeout_s else None)
            if end is not None:
                return state, end
    finally:
        stages.close()
        follower.close()


def _asked(outages: Outages, server: str, now: float, ask: Callable[[], T]) -> T | None:
    """What the server answers, None while it is away."""
    try:
        answer = ask()
    except Unavailable as error:
        outages.away(server, str(error), now)
        return None
    outages.back(server)
    return answer


def _say(line: str) -> None:
    """On standard error, where a live board lets it through."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _look(conn: Connection, state: RunState, now: float) -> Progress:
    run = state.platform_run_id
    stages = {
        str(stage): int(n)
        for stage, n in conn.execute(
            "SELECT stage, sum(n) FROM ops.progress WHERE run = %s GROUP BY stage ORDER BY stage", (run,)
        ).fetchall()
    }
    row = conn.execute(
        "SELECT coalesce(sum(last_lane_seq), 0) FROM ig.lane JOIN ig.run USING (run_no) WHERE run = %s", (run,)
    ).fetchone()
    stages[_INGESTED] = int(row[0]) if row else 0
    total = sum(beat.metrics.get("total", 0) for beat in state.heartbeats.values() if beat.service == "wsp")
    return Progress(now, stages, total)
