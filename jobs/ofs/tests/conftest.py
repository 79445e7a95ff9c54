"""Small worlds as rtdl and df really serve them, archived: the online side of parity in one process."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import topics
from fp_contracts.dataset import (
    BasisRange,
    BuildIntent,
    Floors,
    JoinScope,
    LabelRule,
    OfsRequest,
    OfsResult,
)
from fp_contracts.header import Header, Kind, Mark, pack
from fp_contracts.timestamps import US_PER_DAY
from fp_df import sample as df_sample
from fp_df.catalogue import policies
from fp_df.marks import Truth
from fp_df.partition import Partition
from fp_features import CORE_V1
from fp_ofs.build import Build
from fp_ofs.engine import Embedded, Engine
from fp_rtdl import sample
from fp_rtdl.lane import Lane
from fp_rtdl.parquet import streams_of, to_parquet
from fp_runtime.bus import Out, Record
from fp_runtime.evidence import EvidenceStore, FileStore

START_US = sample.START_US
DAYS = 20
END_US = START_US + DAYS * US_PER_DAY
DELAY_US = US_PER_DAY
# Within the wait, beyond it, beyond the horizon of the context, beyond the lateness that states keep.
LATE_US = (600_000, 1_500_000, 4_000_000, 72_000_000_000, 2 * US_PER_DAY)
READ = (*topics.INGRESS, topics.LABELS)
Place = tuple[str, int]


@dataclass
class World:
    """Every record of a run by topic-partition, in order of offset."""

    records: dict[Place, list[Record]] = field(default_factory=lambda: defaultdict(list))

    def add(self, out: Out) -> Record:
        log = self.records[out.topic, out.partition]
        record = Record(
            topic=out.topic, partition=out.partition, offset=len(log), key=out.key, value=out.value,
            header=out.header, traceparent=out.traceparent, timestamp_ms=0,
        )  # fmt: skip
        log.append(record)
        return record

    def archive(self, store: EvidenceStore, size: int = 40) -> None:
        """Write everything as archive objects of `size` records."""
        for (topic, part), log in self.records.items():
            for first in range(0, len(log), size):
                records = log[first : first + size]
                key = f"archive/{sample.RUN}/{topic}/{part}/{first}-{first + len(records)}.parquet"
                store.put(key, to_parquet(streams_of(records)))

    def basis(self) -> tuple[BasisRange, ...]:
        return tuple(
            BasisRange(topic=topic, partition=part, start=0, end=len(log))
            for (topic, part), log in self.records.items()
        )


def payments(rng: random.Random, count: int) -> list[sample.Payment]:
    """Payments over most of the window, some in its last seconds; few merchants and accounts, so that states matter."""
    last = [END_US - 1 - rng.randrange(4_000_000) for _ in range(count // 9)]
    early = [START_US + 1_000_000 + rng.randrange((DAYS - 1) * US_PER_DAY) for _ in range(count - len(last))]
    times = sorted(early + last)
    return [
        sample.Payment(number, ts_us, f"m-{rng.randrange(9)}", f"acc-{rng.randrange(12)}", rng.randrange(1, 90_000))
        for number, ts_us in enumerate(times)
    ]


def ingress(feed: sample.Feed, rng: random.Random, made: Sequence[sample.Payment]) -> list[Out]:
    """The lines of the payments: some context late, some missing, some flows bound twice, some requests late."""
    lines = []
    for payment in made:
        for ts_us, kind, payload in feed.parts(payment):
            dice = rng.random()
            if (kind is Kind.FLOW_ANCHOR and dice < 0.05) or (kind is Kind.ARRIVAL_EVENT and dice < 0.03):
                continue
            late_us = rng.choice(LATE_US) if rng.random() < 0.15 else 0
            lines.append((ts_us + late_us, kind.value, ts_us, payment, payload, ""))
            if kind is Kind.FLOW_ANCHOR and dice > 0.93:
                other = {**payload, "account_id": "acc-other"}
                lines.append((ts_us + 100_000, kind.value, ts_us, payment, other, "-again"))
    lines.sort(key=lambda line: (line[0], line[1], line[3].number))
    return [
        feed.event(Kind(code), ts_us, payment.merchant_id, sample.event_id_of(payment, Kind(code)) + again, payload)
        for _, code, ts_us, payment, payload, again in lines
    ]


def labels(feed: sample.Feed, rng: random.Random, made: Sequence[sample.Payment], conflicts: bool) -> list[Out]:
    """What the adjudicator says: every third payment is a fraud, some are legit, some contradict each other."""
    said = []
    for payment in made:
        observed_us = payment.ts_us + rng.randrange(1, 3 * US_PER_DAY)
        if payment.number % 3 == 0:
            said.append((observed_us, payment, "FRAUD_CONFIRMED"))
        elif payment.number % 7 == 1:
            said.append((observed_us, payment, "LEGIT_CONFIRMED"))
        if conflicts and payment.number % 21 == 0:
            said.append((observed_us, payment, "LEGIT_CONFIRMED"))
    said.sort(key=lambda word: (word[0], word[1].number, word[2]))
    return [
        feed.label(payment, observed_us, DELAY_US, value)
        for observed_us, payment, value in said
        if observed_us < END_US
    ]


def serve(world: World) -> None:
    """What rtdl and df make of the ingress of a world, appended to it."""
    plan = sample.plan(END_US)
    for part in range(topics.LANES):
        lane = Lane(plan, part)
        for topic in READ:
            for record in world.records[topic, lane.place(topic)]:
                lane.take(record)
        for out in lane.advance():
            world.add(out)
        for target in range(df_sample.PARTITIONS):
            mark = Mark(lane.source, END_US, lane.last_seq(target))
            header = Header(Kind.WATERMARK, plan.tag, lane.source, 0, END_US, marks=(mark,))
            world.add(Out(topics.RTDL, target, b"", b"", pack(header)))
    decide(world)


def decide(world: World) -> None:
    """What df makes of the snapshots of a world."""
    policy = policies()["spine-v0"][0]
    for part in range(df_sample.PARTITIONS):
        partition = Partition(df_sample.plan(policy, pins=sample.pins_of()), part, Truth(), None, {})
        for record in tuple(world.records[topics.RTDL, part]):
            partition.take(record)
        while partition.advance(1_000, None):
            pass
        batch = partition.drain()
        for queued in batch.queued if batch else ():
            if queued.out.topic == topics.RTDL:
                world.add(queued.out)


def make_world(seed: int, count: int = 90, *, conflicts: bool = False) -> World:
    """A served world; equal seeds give equal worlds."""
    rng, feed, world = random.Random(seed), sample.Feed(), World()
    made = payments(rng, count)
    outs = ingress(feed, rng, made)
    outs += labels(feed, rng, made, conflicts)
    outs += feed.marks(END_US, topics.INGRESS) + feed.marks(END_US + DELAY_US, (topics.LABELS,))
    for out in outs:
        world.add(out)
    serve(world)
    return world


def intent_for(world: World, **changes: Any) -> BuildIntent:
    """The intent of a world whose labels are complete to the end of its window."""
    pins = sample.pins_of()
    label_changes = {
        name: changes.pop(name) for name in ("as_of_us", "maturity_days", "unlabelled") if name in changes
    }  # fmt: skip
    rule = {"as_of_us": END_US - 1, "maturity_days": 5, "effect_delay_us": DELAY_US, **label_changes}
    fields: dict[str, Any] = {
        "platform_run_id": pins.platform_run_id, "scenario_run_id": pins.scenario_run_id,
        "manifest_fingerprint": pins.manifest_fingerprint, "run_config_digest": pins.run_config_digest,
        "basis": world.basis(), "labels": LabelRule(**rule), "feature_set": CORE_V1.name,
        "feature_schema_digest": CORE_V1.schema_digest, "code_release": "test",
        "join": JoinScope(join_wait_us=2_000_000, horizon_us=600_000_000, window_ends_us=(END_US,)),
        "floors": Floors(conflict_ppm=0),
    }  # fmt: skip
    return BuildIntent(**{**fields, **changes})


@dataclass
class Bench:
    """A folder with an archive, another for what is built, and the build itself."""

    root: Path
    world: World

    def __post_init__(self) -> None:
        self.archive = FileStore(self.root / "store")
        self.out = FileStore(self.root / "out")
        self.stages: list[str] = []

    def request(self, stage: str = "dataset", **changes: Any) -> OfsRequest:
        outer = {name: changes.pop(name) for name in ("archive_objects", "dataset_name") if name in changes}
        return OfsRequest.model_validate(
            {
                "intent": intent_for(self.world, **changes), "archive_url": (self.root / "store").as_uri(),
                "stage": stage, **outer,
            }
        )  # fmt: skip

    def build(self, request: OfsRequest | None = None, *, dry: bool = False, engine: Engine | None = None) -> OfsResult:
        def say(stage: str, _done: int, _total: int) -> None:
            self.stages.append(stage)

        return Build(request or self.request(), self.archive, self.out, engine or Embedded(), say, dry=dry).run()

    def files(self) -> dict[str, bytes]:
        """Everything that was put, by key."""
        return {stored.key: self.out.get(stored.key) for stored in self.out.list("")}


@dataclass(frozen=True)
class Kit:
    """What the tests of this package share; `bench` archives a world (of seed 1 by default) in a fresh folder."""

    world: Callable[..., World]
    bench: Callable[..., Bench]
    intent: Callable[..., BuildIntent]
    end_us: int = END_US
    delay_us: int = DELAY_US


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    standard = make_world(1)

    def bench(world: World | None = None, size: int = 40) -> Bench:
        found = Bench(tmp_path_factory.mktemp("bench"), world or standard)
        found.world.archive(found.archive, size)
        return found

    return Kit(make_world, bench, intent_for)
