"""A member of rtdl on the memory bus with checkpoints in memory, and the world it works on."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from fp_contracts import topics
from fp_contracts.header import Kind, kind_of
from fp_rtdl import sample
from fp_rtdl.checkpoint import (
    Checkpoint,
    Restored,
    context_bytes,
    position_bytes,
    read_context,
    read_position,
)
from fp_rtdl.plan import RunPlan
from fp_rtdl.service import Stage
from fp_runtime.bus import Out, Record
from fp_runtime.errors import Fenced
from fp_runtime.memory import MemoryBus

END_US = sample.START_US + 120_000_000
LINES_OF = 60  # payments behind the fixture `lines`


@dataclass
class MemoryCheckpoints:
    """service.Checkpoints in memory: everything goes through its bytes; `Fenced` for a later owner's predecessor."""

    store: dict[str, dict[int, object]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    mine: dict[int, int] = field(default_factory=dict)
    positions: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    merchants: dict[int, dict[str, bytes]] = field(default_factory=dict)
    context: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    saved: list[Checkpoint] = field(default_factory=list)

    def process(self) -> "MemoryCheckpoints":
        """The same store as another process sees it."""
        return MemoryCheckpoints(
            self.store, self.epochs, {}, self.positions, self.merchants, self.context, self.saved
        )  # fmt: skip

    def own(self, parts: Sequence[int]) -> None:
        for part in parts:
            self.mine[part] = self.epochs[part] = self.epochs.get(part, 0) + 1

    def load(self, part: int) -> Restored | None:
        if part not in self.positions:
            return None
        entries = [kept for _, raw in self.context.get(part, []) for kept in read_context(raw)]
        position = read_position(self.positions[part][1])
        return Restored(position, dict(self.merchants.get(part, {})), tuple(entries))

    def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        if any(self.epochs[part] != epoch for part, epoch in self.mine.items()):
            raise Fenced("a later owner is there")
        for checkpoint in checkpoints:
            part, position = checkpoint.part, checkpoint.position
            assert self.positions.get(part, (0, b""))[0] == checkpoint.expected_n
            self.positions[part] = (position.n, position_bytes(position))
            self.merchants.setdefault(part, {}).update(checkpoint.merchants)
            if checkpoint.context:
                newest_us = max(kept.expires_us for kept in checkpoint.context)
                chunks = [*self.context.get(part, []), (newest_us, context_bytes(checkpoint.context))]
                self.context[part] = [chunk for chunk in chunks if chunk[0] >= position.clock_us]
            self.saved.append(checkpoint)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Member:
    """One rtdl process on a memory bus; `turns` lets it work until nothing more is read."""

    def __init__(self, bus: MemoryBus, checkpoints: MemoryCheckpoints, plan: RunPlan, ordinal: int = 0) -> None:
        self.clock = Clock()
        self.checkpoints = checkpoints.process()
        self.stage = Stage(
            plan, plan.owned(ordinal), self.checkpoints, bus.consumer("ingress"), bus.consumer("labels"),
            bus.producer(), self.clock,
        )  # fmt: skip

    def turns(self, step_s: float = 0.3) -> None:
        quiet = 0
        while quiet < 2:
            self.clock.now += step_s
            quiet = 0 if self.stage.turn() else quiet + 1


def new_bus(outs: Sequence[Out] = ()) -> MemoryBus:
    """A bus with all topics and these records."""
    bus = MemoryBus()
    bus.create(topics.TOPICS)
    write(bus, outs)
    return bus


def write(bus: MemoryBus, outs: Sequence[Out]) -> None:
    for delivery in bus.producer().publish(outs):
        assert delivery.error is None


def published(bus: MemoryBus, kind: Kind = Kind.FEATURE_SNAPSHOT) -> list[Record]:
    """Records of a kind on the rtdl topic, by partition."""
    found = []
    for part in range(topics.TOPICS[topics.RTDL].partitions):
        begin, end = bus.span((topics.RTDL, part))
        found += [record for record in bus.read((topics.RTDL, part), begin, end) if kind_of(record.header) == kind]
    return found


def distinct(records: Sequence[Record]) -> list[tuple[int, bytes, bytes, bytes]]:
    """Snapshots without repeats: equal headers must come with equal bytes. Sorted."""
    by_header: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
    for record in records:
        known = by_header.setdefault((record.partition, record.header), (record.key or b"", record.value))
        assert known == (record.key, record.value)
    return sorted((part, header, *rest) for (part, header), rest in by_header.items())


def payments(n: int, seed: int = 1) -> list[sample.Payment]:
    """Payments over the first 100 s; few merchants and accounts, so that states matter."""
    rng = random.Random(seed)
    times = sorted(sample.START_US + 1_000_000 + rng.randrange(100_000_000) for _ in range(n))
    return [
        sample.Payment(number, ts_us, f"m-{rng.randrange(14)}", f"acc-{rng.randrange(40)}", rng.randrange(1, 90_000))
        for number, ts_us in enumerate(times)
    ]


@dataclass(frozen=True)
class Kit:
    """What the tests of this package share."""

    end_us: int
    checkpoints: Callable[[], MemoryCheckpoints]
    member: Callable[..., Member]
    bus: Callable[..., MemoryBus]
    write: Callable[[MemoryBus, Sequence[Out]], None]
    published: Callable[..., list[Record]]
    distinct: Callable[[Sequence[Record]], list[tuple[int, bytes, bytes, bytes]]]
    payments: Callable[..., list[sample.Payment]]


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit(END_US, MemoryCheckpoints, Member, new_bus, write, published, distinct, payments)


@pytest.fixture(scope="session")
def lines(kit: Kit) -> list[Out]:
    """A world in which some context is late and some is missing for good."""
    rng = random.Random(5)
    feed = sample.Feed()
    timed = []
    for payment in kit.payments(LINES_OF):
        for ts_us, kind, payload in feed.parts(payment):
            if kind is Kind.FLOW_ANCHOR and payment.number % 9 == 0:
                continue
            late_us = rng.choice((1_500_000, 4_000_000)) if kind is not Kind.AUTH_REQUEST and rng.random() < 0.2 else 0
            timed.append((ts_us + late_us, kind.value, payment, payload))
    timed.sort(key=lambda line: line[:2])
    outs = []
    for number, (ts_us, code, payment, payload) in enumerate(timed):
        kind = Kind(code)
        event_id = sample.event_id_of(payment, kind)
        outs.append(feed.event(kind, ts_us, payment.merchant_id, event_id, payload))
        if kind is Kind.AUTH_REQUEST and payment.number % 4 == 0:
            outs.append(feed.label(payment, ts_us, 3_000_000))
        if number % 25 == 24:
            outs += feed.marks(ts_us, topics.INGRESS) + feed.marks(ts_us + 3_000_000, (topics.LABELS,))
    return outs + feed.marks(kit.end_us)


@pytest.fixture(scope="session")
def expected(kit: Kit, lines: list[Out]) -> list[tuple[int, bytes, bytes, bytes]]:
    """What one member makes of everything at once."""
    bus = kit.bus(lines)
    kit.member(bus, kit.checkpoints(), sample.plan(kit.end_us)).turns()
    return kit.distinct(kit.published(bus))
