"""What every service process does around its loop: logs, signals, health, its part in the run."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fp_runtime import failpoint, logs, telemetry
from fp_runtime.health import Health, serve
from fp_runtime.participant import Participant
from fp_runtime.settings import RuntimeSettings
from fp_runtime.telemetry import Metric
from fp_runtime.writer import Writer

_TURN_S = 0.25
GC_THRESHOLD = (100_000, 20, 50)
"""Records make values without cycles: searching them at Python's defaults costs up to a quarter of a stage's CPU."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process: `stopping()` is true once it was asked to end; `turn()` is called once per loop turn."""

    health: Health
    participant: Participant
    stop: threading.Event
    writer: Writer | None = None

    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT came. Every loop and every wait asks, so asking is a sign of life."""
        self.health.beat()
        return self.stop.is_set()

    def turn(self) -> None:
        """The loop made a turn. Raises what ended the control thread, or that the right to write is lost."""
        self.health.beat()
        self.participant.check()
        if self.writer is not None:
            self.writer.check()


@contextmanager
def running(settings: RuntimeSettings, make: Callable[[], Participant], alone: bool = False) -> Iterator[Process]:
    """Configure logs, arm failpoints, serve health and run the participant while the block runs.

    `alone`: only one process of this service writes in an environment; the next one waits before its participant
    starts, says for whom on `/status`, and ends when asked to.
    """
    gc.set_threshold(*GC_THRESHOLD)
    logs.configure(settings.instance, settings.log_level)
    exported = telemetry.configure(settings.service, settings.instance, settings.otlp_endpoint)
    if exported is not None:
        telemetry.counter(Metric.STARTS).add(1)
        # At once and not after the first interval: P2 asks of every service whether its telemetry arrives.
        threading.Thread(target=exported.flush, name="telemetry-first", daemon=True).start()
    failpoint.arm(settings.failpoints)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    health = Health(settings.instance)
    with ExitStack() as closing:
        if exported is not None:
            closing.callback(exported.close)
        closing.callback(serve(health, settings.health_host, settings.health_port).close)
        writer = _only_writer(settings, health, stop, closing) if alone else None
        participant = make()
        participant.start(health.ready, exported.heard_us if exported is not None else lambda: None)
        closing.callback(participant.stop)
        yield Process(health, participant, stop, writer)


def _only_writer(settings: RuntimeSettings, health: Health, stop: threading.Event, closing: ExitStack) -> Writer:
    """The right to write as this service, once its holder is gone; SystemExit when asked to end before."""
    writer = Writer(settings.pg_dsn, f"{settings.topic_prefix}{settings.service}", settings.instance)
    closing.callback(writer.close)
    told = None
    while (holder := writer.take()) is not None:
        health.beat()
        health.condition("writer", f"waits for {holder}, which writes as {writer.name}")
        if holder != told:
            logs.logger(__name__).warning("another process writes", writer=writer.name, holder=holder)
            told = holder
        if stop.wait(_TURN_S):
            raise SystemExit(0)
    health.condition("writer", None)
    return writer
