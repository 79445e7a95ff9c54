"""The join of one partition (dataflow.md §2): context ⋈ anchor ⋈ AUTH_REQUEST, deadlines, merchant features. Pure.

Everything here depends on the order of the merge alone: the same logs give the same snapshots, whatever the batching.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fp_contracts.header import NONE_TS
from fp_contracts.reasons import Degrade
from fp_features import CORE_V1, MerchantState, Payment, pack
from fp_rtdl.context import Context, Kept, key_of
from fp_rtdl.decode import Anchor, Arrival, ArrivalKey, Auth, Entities, Label
from fp_runtime.eventtime.merge import Deadlines, Head, interleave, output_frontier

FRAUD_DISPOSITION = "fraud_disposition"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the run pins for the join. Times in µs; `window_ends` ascending."""

    join_wait_us: int
    horizon_us: int
    window_ends: tuple[int, ...]

    def window_end(self, order_us: int) -> int:
        """The end of the window that `order_us` lies in; the last one for anything beyond."""
        at = min(bisect_right(self.window_ends, order_us), len(self.window_ends) - 1)
        return self.window_ends[at]


_as = tuple.__new__  # a named tuple without its Python-level constructor, where it is made once per record


class Snapshot(NamedTuple):
    """One AUTH_REQUEST with all the parts that were there in time, and the merchant's features as packed float64."""

    auth: Auth
    anchor: Anchor | None
    arrival: Arrival | None
    entities: Entities | None
    reasons: tuple[str, ...]
    release_us: int
    merged_n: int
    vector: bytes


class Waiting(NamedTuple):
    """An AUTH_REQUEST that waits for a part until `at_us`; `reason` tells why it is degraded if the part stays away."""

    auth: Auth
    at_us: int
    reason: str


class Rebind(NamedTuple):
    """A second, different binding of a flow: an anomaly. Offsets on the anchor topic."""

    flow_id: str
    standing_offset: int
    offset: int


