"""Following a run to its end: its folded control log, how far each stage is, and when there is nothing to wait for."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fp_contracts.fold import RunState
from fp_contracts.phases import SPINE, VERDICT_INPUTS
from fp_operator.mesh import check_fatal
from fp_operator.pinning import Follower, Pinned
from fp_operator.rehearsal.program import Rehearser
from fp_operator.stack import Supervisor
from fp_operator.substrate import Environment
from fp_runtime.postgres import Connection, connect

_LOOK_EVERY_S = 1.0
_INGESTED = "ingest"


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


def follow(
    environment: Environment, pinned: Pinned, see: Callable[[Moment], None], timeout_s: float
) -> tuple[RunState, str]:
    """Watch until the run is over; (state, verdict | stopped | blocked | timeout). UserError when a service is gone."""
    follower, rehearser = Follower(environment, pinned), Rehearser(environment)
    conn = connect(environment.settings().pg_dsn, "fp-watch")
    began = time.monotonic()
    first = last = before = Progress(began, {}, 0)
    try:
        while True:
            state = follower.poll(0.25)
            now = time.monotonic()
            if now - last.at >= _LOOK_EVERY_S:
                before, last = last, _look(conn, state, now)
                first = last if not first.ingested else first
                check_fatal(Supervisor(environment.state_dir), environment.state_dir)
                rehearser.look(state)
            see(Moment(state, last, before, first, now - began))
            end = over(state) or ("timeout" if now - began > timeout_s else None)
            if end is not None:
                return state, end
    finally:
        conn.close()
        follower.close()


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
