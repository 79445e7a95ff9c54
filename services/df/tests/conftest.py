"""df and its action layer on the memory bus, with truth in memory that behaves like the tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from fp_contracts import topics
from fp_contracts.header import Header, Kind, unpack
from fp_contracts.runconfig import PolicySwitch, RunConfig, RunHeader, Window, config_digest
from fp_df import actions, sample, service
from fp_df.actions import Actor
from fp_df.actmarks import Asked, Effects, Executed, Progress
from fp_df.catalogue import policies
from fp_df.domain import Switch
from fp_df.marks import Batch, StateMark, Truth
from fp_df.plan import RunPlan
from fp_df.policy import Policy
from fp_df.service import Decider, Models
from fp_runtime.bus import Out, Record
from fp_runtime.errors import Fenced
from fp_runtime.failpoint import disarm
from fp_runtime.memory import MemoryBus
from fp_runtime.outbox import Published, Queued
from fp_runtime.quarantine import Quarantined

COUNT = 120
END_US = sample.START_US + COUNT * 1_000_000 + 1


class CommitLost(Exception):
    """The transaction committed and its reply did not come."""


@dataclass
class Tables:
    """What all processes share. A transaction is all or nothing: checked first, applied after."""

    progress: dict[tuple[str, int], tuple[int, bytes]] = field(default_factory=dict)
    epochs: dict[tuple[str, int], int] = field(default_factory=dict)
    decisions: dict[str, tuple[int, int]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    links: dict[tuple[str, int], str] = field(default_factory=dict)
    queued: dict[tuple[str, str, int, int], Queued] = field(default_factory=dict)
    facts: set[Published] = field(default_factory=set)
    quarantined: dict[int, Quarantined] = field(default_factory=dict)
    accounts: dict[int, dict[str, bytes]] = field(default_factory=dict)
    commits: int = 0
    lose_reply_of: int = 0

    def advance(self, stage: str, part: int, expected: int, n: int, doc: bytes) -> None:
        if self.progress.get((stage, part), (0, b""))[0] != expected:
            raise Fenced(f"{stage} {part} is not at {expected}")
        self.progress[stage, part] = n, doc

    def insert(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        assert key not in table, f"unique violation: {key}"
        table[key] = row

    def append(self, queued: Sequence[Queued], links: Sequence[Any], set_aside: Sequence[Quarantined]) -> None:
        for item in queued:
            self.insert(self.queued, (item.source, item.out.topic, item.out.partition, item.seq), item)
        for link in links:
            self.insert(self.links, (link.chain, link.chain_seq), link.record_hash)
        for one in set_aside:
            self.quarantined.setdefault(one.record.partition * 1_000_000 + one.record.offset, one)

    def unpublished(self, source: str) -> list[Queued]:
        done = {(fact.source, fact.topic, fact.partition, fact.seq) for fact in self.facts}
        return [self.queued[key] for key in sorted(self.queued) if key[0] == source and key not in done]

    def committed(self) -> None:
        self.commits += 1
        if self.commits == self.lose_reply_of:
            raise CommitLost


class _Member:
    def __init__(self, tables: Tables, stage: str) -> None:
        self.tables, self.stage = tables, stage
        self.mine: dict[int, int] = {}

    def own(self, parts: Sequence[int]) -> None:
        for part in parts:
            key = self.stage, part
            self.mine[part] = self.tables.epochs[key] = self.tables.epochs.get(key, 0) + 1

    def guard(self) -> None:
        if any(self.tables.epochs[self.stage, part] != epoch for part, epoch in self.mine.items()):
            raise Fenced("a later owner is there")

    def record_facts(self, published: Sequence[Published]) -> None:
        self.tables.facts.update(published)


class MemoryStore(_Member):
    """service.Store on the shared tables."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables, "df")

    def load(self, part: int) -> tuple[Truth, StateMark | None, Mapping[str, bytes]]:
        truth = self.tables.progress.get(("df", part))
        mark = self.tables.progress.get(("df.state", part))
        return (
            Truth() if truth is None else Truth.from_bytes(*truth),
            None if mark is None else StateMark.from_bytes(*mark),
            dict(self.tables.accounts.get(part, {})),
        )

    def unpublished(self, part: int) -> list[Queued]:
        return self.tables.unpublished(f"df:{part}")

    def commit(self, batches: Sequence[Batch], published: Sequence[Published]) -> None:
        self.guard()
        tables = self.tables
        for batch in batches:
            tables.advance("df", batch.part, batch.expected_n, batch.truth.n, batch.truth.to_bytes())
            for row in batch.rows:
                tables.insert(tables.decisions, row.decision_id, (batch.part, row.n))
            tables.append(batch.queued, batch.links, batch.quarantined)
        tables.facts.update(published)
        tables.committed()

    def save(self, saved: Mapping[int, tuple[StateMark, int, Mapping[str, bytes]]]) -> None:
        self.guard()
        for part, (mark, expected, states) in saved.items():
            self.tables.advance("df.state", part, expected, mark.n, mark.to_bytes())
            self.tables.accounts.setdefault(part, {}).update(states)


