"""The join of one ingress partition, again from the archive (dataflow.md §2). Pure.

A second hand at the rules that rtdl keeps: it knows no checkpoint, no batch and no output, only the order.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from fp_contracts.dataset import JoinScope
from fp_contracts.header import NONE_TS
from fp_contracts.reasons import Degrade
from fp_ofs.lanes import Lane
from fp_ofs.records import Anchor, Arrival, ArrivalKey, Auth, Entities, Label
from fp_runtime.eventtime.merge import Deadlines, interleave


class Released(NamedTuple):
    """One payment when its snapshot was due: the parts that were there, at merge clock `release_us` (µs)."""

    auth: Auth
    anchor: Anchor | None
    arrival: Arrival | None
    entities: Entities | None
    reasons: tuple[str, ...]
    release_us: int

    @property
    def instrument_id(self) -> str | None:
        """The instrument, from the first part that tells it."""
        if self.entities:
            return self.entities.instrument_id
        return self.anchor.instrument_id if self.anchor else None


class Learned(NamedTuple):
    """One label at the time (µs) at which it took effect in features."""

    label: Label
    order_us: int


Step = Released | Learned


class _Shelf:
    """Parts by key; the first word on a key stands until it expires (µs)."""

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[int, Any]] = {}
        self._expiry: deque[tuple[int, Any]] = deque()

    def get(self, key: Any, clock_us: int) -> Any:
        kept = self._kept.get(key)
        return kept[1] if kept is not None and kept[0] >= clock_us else None

    def put(self, key: Any, value: Any, clock_us: int, expires_us: int) -> None:
        expiry = self._expiry
        while expiry and expiry[0][0] < clock_us:
            del self._kept[expiry.popleft()[1]]
        if key not in self._kept:
            self._kept[key] = expires_us, value
            expiry.append((expires_us, key))


class LaneJoin:
    """Walks a lane's heads and deadlines once; `steps` gives payments and labels in the order of the stream."""

    def __init__(self, lane: Lane, scope: JoinScope) -> None:
        self._lane = lane
        self._scope = scope
        self._clock_us = NONE_TS
        self._arrivals, self._entities, self._anchors, self._rebound = _Shelf(), _Shelf(), _Shelf(), _Shelf()
        self._flows: dict[ArrivalKey, list[str]] = {}
        self._waiting: dict[str, tuple[Auth, str]] = {}
        self._by_flow: dict[str, list[str]] = {}
        self._deadlines = Deadlines()

    def steps(self) -> Iterator[Step]:
        """Every payment released and every label in effect, in order."""
        for at_us, head, name in interleave(self._lane.heads, self._deadlines, self._lane.bound_us):
            self._clock_us = max(self._clock_us, at_us)
            if head is None:
                assert name is not None  # a deadline has a name
                yield self._expire(name)
                continue
            value = head.value
            if type(value) is Label:
                yield Learned(value, head.order_us)
            elif type(value) is Auth:
                yield from self._request(value, head.order_us)
            elif value is not None:
                yield from self._part(value)

    def _request(self, auth: Auth, order_us: int) -> Iterator[Step]:
        ready = self._complete(auth)
        if ready is not None:
            yield ready
            return
        ends = self._scope.window_ends_us
        last_us = next((end for end in ends if order_us < end), ends[-1]) - 1
        due_us, reason = auth.ts_us + self._scope.join_wait_us, Degrade.JOIN_TIMEOUT.value
        if due_us > last_us:
            due_us, reason = last_us, Degrade.WINDOW_END.value
        self._waiting[auth.event_id] = auth, reason
        self._by_flow.setdefault(auth.flow_id, []).append(auth.event_id)
        self._deadlines.add(due_us, auth.event_id)

    def _part(self, value: Arrival | Entities | Anchor) -> Iterator[Step]:
        clock_us, expires_us = self._clock_us, self._clock_us + self._scope.horizon_us
        if type(value) is Anchor:
            yield from self._bind(value, expires_us)
            return
        shelf = self._arrivals if type(value) is Arrival else self._entities
        shelf.put(value.key, value, clock_us, expires_us)
        if self._waiting:
            for flow_id in tuple(self._flows.get(value.key, ())):
                yield from self._retry(flow_id)

    def _bind(self, anchor: Anchor, expires_us: int) -> Iterator[Step]:
        standing = self._anchors.get(anchor.flow_id, self._clock_us)
        if standing is None:
            self._anchors.put(anchor.flow_id, anchor, self._clock_us, expires_us)
            self._flows.setdefault(anchor.key, []).append(anchor.flow_id)
            yield from self._retry(anchor.flow_id)
        elif standing != anchor:
            self._rebound.put(anchor.flow_id, True, self._clock_us, expires_us)

    def _retry(self, flow_id: str) -> Iterator[Step]:
        for event_id in tuple(self._by_flow.get(flow_id, ())):
            ready = self._complete(self._waiting[event_id][0])
            if ready is not None:
                self._deadlines.cancel(event_id)
                self._settle(event_id)
                yield ready

    def _settle(self, event_id: str) -> str:
        auth, reason = self._waiting.pop(event_id)
        self._by_flow[auth.flow_id].remove(event_id)
        return reason

    def _complete(self, auth: Auth) -> Released | None:
        found = self._found(auth, ())
        return found if found.anchor and found.arrival and found.entities else None

    def _expire(self, event_id: str) -> Released:
        auth = self._waiting[event_id][0]
        return self._found(auth, (self._settle(event_id),))

    def _found(self, auth: Auth, reasons: tuple[str, ...]) -> Released:
        clock_us = self._clock_us
        anchor = self._anchors.get(auth.flow_id, clock_us)
        arrival = self._arrivals.get(anchor.key, clock_us) if anchor else None
        entities = self._entities.get(anchor.key, clock_us) if anchor else None
        if self._rebound.get(auth.flow_id, clock_us):
            reasons = (*reasons, Degrade.FLOW_REBIND.value)
        return Released(auth, anchor, arrival, entities, reasons, clock_us)
