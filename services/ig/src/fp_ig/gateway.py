"""One gateway process: the endpoint stays, each open run gets a writer of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import structlog

from fp_contracts.fold import RunState
from fp_contracts.ids import run_tag
from fp_contracts.records import Pins
from fp_contracts.runconfig import RunHeader
from fp_contracts.topics import INGRESS, pinned
from fp_ig.adapters import PgStore
from fp_ig.domain import Admission
from fp_ig.http import Door, Session, build
from fp_ig.intake import Intake
from fp_ig.proof import Committed, Preflight
from fp_ig.records import Stamp
from fp_ig.resolver import Resolver
from fp_ig.service import Writer
from fp_ig.settings import IgSettings
from fp_runtime.bus import Admin, Consumer, FetchProfile, Producer
from fp_runtime.controllog import header_pins
from fp_runtime.health import Health
from fp_runtime.kafka import lookup, open_admin, open_consumer, open_producer
from fp_runtime.kafka_rounds import open_rounds
from fp_runtime.listener import Listener
from fp_runtime.participant import Evaluate, now_us
from fp_runtime.postgres import Connection, connect
from fp_runtime.problem import Code, Problem
from fp_runtime.tokens import parse_keys

RECONNECT_S = 1.0
STEP_S = 0.1
_RUN_OVER = Problem(503, Code.NO_OPEN_RUN, "the run is over", retry_after_s=1)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KafkaBus:
    """proof.Bus on Kafka."""

    settings: IgSettings

    def consumer(self) -> Consumer:
        """A consumer that answers at once."""
        return open_consumer(self.settings, "fp.ig", fetch=FetchProfile.CONTROL)

    def producer(self) -> Producer:
        """A producer with a short limit."""
        return open_producer(self.settings, delivery_timeout_s=5.0)

    def admin(self) -> Admin:
        """An admin."""
        return open_admin(self.settings)


class Gateway:
    """Serves open runs one after the other."""

    def __init__(self, settings: IgSettings) -> None:
        self._settings = settings
        self._keys = parse_keys(settings.producer_keys)
        self._writer: Writer | None = None

    def gates(self) -> dict[str, Evaluate]:
        """P4 and P7."""
        bus, settings = KafkaBus(self._settings), self._settings
        return {
            "P4": Preflight(bus, settings.ig_url, self._keys, settings.instance, now_us, pinned(settings.profile)),
            "P7": Committed(bus, partial(connect, settings.pg_dsn, f"{settings.instance}/proof"), now_us),
        }

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat."""
        writer = self._writer
        if writer is None:
            return {}
        counts = writer.counts()
        return {
            "admitted": counts.admitted,
            "duplicate": counts.duplicate,
            "quarantined": counts.quarantined,
            "open_unknown": counts.open_unknown,
        }

    def listen(self, health: Health) -> tuple[Door, Listener]:
        """Open the endpoint; it answers 503 until a run is served."""
        settings = self._settings
        door = Door(self._keys, health, settings.http_deadline_s, settings.body_deadline_s)
        port = settings.ig_port or urlsplit(settings.ig_url).port or 80
        health.condition("run", "no run is open")
        return door, Listener(build(door), settings.ig_host, port)

    def serve(self, state: RunState, door: Door, over: Callable[[], bool]) -> None:
        """Serve one run until it is over: every open claim is resolved before the first line is taken."""
        header = state.header
        assert header is not None
        settings, pins = self._settings, header_pins(header)
        store = self._store(header)
        producer = open_rounds(settings, delivery_timeout_s=settings.delivery_timeout_s)
        intake = Intake(settings.max_waiting)
        prober = KafkaBus(settings).consumer()
        stamp = Stamp(run_tag(pins.platform_run_id), settings.instance)
        starts = {(topic, part): offset for topic in INGRESS for part, offset in header.starts(topic).items()}
        resolver = Resolver(store, producer, partial(lookup, settings), starts)
        writer = Writer(store, producer, intake, resolver, stamp, lambda tp: prober.ends([tp]))
        self._writer = writer
        try:
            self._run(writer, Session(pins.platform_run_id, _admission(pins, header), intake), door, over)
        finally:
            door.session = None
            door.health.condition("run", "no run is open")
            intake.refuse_all(_RUN_OVER)
            prober.close()
            producer.close()
            store.close()

    def _run(self, writer: Writer, session: Session, door: Door, over: Callable[[], bool]) -> None:
        door.health.condition("run", "open claims are being resolved")
        while not over() and not writer.recover():
            writer.step(STEP_S)
        door.session = session
        door.health.condition("run", None)
        log.info("serving", run=session.run)
        while not over():
            writer.step(STEP_S)

    def _store(self, header: RunHeader) -> PgStore:
        settings = self._settings
        lanes = [int(lane) for lane, writer in header.lane_writers.items() if writer == settings.instance]
        stamp = Stamp(run_tag(header.platform_run_id), settings.instance)
        attach: Callable[[], Connection] = partial(connect, settings.pg_dsn, settings.instance, RECONNECT_S)
        return PgStore(attach, header.platform_run_id, stamp, lanes, settings.instance)


def _admission(pins: Pins, header: RunHeader) -> Admission:
    return Admission(pins, header.config.lanes)
