"""Asking for learning jobs: one per attempt of a phase, journaled, published, and its end as read back."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.learning import (
    TOPIC_OF,
    JobEnded,
    LearningPayload,
    Limits,
    MfEnded,
    MfRequested,
    OfsEnded,
    OfsRequested,
    learning_event_id,
    request_id_of,
)
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins, body_of
from fp_runtime.bus import Out, Producer
from fp_runtime.controllog import pins_of
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceStore, ref_of

Requested = OfsRequested | MfRequested
Ended = OfsEnded | MfEnded


class Asked(NamedTuple):
    """A journaled job: the exact request and the event that asks for it."""

    request: bytes
    event: Requested


class EndSeen(NamedTuple):
    """The end of a job and where on its topic it was read back."""

    event: JobEnded
    topic: str
    partition: int
    offset: int


class JobTable(Protocol):
    """Jobs and their ends, insert-only."""

    def asked(self, run: str, phase: str, attempt: int) -> Asked | None:
        """The job of an attempt; None before it was asked for."""
        ...

    def ask(self, run: str, phase: str, attempt: int, asked: Asked) -> Asked:
        """Journal a job; the one that stands already is returned instead."""
        ...

    def end(self, run: str, request_id: str) -> EndSeen | None:
        """How a job ended; None while it has not."""
        ...

    def note_end(self, run: str, seen: EndSeen) -> None:
        """Journal an end that was read back; the first one stands."""
        ...


class JobDesk:
    """Asks for jobs on behalf of the gates. One thread."""

    def __init__(
        self, table: JobTable, store: EvidenceStore, producer: Producer, out_url: str, name: str,
        now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self._table = table
        self._store = store
        self._producer = producer
        self._out_url = out_url
        self._name = name
        self._now_us = now_us
        self._published: set[str] = set()

    def asked(self, state: RunState, phase: str, make: Callable[[], bytes], limits: Limits) -> Asked:
        """The job of the current attempt, asked for when it was not yet; published once per process at least."""
        run, attempt = state.platform_run_id, state.attempt_of(phase)
        found = self._table.asked(run, phase, attempt) or self._ask(state, phase, make(), limits)
        if found.event.request_id not in self._published and self._table.end(run, found.event.request_id) is None:
            self._store.put(found.event.request.key, found.request)
            publish(self._producer, pins_of(state), found.event, self._name, self._now_us())
            self._published.add(found.event.request_id)
        return found

    def standing(self, state: RunState, phase: str) -> Asked | None:
        """The job that the phase's current attempt asked for; None before that."""
        return self._table.asked(state.platform_run_id, phase, state.attempt_of(phase))

    def ended(self, state: RunState, phase: str) -> EndSeen | None:
        """The end of the current attempt's job; None while there is none."""
        asked = self.standing(state, phase)
        return None if asked is None else self._table.end(state.platform_run_id, asked.event.request_id)

    def _ask(self, state: RunState, phase: str, request: bytes, limits: Limits) -> Asked:
        run, attempt = state.platform_run_id, state.attempt_of(phase)
        sha256 = ref_of("request", request).sha256
        request_id = request_id_of(phase, attempt, sha256)
        kind = MfRequested if phase == "P14" else OfsRequested
        event = kind.model_validate(
            {
                "request_id": request_id, "phase": phase, "attempt": attempt, "limits": limits,
                "request": ref_of(f"jobs/{request_id}/request.json", request), "out_url": self._out_url,
                "requested_by": self._name, "at_us": self._now_us(),
            }
        )  # fmt: skip
        return self._table.ask(run, phase, attempt, Asked(request, event))


def publish(producer: Producer, pins: Pins, payload: LearningPayload, name: str, now_us: int) -> int:
    """Publish a learning event under its run and wait; its offset. Unavailable when it was not acknowledged."""
    topic, run = TOPIC_OF[payload.type], pins.platform_run_id
    body = body_of(pins, payload.type, learning_event_id(run, payload), now_us, name, payload)
    out = Out(topic, partition_of(run, topics.TOPICS[topic].partitions), run.encode(), body, b"")
    (delivery,) = producer.publish([out])
    if delivery.offset is None:
        raise Unavailable(f"learning event not acknowledged: {delivery.error} {delivery.reason}")
    return delivery.offset
