"""The decision fabric: truth for decisions, derived account state that is fed again after a restart."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.header import NONE_TS, Header, Kind
from fp_contracts.ids import h32
from fp_contracts.partition import partition_of
from fp_runtime.eventtime.merge import Cursor, Head, InputKey, PartitionMerge

from .bugs import Bug
from .gateway import TAG
from .join import Accounts
from .kernel import Fenced, Kernel, Rec, Steps, Tp


class Progress(NamedTuple):
    """Merged position with what a restart reads again."""

    n: int = 0
    offset: int = 0
    cursors: dict[InputKey, Cursor] = {}  # noqa: RUF012  # never changed
    horizon: int = NONE_TS


@dataclass
class Outbox:
    """Rows of one source: (topic-partition, record) with dense sequences."""

    source: str
    rows: list[tuple[Tp, Rec]] = field(default_factory=list)
    facts: set[int] = field(default_factory=set)
    """Numbers of the published rows."""
    sequences: dict[Tp, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, tp: Tp, kind: Kind, order: int, payload: dict[str, Any]) -> None:
        """Draw the next sequence; only inside a transaction."""
        self.sequences[tp] += 1
        body = trusted_bytes(payload)
        header = Header(kind, TAG, self.source, self.sequences[tp], order, sha256(body).digest())
        self.rows.append((tp, Rec(header, body)))

    def drain(self, kernel: Kernel, scope: str, epoch: int) -> Steps:
        """Publish what has no fact, pipelined and in order; record the facts of what was acked. The rest waits."""
        if len(self.facts) == len(self.rows):
            return
        acked = set()
        for row, (tp, rec) in enumerate(self.rows):
            if row not in self.facts:
                yield
                if kernel.publish(tp, rec) is not None:
                    acked.add(row)
        yield
        kernel.commit(scope, epoch, lambda: self.facts.update(acked), moves=bool(acked))


@dataclass
class Rows:
    """Truth of one rtdl partition."""

    outbox: Outbox
    progress: Progress = field(default_factory=Progress)
    decisions: dict[int, dict[str, Any]] = field(default_factory=dict)
    checkpoint: tuple[Accounts, Progress] = field(default_factory=lambda: (Accounts(), Progress()))


class Decided(NamedTuple):
    """A decision on its way into the transaction."""

    n: int
    head: Head
    decision: dict[str, Any]


class PartitionFabric:
    """One rtdl partition in one incarnation of its member."""

    def __init__(self, kernel: Kernel, partition: int, rows: Rows) -> None:
        self._kernel, self._partition, self._rows = kernel, partition, rows
        self._scope = f"df/{partition}"
        self._epoch = kernel.raise_epoch(self._scope)
        accounts, start = rows.checkpoint
        if kernel.bug is Bug.STATE_NOT_REFED:
            start = rows.progress
        self._accounts = accounts.copy()
        self._n, self._committed = start.n, rows.progress.n
        self._merge = PartitionMerge((InputKey(topics.RTDL, f"rtdl:{part}") for part in range(6)), start.cursors)
        self._position = self._start = start.offset

    def turn(self) -> Steps:
        """Poll, decide, commit, publish; sometimes keep the state."""
        self._poll()
        yield
        heads = self._merge.take(self._kernel.plan.take)
        if heads or self._merge.horizon_us > self._rows.progress.horizon:
            decided = [self._feed(head) for head in heads]
            yield
            self._commit([item for item in decided if item is not None])
        yield from self._rows.outbox.drain(self._kernel, self._scope, self._epoch)
        moved = self._n > self._rows.checkpoint[1].n
        if moved and self._n >= self._committed and self._kernel.rng.random() < 0.2:
            yield
            kept = self._accounts.copy(), self._progress()
            self._kernel.commit(self._scope, self._epoch, lambda: setattr(self._rows, "checkpoint", kept), moves=False)

    def _poll(self) -> None:
        log = self._kernel.logs[topics.RTDL, self._partition]
        if len(log) == self._position:
            return
        self._kernel.busy = self._kernel.now
        size = self._kernel.rng.randint(1, self._kernel.plan.poll)
        for offset, rec in enumerate(log[self._position : self._position + size], self._position):
            if rec.header.kind is Kind.WATERMARK:
                self._merge.mark(rec.header, topics.RTDL, offset)
            elif rec.header.kind is Kind.FEATURE_SNAPSHOT:
                self._merge.offer(rec.header, 0, "", topics.RTDL, offset, orjson.loads(rec.value))
            else:
                self._merge.passed(topics.RTDL, offset)
            self._position = offset + 1

    def _feed(self, head: Head) -> Decided | None:
        """Decide, or feed state again where the decision is already recorded."""
        self._n += 1
        snapshot = head.value["replays"]
        if self._n <= self._committed:
            self._accounts.apply(snapshot, self._rows.decisions[self._n])
            return None
        decision = self._accounts.decide(snapshot)
        self._accounts.apply(snapshot, decision)
        return Decided(self._n, head, decision)

    def _progress(self) -> Progress:
        offset = self._merge.resume_offsets({topics.RTDL: self._start})[topics.RTDL]
        if self._kernel.bug is Bug.PROGRESS_STORES_READ_OFFSET:
            offset = self._position
        return Progress(self._n, offset, self._merge.cursors(), self._merge.horizon_us)

    def _commit(self, decided: list[Decided]) -> None:
        """Decisions, audit, outbox and progress in one transaction, by compare-and-set on n."""
        if self._n < self._committed:
            return
        checked = self._kernel.bug is not Bug.PROGRESS_WITHOUT_COMPARE
        progress = self._progress()

        def apply() -> None:
            if checked and self._rows.progress.n != self._committed:
                raise Fenced
            for item in decided:
                self._record(item)
            self._rows.progress = progress

        self._kernel.commit(self._scope, self._epoch if checked else None, apply)
        self._committed = self._n

    def _record(self, item: Decided) -> None:
        rows, decision, order = self._rows, item.decision, item.head.order_us
        origin = item.head.value["offsets"]["origin"]
        identity = h32("decision", decision["event"], *(str(part) for part in origin))
        intents = [h32("action", identity)] if decision["action"] == "BLOCK" else []
        rows.decisions[item.n] = decision
        record = {"id": identity, "replays": decision, "origin": origin, "intents": intents}
        rows.outbox.add((topics.RTDL, self._partition), Kind.DECISION, order, record)
        audit = {"id": identity, "kind": "DECIDED", "chain_seq": item.n}
        rows.outbox.add((topics.AUDIT, partition_of(decision["key"], 3)), Kind.AUDIT_RECORD, order, audit)
        if decision["escalated"]:
            case = h32("case", decision["event"])
            trigger = {"case": case, "event": decision["event"], "intents": len(intents)}
            rows.outbox.add((topics.CASE_TRIGGERS, partition_of(case, 3)), Kind.CASE_TRIGGER, order, trigger)


def member(fabrics: Callable[[], list[PartitionFabric]]) -> Steps:
    """A member's process over the rtdl partitions it owns."""
    owned = fabrics()
    yield
    while True:
        yield 5
        for fabric in owned:
            yield from fabric.turn()
