"""Records on the ingress and label topics as ig and cm_ls publish them: for tests and benches. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from fp_contracts import topics
from fp_contracts.envelope import payload_hash
from fp_contracts.header import NONE_TS, Header, Kind, Mark, pack
from fp_contracts.ids import h32, run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_rtdl.domain import Rules
from fp_rtdl.plan import LABEL_SOURCE, RunPlan
from fp_runtime.bus import Out
from fp_runtime.eventtime.lane import LaneOrder

RUN = "platform_20260101T000000Z"
START_US = 1_767_225_600_000_000
_TOPIC = {
    Kind.ARRIVAL_EVENT: (topics.ARRIVAL_EVENTS, "arrival_event"),
    Kind.ARRIVAL_ENTITIES: (topics.ARRIVAL_ENTITIES, "arrival_entities"),
    Kind.FLOW_ANCHOR: (topics.FLOW_ANCHOR, "flow_anchor"),
    Kind.AUTH_REQUEST: (topics.TRAFFIC, "traffic"),
    Kind.TRAFFIC_OTHER: (topics.TRAFFIC, "traffic"),
}


class Payment(NamedTuple):
    """One payment of a sample: `number` makes its ids. Time in µs, money in minor units."""

    number: int
    ts_us: int
    merchant_id: str
    account_id: str
    amount_minor: int

    @property
    def flow_id(self) -> str:
        """The flow of this payment."""
        return f"flow-{self.number}"

    @property
    def request_id(self) -> str:
        """The event id of its AUTH_REQUEST."""
        return h32("sample", str(self.number), Kind.AUTH_REQUEST.name)


def pins_of(run: str = RUN) -> Pins:
    """Pins of a sample run."""
    return Pins(run, "a" * 32, "b" * 64, "c" * 64)


def plan(
    end_us: int, run: str = RUN, members: int = 1, join_wait_ms: int = 2_000,
    pinned: Mapping[str, topics.Topic] = topics.TOPICS,
) -> RunPlan:  # fmt: skip
    """The plan of a sample run whose one window ends at `end_us`; every topic starts at offset 0."""
    starts = {topic: dict.fromkeys(range(pinned[topic].partitions), 0)
              for topic in (*topics.INGRESS, topics.LABELS)}  # fmt: skip
    rules = Rules(join_wait_ms * 1_000, 600_000_000, (end_us,))
    lanes, label_parts, targets = (pinned[name].partitions for name in (topics.TRAFFIC, topics.LABELS, topics.RTDL))
    writers = dict.fromkeys(range(lanes), "ig-0")
    return RunPlan(
        pins_of(run), run_tag(run), rules, writers, starts, members, 0.02, lanes, label_parts, targets
    )  # fmt: skip


class Feed:
    """Writes lines as their one writer does: order_ts by lane, sequences dense per topic-partition."""

    def __init__(
        self, run: str = RUN, pins: Pins | None = None, pinned: Mapping[str, topics.Topic] = topics.TOPICS
    ) -> None:
        self.pins = pins or pins_of(run)
        self._tag = run_tag(run)
        self._parts = {name: topic.partitions for name, topic in pinned.items()}
        self._orders = [LaneOrder() for _ in range(self._parts[topics.TRAFFIC])]
        self._seqs: Counter[tuple[str, int]] = Counter()

    def event(
        self, kind: Kind, ts_us: int, merchant_id: str, event_id: str, payload: Mapping[str, Any]
    ) -> Out:  # fmt: skip
        """One admitted event."""
        topic, event_type = _TOPIC[kind]
        lane = partition_of(merchant_id, self._parts[topic])
        order_us = self._orders[lane].order_of(ts_us)
        return self._out(kind, topic, lane, "ig-0", order_us, event_type, event_id, ts_us, merchant_id, payload)

    def parts(self, payment: Payment) -> Iterator[tuple[int, Kind, Mapping[str, Any]]]:
        """(time, kind, payload) of the five events of a payment."""
        ts_us, seq = payment.ts_us, payment.number + 1
        arrival = {"merchant_id": payment.merchant_id, "arrival_seq": seq}
        flow = {"flow_id": payment.flow_id, "merchant_id": payment.merchant_id}
        money = {"amount_minor": payment.amount_minor, "currency": "USD"}
        who = {"account_id": payment.account_id, "instrument_id": f"card-{payment.account_id}"}
        yield ts_us - 400_000, Kind.ARRIVAL_EVENT, {**arrival, "channel": "ECOM", "tz": "UTC", "is_virtual": True}
        yield ts_us - 300_000, Kind.ARRIVAL_ENTITIES, {**arrival, **who, "party_id": "party-1", "device_id": "dev-1"}
        yield ts_us - 200_000, Kind.FLOW_ANCHOR, {**arrival, **flow, **who, **money}
        yield ts_us, Kind.AUTH_REQUEST, {**flow, **money, "event_seq": 1, "kind": "AUTH_REQUEST"}
        yield ts_us + 500_000, Kind.TRAFFIC_OTHER, {**flow, **money, "event_seq": 2, "kind": "AUTH_RESPONSE"}

    def label(self, payment: Payment, observed_us: int, delay_us: int, value: str = "FRAUD_CONFIRMED") -> Out:
        """One label of a payment, as the external adjudication posts it."""
        assertion_id = h32("label", payment.request_id)
        payload = {
            "assertion_id": assertion_id,
            "subject": {
                "platform_run_id": self.pins.platform_run_id,
                "event_id": payment.request_id,
                "merchant_id": payment.merchant_id,
                "account_id": payment.account_id,
            },
            "label_type": "fraud_disposition",
            "label_value": value,
            "effective_us": payment.ts_us,
            "observed_us": observed_us,
            "source": "EXTERNAL",
            "actor": "adjudicator",
            "evidence_refs": [],
        }
        part = partition_of(payment.merchant_id, self._parts[topics.LABELS])
        return self._out(
            Kind.LABEL_ASSERTION, topics.LABELS, part, LABEL_SOURCE, observed_us + delay_us, "label_assertion",
            assertion_id, observed_us, payment.merchant_id, payload,
        )  # fmt: skip

    def marks(self, frontier_us: int, topic_names: tuple[str, ...] = (*topics.INGRESS, topics.LABELS)) -> list[Out]:
        """Watermarks of `frontier_us` on every partition of the topics."""
        outs = []
        for topic in topic_names:
            source = LABEL_SOURCE if topic == topics.LABELS else "ig-0"
            for part in range(self._parts[topic]):
                if topic != topics.LABELS:
                    self._orders[part].declare(frontier_us)
                mark = Mark(source, frontier_us, self._seqs[topic, part])
                header = Header(Kind.WATERMARK, self._tag, source, 0, frontier_us, marks=(mark,))
                outs.append(Out(topic, part, b"", b"", pack(header)))
        return outs

    def _out(
        self, kind: Kind, topic: str, part: int, source: str, order_us: int, event_type: str, event_id: str,
        ts_us: int, key: str, payload: Mapping[str, Any],
    ) -> Out:  # fmt: skip
        envelope = {
            "event_id": event_id,
            "event_type": event_type,
            "schema_version": "v1",
            "ts_utc": to_text(ts_us),
            "platform_run_id": self.pins.platform_run_id,
            "scenario_run_id": self.pins.scenario_run_id,
            "manifest_fingerprint": self.pins.manifest_fingerprint,
            "run_config_digest": self.pins.run_config_digest,
            "producer": "wsp",
            "traceparent": None,
            "payload": dict(payload),
        }
        self._seqs[topic, part] += 1
        seq = self._seqs[topic, part]
        header = Header(kind, self._tag, source, seq, order_us, payload_hash(envelope), NONE_TS)
        body = orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS)
        return Out(topic, part, key.encode(), body, pack(header), b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")


def event_id_of(payment: Payment, kind: Kind) -> str:
    """The event id of one part of a payment."""
    return h32("sample", str(payment.number), kind.name)


def world(feed: Feed, payments: list[Payment], end_us: int) -> list[Out]:
    """All events of the payments in event-time order, labels of every tenth, and the closing watermarks."""
    lines = sorted(
        (ts_us, kind.value, payment, payload) for payment in payments for ts_us, kind, payload in feed.parts(payment)
        )  # fmt: skip
    outs = [
        feed.event(Kind(kind), ts_us, payment.merchant_id, event_id_of(payment, Kind(kind)), payload)
        for ts_us, kind, payment, payload in lines
    ]
    outs += [feed.label(payment, payment.ts_us, 1_000_000) for payment in payments if payment.number % 10 == 0]
    return outs + feed.marks(end_us)
