"""Snapshots made by hand, as rtdl would publish them: for tests and measurements, never for a run. Deterministic."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fp_contracts import topics
from fp_contracts.derive import snapshot_hash, vector_text
from fp_contracts.downstream import FeatureSnapshot, Offset, SourceEvent
from fp_contracts.header import NONE_TS, Header, Kind, Mark, pack
from fp_contracts.ids import h32, run_tag
from fp_contracts.ingress import Channel
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins, body_of
from fp_df.domain import Switch
from fp_df.plan import WRITTEN, RunPlan
from fp_df.policy import Policy
from fp_features import CORE_V1
from fp_features import pack as pack_vector
from fp_runtime.bus import Out

RUN = "platform_20260101T000000Z"
START_US = 1_767_225_600_000_000
PINS = Pins(RUN, "a" * 32, "b" * 64, "c" * 64)
PARTITIONS = topics.TOPICS[topics.RTDL].partitions
TRACE = "00-{:032x}-00f067aa0ba902b7-01"


def plan(
    policy: Policy, *later: Switch, pins: Pins = PINS, members: int = 1, end_us: int = 2**60,
    pinned: Mapping[str, topics.Topic] = topics.TOPICS,
) -> RunPlan:  # fmt: skip
    """A run in which `policy` decides from the beginning and `later` switches follow."""
    return RunPlan(
        pins=pins, tag=run_tag(pins.platform_run_id), switches=(Switch(NONE_TS, policy), *later),
        starts=dict.fromkeys(range(pinned[topics.RTDL].partitions), 0), members={"df": members, "actions": members},
        window_end_us=end_us, lanes=pinned[topics.TRAFFIC].partitions,
        partitions={topic: pinned[topic].partitions for topic in WRITTEN},
    )  # fmt: skip


@dataclass
class Feed:
    """Writes what the lanes of rtdl would write, to as many partitions; keeps their sequences."""

    pins: Pins = PINS
    parts: int = PARTITIONS
    seqs: Counter[tuple[str, int]] = field(default_factory=Counter)

    def snapshot(self, number: int, at_us: int, account: str | None, amount: int = 1_000, **other: Any) -> Out:
        """The snapshot of payment `number`, released at `at_us`; `other` overrides fields of the payload."""
        payload = snapshot_of(number, at_us, account, amount, **other)
        key = payload.account_id or payload.flow_id
        target, source = partition_of(key, self.parts), f"rtdl:{number % self.parts}"
        trace = TRACE.format(number + 1)
        event_id = h32("snapshot", self.pins.platform_run_id, payload.source_event.event_id)
        body = body_of(self.pins, "feature_snapshot", event_id, at_us, "rtdl", payload, trace)
        return self.raw(source, target, at_us, body, key, trace.encode(), bytes.fromhex(payload.snapshot_hash))

    def raw(
        self, source: str, target: int, at_us: int, body: bytes, key: str, trace: bytes | None, digest: bytes
    ) -> Out:
        """A record with the next sequence of its source, whatever its body."""
        self.seqs[source, target] += 1
        header = Header(
            Kind.FEATURE_SNAPSHOT, run_tag(self.pins.platform_run_id), source, self.seqs[source, target], at_us, digest
        )  # fmt: skip
        return Out(topics.RTDL, target, key.encode(), body, pack(header), trace)

    def marks(self, frontier_us: int) -> list[Out]:
        """A watermark of every source on every partition."""
        sources = [f"rtdl:{part}" for part in range(self.parts)]
        tag = run_tag(self.pins.platform_run_id)
        return [
            Out(
                topics.RTDL, part, b"", b"",
                pack(Header(Kind.WATERMARK, tag, source, 0, frontier_us,
                            marks=(Mark(source, frontier_us, self.seqs[source, part]),))),
            )
            for part in range(self.parts) for source in sources
        ]  # fmt: skip


def snapshot_of(number: int, at_us: int, account: str | None, amount: int, **other: Any) -> FeatureSnapshot:
    """A joined payment; without an account it is degraded."""
    values = {
        "flow_id": f"flow-{number}", "account_id": account, "merchant_id": f"m-{number % 17}", "release_us": at_us,
        "merged_n": number + 1, "event_us": at_us - 1_000, "amount_minor": amount, "currency": "EUR",
        "channel": Channel.ECOM if account else None, "instrument_id": f"card-{account}" if account else None,
        "device_id": None, "context_offsets": (),
        "source_event": SourceEvent(
            event_id=f"auth-{number}", origin=Offset(topic=topics.TRAFFIC, partition=number % PARTITIONS, offset=number)
        ),
        "join_status": "READY" if account else "DEGRADED", "degrade_reasons": () if account else ("JOIN_TIMEOUT",),
        "feature_schema_digest": CORE_V1.schema_digest,
        "feature_vector": vector_text(pack_vector([float(amount)] + [0.0] * (len(CORE_V1.snapshot_names) - 1))),
        "snapshot_hash": "0" * 64, **other,
    }  # fmt: skip
    draft = FeatureSnapshot.model_validate(values)
    digest = snapshot_hash(draft.model_dump(mode="json"), draft.source_event.event_id)
    return draft.model_copy(update={"snapshot_hash": digest})


def world(feed: Feed, count: int, end_us: int, accounts: int = 25, seed: int = 1, every: int = 40) -> Iterator[Out]:
    """`count` payments one second apart, watermarks every so often and the closing ones at `end_us`."""
    rng = random.Random(seed)
    for number in range(count):
        at_us = START_US + number * 1_000_000
        account = f"acc-{rng.randrange(accounts)}" if rng.random() > 0.04 else None
        amount = rng.choice((900, 2_500, 4_000, 30_000, 55_000, 80_000))
        yield feed.snapshot(number, at_us, account, amount)
        if number % every == every - 1:
            yield from feed.marks(at_us)
    yield from feed.marks(end_us)


def by_partition(outs: Iterable[Out]) -> dict[int, list[Out]]:
    """The same records per partition, in their order."""
    found: dict[int, list[Out]] = {part: [] for part in range(PARTITIONS)}
    for out in outs:
        found[out.partition].append(out)
    return found