class MemoryActions(_Member):
    """actions.Store on the shared tables."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables, "actions")

    def load(self, part: int) -> Progress | None:
        found = self.tables.progress.get(("actions", part))
        return None if found is None else Progress.from_bytes(*found)

    def unpublished(self, part: int) -> list[Queued]:
        return self.tables.unpublished(f"al:{part}")

    def commit(self, effects: Sequence[Effects], published: Sequence[Published]) -> None:
        self.guard()
        tables = self.tables
        for effect in effects:
            at = effect.progress
            tables.advance("actions", effect.part, effect.expected_n, at.n, at.to_bytes())
            for outcome in effect.outcomes:
                tables.insert(tables.outcomes, outcome.action_id, outcome.status)
            tables.append(effect.queued, effect.links, effect.quarantined)
        tables.facts.update(published)
        tables.committed()


@dataclass
class FakeActuator:
    """Carries out once per key; `fault` is raised before the effect while it is set."""

    effects: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    fault: Exception | None = None
    answers: dict[str, Executed] = field(default_factory=dict)

    def execute(self, asked: Sequence[Asked]) -> list[Executed]:
        if self.fault is not None:
            raise self.fault
        self.asked += len(asked)
        self.effects |= {one.intent.idempotency_key: one.intent.kind for one in asked}
        return [self.answers.get(one.intent.kind, Executed("EXECUTED", 1, None)) for one in asked]


@dataclass
class World:
    """A bus, tables and an actuator; processes come and go."""

    plan: RunPlan
    bus: MemoryBus = field(default_factory=MemoryBus)
    tables: Tables = field(default_factory=Tables)
    actuator: FakeActuator = field(default_factory=FakeActuator)
    announced: set[int] = field(default_factory=set)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.bus.create(topics.TOPICS)

    def clock(self) -> float:
        return self.now

    def write(self, outs: Sequence[Out]) -> None:
        assert all(delivery.error is None for delivery in self.bus.producer().publish(outs))

    def decider(self, parts: Sequence[int] = tuple(range(sample.PARTITIONS)), models: Models | None = None) -> Decider:
        def known(switch: Switch) -> bool:
            return switch.effective_us in self.announced

        store = MemoryStore(self.tables)
        return Decider(
            self.plan, parts, store, self.bus.consumer("df"), self.bus.producer(), known, self.clock, models
        )  # fmt: skip

    def actor(self, parts: Sequence[int] = tuple(range(sample.PARTITIONS))) -> Actor:
        store = MemoryActions(self.tables)
        return Actor(self.plan, parts, store, self.bus.consumer("al"), self.bus.producer(), self.actuator, self.clock)

    def settle(self, member: Any, step_s: float = 0.3) -> None:
        """Turn a member until nothing more is read."""
        quiet = 0
        while quiet < 2:
            self.now += step_s
            quiet = 0 if member.turn() else quiet + 1

    def on_bus(self, topic: str, kind: Kind) -> list[tuple[Record, Header]]:
        """Records of a kind without repeats: the same (source, seq) must come with the same bytes."""
        found: dict[tuple[int, str, int], tuple[Record, Header]] = {}
        for part in range(topics.TOPICS[topic].partitions):
            begin, end = self.bus.span((topic, part))
            for record in self.bus.read((topic, part), begin, end):
                header = unpack(record.header)
                if header.kind is kind:
                    known = found.setdefault((part, header.source, header.seq), (record, header))[0]
                    assert (known.key, known.value, known.header) == (record.key, record.value, record.header)
        return [found[key] for key in sorted(found)]

    def results(self) -> "Results":
        """Everything that came out, as bytes."""
        wanted = ((topics.RTDL, Kind.DECISION), (topics.AUDIT, Kind.AUDIT_RECORD),
                  (topics.CASE_TRIGGERS, Kind.CASE_TRIGGER), (topics.RTDL, Kind.ACTION_OUTCOME))  # fmt: skip
        return Results(
            (kind.name, [(record.partition, record.header, record.value) for record, _ in self.on_bus(topic, kind)])
            for topic, kind in wanted
        )


class Results(dict[str, list[tuple[int, bytes, bytes]]]):
    """Bytes by kind; says little of itself, since hypothesis prints what it is given."""

    def __repr__(self) -> str:
        return f"Results({', '.join(self)})"


@dataclass(frozen=True)
class Kit:
    """What the tests of this package share."""

    count: int
    end_us: int
    tables: type[Tables]
    store: type[MemoryStore]
    actuator: type[FakeActuator]
    commit_lost: type[Exception]
    policy: Policy
    older: Policy
    make: Callable[..., World]

    def lines(self) -> list[Out]:
        """A world of snapshots with watermarks; always the same."""
        return list(sample.world(sample.Feed(), self.count, self.end_us))

    def world(self, *later: Switch, lines: Sequence[Out] | None = None) -> World:
        """A world with these records on the bus (default: all)."""
        made = self.make(sample.plan(self.policy, *later))
        made.write(self.lines() if lines is None else lines)
        return made


@pytest.fixture(scope="session")
def kit() -> Kit:
    known = policies()
    return Kit(
        COUNT, END_US, Tables, MemoryStore, FakeActuator, CommitLost, known["spine-v1"][0], known["spine-v0"][0], World
    )  # fmt: skip


@pytest.fixture(scope="session")
def _calm(kit: Kit) -> dict[str, Any]:
    world = kit.world()
    world.settle(world.decider())
    world.settle(world.actor())
    return {"results": world.results(), "world": world}


@pytest.fixture
def expected(_calm: dict[str, Any]) -> Any:
    """What one undisturbed member makes of the world."""
    return _calm["results"]


@pytest.fixture
def calm(_calm: dict[str, Any]) -> Any:
    """The undisturbed world after the end; a copy of its tables may be changed."""
    world = _calm["world"]
    return World(world.plan, world.bus, deepcopy(world.tables), world.actuator)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No failpoint is left behind; nobody waits for records that do not come; checkpoints come often."""
    monkeypatch.setattr(service, "POLL_S", 0.0)
    monkeypatch.setattr(service, "CHECKPOINT_S", 1.0)
    monkeypatch.setattr(actions, "POLL_S", 0.0)
    yield
    disarm()


@pytest.fixture(scope="session")
def run_header() -> Callable[..., RunHeader]:
    """A run header that pins these policies and switches (rev, event time)."""

    def make(digests: Mapping[str, str], switches: Sequence[tuple[str, int]] = ()) -> RunHeader:
        digest = "a" * 64
        config = RunConfig(
            profile="local", scope="spine", manifest_fingerprint="b" * 64,
            windows=(Window(start_us=sample.START_US, end_us=END_US),), feature_schema_digest=digest,
            policies=dict(digests), policy_initial="spine-v1",
            policy_switches=tuple(PolicySwitch(policy_rev=rev, effective_us=at) for rev, at in switches),
            authority_digest=digest, handles_digest=digest, image_manifest_digest=digest, price_table_digest=digest,
            envelopes=(),
        )  # fmt: skip
        return RunHeader(
            platform_run_id=sample.RUN, scenario_run_id="a" * 32, config=config,
            run_config_digest=config_digest(config), lane_writers={}, pinned_us=0, pin_partition=0, pin_offset=0,
            start_offsets={name: {str(part): 0 for part in range(topic.partitions)} for name, topic in
                           topics.TOPICS.items()},
        )  # fmt: skip

    return make
