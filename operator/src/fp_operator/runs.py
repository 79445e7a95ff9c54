"""Finding runs and reading their state back from the control topic: for every read verb."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fp_contracts.fold import RunState
from fp_operator import project, substrate
from fp_operator.pinning import Pinned
from fp_operator.stack import OnStep
from fp_operator.substrate import Environment
from fp_runtime import controllog
from fp_runtime.bus import Consumer, FetchProfile
from fp_runtime.deadline import until
from fp_runtime.errors import UserError
from fp_runtime.kafka import open_consumer
from fp_runtime.postgres import Connection, connect

PIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Reader:
    """Connections of one read verb."""

    environment: Environment
    conn: Connection
    consumer: Consumer

    def find(self, run: str | None) -> Pinned:
        """A run by id, by a unique part of its id, or the last one; UserError when there is none."""
        if run is not None and project.latest(self.environment.state_dir) == (run, ""):
            self._await_pin(run)
        found = [pinned for pinned in self._known() if run is None or run in pinned.run]
        exact = [pinned for pinned in found if pinned.run == run]
        if run is None and not found:
            raise UserError("run", "there is none yet", "start one: `fp run`")
        if not found:
            raise UserError(f"run {run}", "not known here", "see `fp status`, or start one: `fp run`")
        if run is not None and not exact and len(found) > 1:
            raise UserError(f"run {run}", f"stands for {len(found)} runs", "give more of its id")
        return (exact or found)[0]

    def _known(self) -> list[Pinned]:
        rows = self.conn.execute("SELECT run, pin_partition, pin_offset FROM sr.run ORDER BY at DESC").fetchall()
        return [Pinned(*row) for row in rows]

    def _await_pin(self, run: str) -> None:
        """`fp run --detach` returns when the run is asked for; sr knows it a moment later, unless it refuses."""
        with suppress(TimeoutError):
            until(lambda: any(pinned.run == run for pinned in self._known()), PIN_S, f"{run} is pinned", 0.1)

    def state(self, run: str | None) -> RunState:
        """The folded state of a run as of now."""
        pinned = self.find(run)
        return controllog.read_run(self.consumer, pinned.run, pinned.offset)


@contextmanager
def reading(folder: Path | None = None, on_step: OnStep = lambda *_: None) -> Iterator[Reader]:
    """Open the environment for reading; servers that are down are started on the kept data, until the verb is done."""
    environment = substrate.remembered(folder or project.state_dir(), on_step)
    settings = environment.settings()
    conn = connect(settings.pg_dsn, "fp-read")
    consumer = open_consumer(settings, "fp.operator.read", fetch=FetchProfile.CONTROL)
    try:
        yield Reader(environment, conn, consumer)
    finally:
        consumer.close()
        conn.close()
