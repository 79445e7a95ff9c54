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

GC_THRESHOLD = (100_000, 20, 50)
"""Records make values without cycles: searching them at Python's defaults costs up to a quarter of a stage's CPU."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process: `stopping()` is true once it was asked to end; `turn()` is called once per loop turn."""

    health: Health
    participant: Participant
    stop: threading.Event

    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT came. Every loop and every wait asks, so asking is a sign of life."""
        self.health.beat()
        return self.stop.is_set()

    def turn(self) -> None:
        """The loop made a turn: liveness, and the control thread must still live. Raises what ended it."""
        self.health.beat()
        self.participant.check()


@contextmanager
def running(settings: RuntimeSettings, make: Callable[[], Participant]) -> Iterator[Process]:
    """Configure logs, arm failpoints, serve health and run the participant while the block runs."""
    gc.set_threshold(*GC_THRESHOLD)
    logs.configure(settings.instance, settings.log_level)
    exported = telemetry.configure(settings.service, settings.instance, settings.otlp_endpoint)
    failpoint.arm(settings.failpoints)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    health = Health(settings.instance)
    with ExitStack() as closing:
        if exported is not None:
            closing.callback(exported.close)
        closing.callback(serve(health, settings.health_host, settings.health_port).close)
        participant = make()
        participant.start()
        closing.callback(participant.stop)
        yield Process(health, participant, stop)
