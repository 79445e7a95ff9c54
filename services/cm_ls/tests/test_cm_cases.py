"""The cases' loop on the memory bus: what is committed when, and nothing of it lost."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fp_cm_ls import cases
from fp_cm_ls.cases import Batch, Cases, Position
from fp_cm_ls.plan import RunPlan
from fp_contracts import topics
from fp_contracts.downstream import CaseTrigger
from fp_contracts.header import Header, Kind, pack
from fp_contracts.records import body_of
from fp_runtime.bus import Out
from fp_runtime.memory import MemoryBus


@dataclass
class Store:
    """What is committed, read back as it was written."""

    kept: Position | None = None
    batches: list[Batch] = field(default_factory=list)

    def own(self) -> None:
        """One owner."""

    def load(self) -> Position | None:
        return self.kept

    def commit(self, batch: Batch) -> None:
        assert batch.expected_n == (self.kept.n if self.kept else 0)
        self.batches.append(batch)
        self.kept = Position.from_bytes(batch.position.n, batch.position.to_bytes())


@dataclass
class Bench:
    """A bus with triggers and a loop whose clock stands still unless moved."""

    plan: RunPlan
    make: Callable[..., CaseTrigger]
    store: Store = field(default_factory=Store)
    bus: MemoryBus = field(default_factory=MemoryBus)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.bus.create([topics.CASE_TRIGGERS, topics.RTDL])

    def cases(self) -> Cases:
        return Cases(self.plan, self.store, self.bus.consumer("cm"), lambda: self.now)

    def trigger(self, seq: int) -> None:
        payload = self.make(f"e{seq}")
        body = body_of(self.plan.pins, "case_trigger", payload.trigger_id, 5, "df", payload)
        header = Header(Kind.CASE_TRIGGER, self.plan.tag, "df:0", seq, 5, bytes(32))
        out = Out(topics.CASE_TRIGGERS, 0, payload.case_id.encode(), body, pack(header))
        assert self.bus.producer().publish([out])[0].error is None

    def skipped(self) -> None:
        """A record of rtdl that is no case's."""
        header = Header(Kind.WATERMARK, self.plan.tag, "rtdl:0", 0, 5)
        assert self.bus.producer().publish([Out(topics.RTDL, 0, b"", b"", pack(header))])[0].error is None

    def committed(self) -> list[str]:
        return [row.trigger.source_event_id for batch in self.store.batches for row in batch.triggers]


@pytest.fixture
def bench(plan: RunPlan, trigger: Callable[..., CaseTrigger], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(cases, "POLL_S", 0.0)
    starts = {(name, part): 0 for name in (topics.CASE_TRIGGERS, topics.RTDL)
              for part in range(topics.TOPICS[name].partitions)}  # fmt: skip
    plan.starts.update(starts)
    return Bench(plan, trigger)


def test_what_was_read_is_committed_together_now_and_then(bench: Bench) -> None:
    loop = bench.cases()
    for seq in (1, 2, 3):
        bench.trigger(seq)
        bench.skipped()
        loop.turn()
    assert bench.store.batches == []
    bench.now = cases.COMMIT_S
    assert loop.turn() == 0
    assert [bench.committed(), len(bench.store.batches)] == [["e1", "e2", "e3"], 1]
    bench.now += cases.COMMIT_S
    loop.turn()
    assert len(bench.store.batches) == 1  # nothing moved
    bench.skipped()
    bench.now += cases.COMMIT_S
    loop.turn()
    assert bench.store.kept is not None
    assert (bench.store.kept.n, bench.store.kept.offsets[topics.RTDL, 0]) == (7, 4)


def test_what_was_read_and_not_committed_is_read_again(bench: Bench) -> None:
    first = bench.cases()
    bench.trigger(1)
    first.turn()
    first.commit()
    bench.trigger(2)
    first.turn()  # and here the process dies
    again = bench.cases()
    again.turn()
    again.commit()
    assert bench.committed() == ["e1", "e2"]
