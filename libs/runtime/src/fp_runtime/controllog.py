"""The control topic as one thread sees it: read, fold, publish (contracts.md §5)."""

from collections.abc import Sequence

from fp_contracts import topics
from fp_contracts.control import ControlPayload, RunPinned
from fp_contracts.envelope import Envelope
from fp_contracts.fold import RunState, fold
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins, RecordError, body_of, control_event_id, read_control
from fp_contracts.runconfig import RunHeader, config_digest
from fp_runtime.bus import Consumer, Out, Producer, Record
from fp_runtime.errors import Unavailable
from fp_runtime.logs import logger

log = logger(__name__)
PARTITIONS = topics.TOPICS[topics.CONTROL].partitions
Event = tuple[ControlPayload, tuple[str, ...]]
"""A control event to publish with the salt of its derived id: what may happen once has one salt."""


def partition_of_run(platform_run_id: str) -> int:
    """The control partition of a run: all of a run's control events are totally ordered there."""
    return partition_of(platform_run_id, PARTITIONS)


def pins_of(state: RunState) -> Pins:
    """The pins that every envelope of the run carries; ValueError before the run is requested."""
    if state.header is not None:
        return header_pins(state.header)
    if state.pin_request is None:
        raise ValueError("the run is not requested yet")
    config = state.pin_request.config
    scenario = state.pin_request.scenario_run_id
    return Pins(state.platform_run_id, scenario, config.manifest_fingerprint, config_digest(config))


def header_pins(header: RunHeader) -> Pins:
    """The pins of a committed header."""
    return Pins(
        header.platform_run_id, header.scenario_run_id, header.config.manifest_fingerprint, header.run_config_digest
    )


def publish(producer: Producer, pins: Pins, events: Sequence[Event], name: str, now_us: int) -> list[int]:
    """Publish control events and wait; their offsets in order. Unavailable when one was not acknowledged.

    Ids are derived, so publishing again after a crash repeats the same identity.
    """
    partition = partition_of_run(pins.platform_run_id)
    outs = [
        Out(
            topics.CONTROL,
            partition,
            pins.platform_run_id.encode(),
            body_of(
                pins,
                payload.type,
                control_event_id(pins.platform_run_id, payload, *salt),
                now_us,
                name,
                payload,
            ),
            b"",
        )
        for payload, salt in events
    ]
    offsets = []
    for delivery in producer.publish(outs):
        if delivery.offset is None:
            raise Unavailable(f"control event not acknowledged: {delivery.error} {delivery.reason}")
        offsets.append(delivery.offset)
    return offsets


def read(records: Sequence[Record]) -> list[tuple[Record, Envelope, ControlPayload]]:
    """Decode control records. One that breaks its contract is told and passed over: it says nothing, so nothing closes.

    It must not end who reads: every service follows this topic. P16 and `fp verify` name it, and do not pass.
    """
    decoded = []
    for record in records:
        try:
            envelope, payload = read_control(record.value)
        except RecordError as error:
            log.error("unreadable_control_record", partition=record.partition, offset=record.offset, why=str(error))
            continue
        decoded.append((record, envelope, payload))
    return decoded


def fold_records(state: RunState, records: Sequence[Record]) -> RunState:
    """Fold the records of one run; those of other runs are passed over by their key."""
    own = state.platform_run_id.encode()
    for _, _, payload in read([record for record in records if record.key == own]):
        state = fold(state, payload)
    return state


def read_run(consumer: Consumer, platform_run_id: str, pin_offset: int) -> RunState:
    """The state of a run as the log says now: reads from its pin to the end as of the call (for the CLI and tools)."""
    tp = (topics.CONTROL, partition_of_run(platform_run_id))
    end = consumer.ends([tp])[tp]
    consumer.assign({tp: pin_offset})
    state, position = RunState(platform_run_id), pin_offset
    while position < end:
        records = consumer.poll(500, 1.0)
        state = fold_records(state, records)
        position = records[-1].offset + 1 if records else position
    return state


def announces_run(record: Record) -> bool:
    """Whether a control record is a `run_pinned`, without decoding it whole."""
    return f'"type":"{RunPinned.model_fields["type"].default}"'.encode() in record.value
