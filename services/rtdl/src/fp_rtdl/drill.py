"""A drill really kills this process at a failpoint; the next process of the same instance measures the recovery.

The row of a drill is the only thing that outlives the kill: armed → (killed) → restarted → recovered → reported.
A process that ends in good order withdraws what it armed (armed_us = 0): the next one arms it anew.
"""

from collections.abc import Callable, Mapping, Sequence

from fp_contracts.control import DrillReported
from fp_contracts.fold import RunState
from fp_rtdl.plan import STAGE
from fp_runtime import failpoint
from fp_runtime.bus import TopicPartition
from fp_runtime.controllog import Event
from fp_runtime.postgres import Connection


def react(conn: Connection, instance: str, now_us: Callable[[], int], state: RunState) -> Sequence[Event]:
    """Arm what is asked of this instance, once; report what it recovered from. Runs in the control thread.

    `drill.failpoint` is a name (the next hit kills) or name:action:N.
    """
    events: list[Event] = []
    for drill_id, drill in state.drills.items():
        if drill.instance != instance or drill_id in state.drill_reports:
            continue
        if not _is_known(conn, state.platform_run_id, drill_id):
            # Armed before its row stands: a row without anything armed in its process means that it was killed.
            failpoint.arm(drill.failpoint if ":" in drill.failpoint else f"{drill.failpoint}:kill:1")
            conn.execute(
                "INSERT INTO rtdl.drill AS d (run, drill_id, instance, armed_us) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (run, drill_id) DO UPDATE SET armed_us = excluded.armed_us WHERE d.armed_us = 0",
                (state.platform_run_id, drill_id, instance, now_us()),
            )
            continue
        report = _report(conn, state.platform_run_id, drill_id, instance)
        if report is not None:
            events.append((report, (drill_id,)))
    return events


def withdraw(conn: Connection, instance: str) -> None:
    """An orderly end is no kill: what this process armed and never hit is not armed any more."""
    if failpoint.armed():
        conn.execute(
            "UPDATE rtdl.drill SET armed_us = 0 WHERE instance = %s AND restarted_us IS NULL", (instance,)
        )  # fmt: skip


def _is_known(conn: Connection, run: str, drill_id: str) -> bool:
    query = "SELECT 1 FROM rtdl.drill WHERE run = %s AND drill_id = %s AND armed_us > 0"
    return conn.execute(query, (run, drill_id)).fetchone() is not None


def _report(conn: Connection, run: str, drill_id: str, instance: str) -> DrillReported | None:
    row = conn.execute(
        "SELECT killed_us, restarted_us, recovered_us, lag_at_restart FROM rtdl.drill"
        " WHERE run = %s AND drill_id = %s AND recovered_us IS NOT NULL",
        (run, drill_id),
    ).fetchone()
    if row is None:
        return None
    killed_us, restarted_us, recovered_us, lag = row
    return DrillReported(
        drill_id=drill_id, instance=instance, killed_us=killed_us, restarted_us=restarted_us,
        recovered_us=recovered_us, lag_at_restart=lag,
    )  # fmt: skip


class Recovery:
    """After a drill: recovered when everything that waited at the restart is read, merged and saved."""

    def __init__(
        self, conn: Connection, run: str, instance: str, parts: Sequence[int], ends: Mapping[TopicPartition, int],
        resumed: Mapping[TopicPartition, int], now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self._conn = conn
        self._place = (run, instance)
        self._ends = dict(ends)
        self._now_us = now_us
        self.open = 0
        """Drills that this process recovers from; 0 = there is nothing to check."""
        if failpoint.armed():  # this process was not killed yet: the drill was armed before its stage began
            return
        lag = sum(max(0, end - resumed[place]) for place, end in ends.items())
        # Killed after the last sign of life, its arming or the last checkpoint: taking that never shortens a recovery.
        self.open = conn.execute(
            "UPDATE rtdl.drill SET restarted_us = %s, lag_at_restart = %s, killed_us = greatest(armed_us, coalesce("
            "(SELECT (extract(epoch FROM max(at)) * 1000000)::bigint FROM ops.progress"
            " WHERE run = %s AND stage = %s AND part = ANY(%s)), 0))"
            " WHERE run = %s AND instance = %s AND armed_us > 0 AND recovered_us IS NULL",
            (now_us(), lag, run, STAGE, list(parts), run, instance),
        ).rowcount  # fmt: skip

    def check(self, saved: Mapping[TopicPartition, int]) -> None:
        """Note the recovery once the saved offsets have passed what waited at the restart."""
        if not self.open or any(saved[place] < end for place, end in self._ends.items()):
            return
        self.open = 0
        self._conn.execute(
            "UPDATE rtdl.drill SET recovered_us = %s"
            " WHERE run = %s AND instance = %s AND restarted_us IS NOT NULL AND recovered_us IS NULL",
            (self._now_us(), *self._place),
        )
