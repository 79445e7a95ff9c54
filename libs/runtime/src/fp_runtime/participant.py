"""A service's part in a run: fold the control log, heartbeat, close its own phases, publish what its reactions ask for.

Runs in one thread of its own beside the data loop. Silence is never closure: a gate is published only from a
journaled evaluation, by the holder of the phase's lease.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fp_contracts import topics
from fp_contracts.control import ControlPayload, ServiceHeartbeat
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.phases import PHASES
from fp_contracts.runconfig import config_digest
from fp_runtime import controllog, openrun
from fp_runtime.builds import build_digest
from fp_runtime.bus import FetchProfile
from fp_runtime.closing import Closer, PgClosings
from fp_runtime.controllog import Event
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.postgres import connect
from fp_runtime.settings import RuntimeSettings
from fp_runtime.telemetry import Metric, gauge

Evaluate = Callable[[RunState], Evaluation | None]
React = Callable[[RunState], Sequence[Event]]

HEARTBEAT_S = 10.0
_POLL_S = 0.1
_IDLE_POLL_S = 0.5


def now_us() -> int:
    """Wall clock, microseconds: for control events and evidence only, never on the decision path."""
    return time.time_ns() // 1_000


def _nothing(_: RunState) -> Sequence[Event]:
    return ()


def _always() -> bool:
    return True


def _not_exported() -> None:
    return None


class Participant:
    """The control thread of one instance. Other threads read `state()`; `check()` re-raises what ended the thread."""

    def __init__(
        self,
        settings: RuntimeSettings,
        gates: Mapping[str, Evaluate],
        react: React = _nothing,
        metrics: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._settings = settings
        self._gates = gates
        self._react = react
        self._metrics = metrics
        self._state: RunState | None = None
        self._served: str | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._done: Future[None] | None = None
        self._published: set[str] = set()
        self._beat_at = 0.0
        self._ready: Callable[[], bool] = _always
        self._telemetry_us: Callable[[], int | None] = _not_exported
        self._said_ready = False
        self._build_digest = build_digest(settings.service)

    def start(
        self, ready: Callable[[], bool] = _always, telemetry_us: Callable[[], int | None] = _not_exported
    ) -> None:
        """Start the control thread. `ready` and `telemetry_us` (when a collector last took any) go into heartbeats."""
        self._ready, self._telemetry_us = ready, telemetry_us
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control")
        self._done = pool.submit(self._run)
        pool.shutdown(wait=False)

    def stop(self) -> None:
        """Ask the thread to end and wait for it."""
        self._stopping.set()
        if self._done is not None:
            self._done.result(timeout=30)

    def check(self) -> None:
        """Raise what ended the control thread, if it ended: the process must not go on without it."""
        if self._done is not None and self._done.done() and not self._stopping.is_set():
            self._done.result()
            raise RuntimeError("the control thread ended")

    def state(self) -> RunState | None:
        """The state of the open run as folded so far; None while no run is open."""
        return self._state

    def run_over(self) -> bool:
        """Whether the run that `wait_for_run` gave out last is closed or stopped; the next one may be open already."""
        state = self._state
        other = state is None or state.platform_run_id != self._served
        return other or state is None or state.closed is not None or state.stopped is not None

    def wait_for_run(self, stopping: Callable[[], bool]) -> RunState | None:
        """Block until a run is pinned and open; None when asked to stop before that."""
        while not stopping():
            self.check()
            state = self._state
            if state is not None and state.header is not None and not (state.closed or state.stopped):
                self._served = state.platform_run_id
                return state
            with self._changed:
                self._changed.wait(_IDLE_POLL_S)
        return None

    def wait_until(self, predicate: Callable[[RunState], bool], stopping: Callable[[], bool]) -> bool:
        """Block until the folded state satisfies `predicate`; False when the run ended or we are asked to stop."""
        while not stopping() and not self.run_over():
            self.check()
            state = self._state
            if state is not None and predicate(state):
                return True
            with self._changed:
                self._changed.wait(_POLL_S)
        return False

    # --- the control thread ---

    def _run(self) -> None:
        settings = self._settings
        self._conn = connect(settings.pg_dsn, f"{settings.instance}/control")
        self._store = open_store(settings.evidence_url, settings.s3_endpoint)
        self._producer = open_producer(settings)
        self._consumer = open_consumer(settings, f"fp.control.{settings.instance}", fetch=FetchProfile.CONTROL)
        try:
            while not self._stopping.is_set():
                run = self._find_run()
                if run is not None:
                    self._serve(run)
        finally:
            self._consumer.close()
            self._producer.close()
            self._conn.close()

    def _find_run(self) -> openrun.OpenRun | None:
        """Wait for an open run: note the ends first, then look, then listen, so that no pin falls between."""
        tps = [(topics.CONTROL, part) for part in range(controllog.PARTITIONS)]
        self._consumer.assign(self._consumer.ends(tps))
        while not self._stopping.is_set():
            run = openrun.find(self._conn)
            if run is not None:
                return run
            self._listen()
        return None

    def _listen(self) -> None:
        while not self._stopping.is_set():
            if any(controllog.announces_run(record) for record in self._consumer.poll(500, _IDLE_POLL_S)):
                return

    def _serve(self, run: openrun.OpenRun) -> None:
        """Follow a run to its end. Nothing is done on a past state: the log is read to its end as of now first."""
        self._published.clear()
        self._closer = Closer(
            PgClosings(self._conn, self._settings.instance), self._store, self._publish, time.monotonic, now_us
        )
        self._beat_at = 0.0
        state = controllog.read_run(self._consumer, run.platform_run_id, run.pin_offset)
        over = self._turn(state)
        if over:
            # sr has not recorded the end yet: openrun would find this run again at once.
            self._stopping.wait(_IDLE_POLL_S)
        while not over and not self._stopping.is_set():
            state = controllog.fold_records(state, self._consumer.poll(500, _POLL_S))
            over = self._turn(state)

    def _turn(self, state: RunState) -> bool:
        """React to a state, close what can be closed; whether the run is over."""
        self._set(state)
        if state.header is None:
            return False
        over = state.closed is not None or state.stopped is not None
        self._publish(state, self._react(state))
        if not over:
            self._heartbeat(state)
            self._close_phases(state)
        return over

    def _set(self, state: RunState) -> None:
        if state is not self._state:
            with self._changed:
                self._state = state
                self._changed.notify_all()

    def _publish(self, state: RunState, events: Sequence[Event]) -> None:
        pins = controllog.pins_of(state)
        fresh = []
        for payload, salt in events:
            identity = "|".join((payload.type, *salt))
            if identity not in self._published:
                self._published.add(identity)
                fresh.append((payload, salt))
        if fresh:
            controllog.publish(self._producer, pins, fresh, self._settings.instance, now_us())

    def _heartbeat(self, state: RunState) -> None:
        ready = self._ready()
        early = time.monotonic() < self._beat_at and ready is self._said_ready
        if early or state.header is None:
            return
        self._beat_at, self._said_ready = time.monotonic() + HEARTBEAT_S, ready
        at_us, numbers = now_us(), self._metrics()
        beat = ServiceHeartbeat(
            service=self._settings.service,
            instance=self._settings.instance,
            run_config_digest=config_digest(state.header.config),
            build_digest=self._build_digest,
            profile=self._settings.profile,
            ready=ready,
            telemetry_us=self._telemetry_us(),
            at_us=at_us,
            metrics=numbers,
        )
        for name, number in numbers.items():
            gauge(Metric.PROGRESS).set(number, {"number": name})
        self._publish(state, [(beat, (self._settings.instance, str(at_us)))])

    def _close_phases(self, state: RunState) -> None:
        for phase, evaluate in self._gates.items():
            self._closer.turn(state, phase, evaluate)


def owned_phases(service: str) -> tuple[str, ...]:
    """Phases a service owns by the registry."""
    return tuple(key for key, phase in PHASES.items() if phase.owner == service)


__all__ = ["ControlPayload", "Evaluate", "Event", "Participant", "React", "now_us", "owned_phases"]