class PartitionJoin:
    """State and rules of one partition; `owns` = whether a merchant is of this partition.

    `n` counts merged records, `clock_us` is the merge clock (µs).
    """

    def __init__(self, rules: Rules, owns: Callable[[str], bool]) -> None:
        self.rules = rules
        self.n = 0
        self.clock_us = NONE_TS
        self.context = Context()
        self.merchants: dict[str, MerchantState] = {}
        self.changed: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.rebinds: list[Rebind] = []
        self._owns = owns
        self._horizon_us = rules.horizon_us
        self._deadlines = Deadlines()
        self._waiting: dict[str, Waiting] = {}
        self._by_flow: dict[str, list[str]] = {}

    def merge(self, heads: list[Head], bound_us: int) -> Iterator[Snapshot]:
        """Work off released heads and the deadlines among them; the snapshots that complete, in order."""
        context = self.context
        for at_us, head, deadline in interleave(heads, self._deadlines, bound_us):
            if at_us > self.clock_us:
                self.clock_us = at_us
            if context.oldest_us < self.clock_us:
                context.prune(self.clock_us)
            if head is None:
                yield self._expire(self._waiting[deadline])  # type: ignore[index]  # a deadline has a name
                continue
            self.n += 1
            value = head.value
            if value is None:
                continue
            if type(value) is Auth:
                snapshot = self._request(value, head.order_us)
                if snapshot is not None:
                    yield snapshot
                continue
            flows = self._part(value)
            if flows:
                for flow_id in flows:
                    yield from self._retry(flow_id)

    def frontier(self, bound_us: int) -> int:
        """The lowest order_ts (µs) that this partition may still give out."""
        return output_frontier(self.clock_us, bound_us, self._deadlines)

    def waiting(self) -> tuple[Waiting, ...]:
        """Pending requests in the order in which they came."""
        return tuple(self._waiting.values())

    def restore(self, context: Iterable[Kept], waiting: Iterable[Waiting]) -> None:
        """Put back what a checkpoint kept; `n`, `clock_us`, `merchants` and `counts` are set apart."""
        for kept in context:
            if kept.expires_us >= self.clock_us:
                self.context.put(kept, kept.value if isinstance(kept.value, str) else key_of(kept.value))
        for entry in waiting:
            self._wait(entry)

    def _request(self, auth: Auth, order_us: int) -> Snapshot | None:
        self.counts["auth_requests"] += 1
        ready = self._complete(auth)
        if ready is not None:
            return ready
        last_us = self.rules.window_end(order_us) - 1
        due_us = auth.ts_us + self.rules.join_wait_us
        if due_us <= last_us:
            self._wait(Waiting(auth, due_us, Degrade.JOIN_TIMEOUT.value))
        else:
            self._wait(Waiting(auth, last_us, Degrade.WINDOW_END.value))
        return None

    def _wait(self, entry: Waiting) -> None:
        auth = entry.auth
        self._waiting[auth.event_id] = entry
        self._by_flow.setdefault(auth.flow_id, []).append(auth.event_id)
        self._deadlines.add(entry.at_us, auth.event_id)

    def _part(self, value: Arrival | Entities | Anchor | Label) -> Sequence[str]:
        """Take a part in; the flows that may be complete now."""
        if isinstance(value, Label):
            self._learn(value)
            return ()
        expires_us = self.clock_us + self._horizon_us
        if isinstance(value, Anchor):
            return self._bind(value, expires_us)
        table = "arrival" if isinstance(value, Arrival) else "entities"
        self._keep(_as(Kept, (expires_us, table, value)), value.key)
        flows = self.context.flows.get(value.key) if self._waiting else None
        return tuple(flows) if flows else ()

    def _keep(self, kept: Kept, key: ArrivalKey | str) -> None:
        if self.context.put(kept, key):
            self.context.fresh.append(kept)
        else:
            self.counts["context_repeats"] += 1

    def _bind(self, anchor: Anchor, expires_us: int) -> Sequence[str]:
        standing = self.context.anchors.get(anchor.flow_id)
        if standing is not None and standing[:-1] != anchor[:-1]:
            self._keep(Kept(expires_us, "rebound", anchor.flow_id), anchor.flow_id)
            self.rebinds.append(Rebind(anchor.flow_id, standing.offset, anchor.offset))
            self.counts["rebinds"] += 1
            return ()
        self._keep(_as(Kept, (expires_us, "anchor", anchor)), anchor.flow_id)
        return (anchor.flow_id,) if standing is None and self._waiting else ()

    def _retry(self, flow_id: str) -> Iterator[Snapshot]:
        for event_id in tuple(self._by_flow.get(flow_id, ())):
            auth = self._waiting[event_id].auth
            ready = self._complete(auth)
            if ready is not None:
                self._settle(auth)
                self._deadlines.cancel(event_id)
                yield ready

    def _settle(self, auth: Auth) -> None:
        """Forget a pending request: it has its snapshot."""
        del self._waiting[auth.event_id]
        others = self._by_flow[auth.flow_id]
        others.remove(auth.event_id)
        if not others:
            del self._by_flow[auth.flow_id]

    def _complete(self, auth: Auth) -> Snapshot | None:
        anchor = self.context.anchors.get(auth.flow_id)
        if anchor is None:
            return None
        arrival, entities = self.context.arrivals.get(anchor.key), self.context.entities.get(anchor.key)
        if arrival is None or entities is None:
            return None
        return self._snapshot(auth, anchor, arrival, entities, ())

    def _expire(self, entry: Waiting) -> Snapshot:
        auth = entry.auth
        anchor = self.context.anchors.get(auth.flow_id)
        self._settle(auth)
        arrival = self.context.arrivals.get(anchor.key) if anchor else None
        entities = self.context.entities.get(anchor.key) if anchor else None
        return self._snapshot(auth, anchor, arrival, entities, (entry.reason,))

    def _snapshot(
        self, auth: Auth, anchor: Anchor | None, arrival: Arrival | None, entities: Entities | None,
        reasons: tuple[str, ...],
    ) -> Snapshot:  # fmt: skip
        if auth.flow_id in self.context.rebound:
            reasons = (*reasons, Degrade.FLOW_REBIND.value)
        merchant = self._merchant(auth.merchant_id)
        merchant.update(auth.ts_us, auth.amount_minor, self.clock_us)
        payment = Payment(
            auth.ts_us, auth.amount_minor, arrival.channel if arrival else None, auth.merchant_id,
            entities.instrument_id if entities else anchor.instrument_id if anchor else None,
            entities.device_id if entities else None,
        )  # fmt: skip
        vector = pack(CORE_V1.snapshot_values(payment, merchant))
        self.counts["snapshots"] += 1
        if reasons:
            self.counts["degraded"] += 1
        return _as(Snapshot, (auth, anchor, arrival, entities, reasons, self.clock_us, self.n, vector))

    def _learn(self, label: Label) -> None:
        """A label takes effect now: its order_ts is its observed time plus the effect delay."""
        if not self._owns(label.merchant_id):
            return
        self.counts["labels"] += 1
        if label.label_type == FRAUD_DISPOSITION:
            state = self._merchant(label.merchant_id)
            state.apply_label(label.event_id, label.value, label.source, label.effective_us, label.observed_us)

    def _merchant(self, merchant_id: str) -> MerchantState:
        self.changed.add(merchant_id)
        state = self.merchants.get(merchant_id)
        if state is None:
            state = self.merchants[merchant_id] = MerchantState()
        return state
