"""The scenario runner: answers pin requests, publishes READY once, closes runs (gates.md P1, P5)."""

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from fp_contracts.control import RunClosed, RunPinned, RunPinRequested, RunReady
from fp_contracts.envelope import Envelope
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_contracts.records import RecordError, read_control
from fp_contracts.runconfig import RunHeader
from fp_runtime import controllog, gate
from fp_runtime.bus import Consumer, Producer, Record
from fp_runtime.controllog import Event
from fp_runtime.deadline import until
from fp_runtime.evidence import EvidenceStore, put_json
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.participant import now_us
from fp_runtime.postgres import Connection
from fp_sr import adapters, domain, gates
from fp_sr.domain import Environment

log = structlog.get_logger()


class PinDesk:
    """Answers each pin request once: a committed header, or P1 blocked with every reason."""

    def __init__(
        self,
        conn: Connection,
        producer: Producer,
        store: EvidenceStore,
        environment: Environment,
        wait_s: float,
        name: str = "sr-0",
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        """`wait_s`: how long a pin waits for its substrate gates; `turn` is called while it waits."""
        self._conn = conn
        self._producer = producer
        self._store = store
        self._environment = environment
        self._wait_s = wait_s
        self._name = name
        self._turn = turn

    def answer(self, record: Record, lookup: Callable[[], Consumer]) -> None:
        """Pin or refuse the run that a record asks for; anything that is no readable pin request is passed over.

        A request that was answered before is answered with the same words: a crash may have kept them back.
        """
        envelope = _request_of(record)
        if envelope is None:
            return
        header = adapters.load_header(self._conn, envelope.platform_run_id)
        if header is not None:
            self._announce(header)
            return
        reader = lookup()
        try:
            self._decide(envelope, record, reader)
        finally:
            reader.close()

    def resume(self) -> None:
        """Announce the open run again: a crash may have come between the commit and the announcement."""
        held = adapters.run_lock(self._conn)
        header = None if held is None else adapters.load_header(self._conn, held.run)
        if header is not None:
            self._announce(header)

    def _decide(self, envelope: Envelope, record: Record, reader: Consumer) -> None:
        run = envelope.platform_run_id
        refused = adapters.refusal(self._conn, run)
        if refused is not None:
            state = controllog.read_run(reader, run, record.offset)
            if state.state_of("P1") == "OPEN":
                self._tell(state, refused)
            return
        header = self._pin(envelope, record, reader)
        if header is not None:
            self._announce(header)

    def _pin(self, envelope: Envelope, record: Record, reader: Consumer) -> RunHeader | None:
        state = self._wait_for_substrate(envelope.platform_run_id, record.offset, reader)
        predicates = self._check(state, envelope)
        if all(predicate.ok for predicate in predicates):
            pin = (record.partition, record.offset)
            header = domain.make_header(state, adapters.start_offsets(reader, self._environment.profile), pin, now_us())
            if adapters.commit_header(self._conn, header):
                hit(Failpoint.SR_AFTER_HEADER)
                log.info("run pinned", run=header.platform_run_id, digest=header.run_config_digest)
                return header
            committed = adapters.load_header(self._conn, header.platform_run_id)
            if committed is not None:
                return committed
            predicates = self._check(state, envelope, "another run")
        lock = {"run": state.platform_run_id, "lock": "refused"}
        self._tell(
            state, gate.journal(self._conn, state, "P1", domain.pin_evaluation(predicates, None, lock), now_us())
        )
        log.warning("pin refused", run=state.platform_run_id)
        return None

    def _check(self, state: RunState, envelope: Envelope, other: str | None = None) -> tuple[Predicate, ...]:
        """The predicates of P1 now; `other` = who must hold the lock when nobody is seen to."""
        held = adapters.run_lock(self._conn)
        open_run = other if held is None else held.run
        return domain.check_pin(state, envelope.run_config_digest, self._environment, open_run)

    def _wait_for_substrate(self, run: str, pin_offset: int, reader: Consumer) -> RunState:
        """The run's state once the operator's P(-1) and P0 gates are there, or as it is when they stay away."""
        state = RunState(run)

        def arrived() -> bool:
            nonlocal state
            self._turn()
            state = controllog.read_run(reader, run, pin_offset)
            return all(state.state_of(key) != "OPEN" for key in ("P(-1)", "P0"))

        try:
            until(arrived, self._wait_s, "the gates of P(-1) and P0", interval_s=0.1)
        except TimeoutError:
            log.warning("gates of P(-1) and P0 stayed away", run=run)
        return state

    def _tell(self, state: RunState, refused: gate.Closure) -> None:
        """Publish a journaled refusal with its evidence; safe to repeat."""
        hit(Failpoint.GATE_AFTER_JOURNAL)
        gate.put_evidence(self._store, refused, state.platform_run_id)
        event: Event = (refused.event, ("P1", str(refused.event.attempt)))
        controllog.publish(self._producer, controllog.pins_of(state), [event], self._name, now_us())

    def _announce(self, header: RunHeader) -> None:
        """Publish run_pinned (again after a crash: same identity) with the header as evidence."""
        execution = phase_execution_id(header.platform_run_id, "P1", 1)
        key = PHASES["P1"].evidence_key(header.platform_run_id, execution, "run_header")
        ref = put_json(self._store, key, header.model_dump(mode="json"))
        event: Event = (RunPinned(header=header, header_ref=ref), ())
        controllog.publish(self._producer, controllog.header_pins(header), [event], self._name, now_us())
        hit(Failpoint.SR_AFTER_PUBLISH)


def _request_of(record: Record) -> Envelope | None:
    if b'"type":"run_pin_requested"' not in record.value:
        return None
    try:
        envelope, payload = read_control(record.value)
    except RecordError as error:
        log.error("unreadable pin request", offset=record.offset, partition=record.partition, why=str(error))
        return None
    if not isinstance(payload, RunPinRequested):
        return None
    run = envelope.platform_run_id
    if record.key != run.encode() or record.partition != controllog.partition_of_run(run):
        log.error("pin request under another run's key", offset=record.offset, partition=record.partition, run=run)
        return None
    return envelope


def react(conn: Connection, state: RunState) -> Sequence[Event]:
    """READY once P3 and P4 passed; run_closed once there is a verdict; the end of a run on record."""
    header = state.header
    if header is None:
        return ()
    if state.closed is not None or state.stopped is not None:
        adapters.commit_end(conn, state.platform_run_id, "closed" if state.closed else "stopped")
        return ()
    events: list[Event] = []
    if state.passed("P3") and state.passed("P4") and not state.ready:
        ready_id = domain.ready_id(header)
        adapters.commit_ready(conn, state.platform_run_id, ready_id)
        events.append((RunReady(ready_id=ready_id), ()))
    if state.verdict is not None:
        events.append((RunClosed(reason="verdict_published"), ()))
    return events


def evaluate_p1(environment: Environment, conn: Connection, state: RunState) -> Evaluation | None:
    """P1 over the committed header: the same predicates, evaluated again from the log, and the lock as recorded."""
    header = state.header
    if header is None:
        return None
    held = adapters.run_lock(conn)
    predicates = domain.check_pin(state, header.run_config_digest, environment, None if held is None else held.run)
    lock: dict[str, Any] = {"run": state.platform_run_id, "holder": None if held is None else held._asdict()}
    return domain.pin_evaluation((*predicates, domain.check_lock(header, held)), header, lock)


def evaluate_p5(conn: Connection, reader: Callable[[], Consumer], state: RunState) -> Evaluation | None:
    """P5 once READY was published: reads the log back."""
    if not state.ready or state.header is None:
        return None
    consumer = reader()
    try:
        found = adapters.ready_records(consumer, state)
    finally:
        consumer.close()
    recorded = adapters.recorded_ready(conn, state.platform_run_id)
    return gates.evaluate_p5(gates.ReadyFacts(domain.ready_id(state.header), recorded, found))
