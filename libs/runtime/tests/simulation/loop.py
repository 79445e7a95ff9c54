"""The real-time decision loop: merge, join with deadlines, publish, then checkpoint."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256

import orjson

from fp_contracts import topics
from fp_contracts.header import NONE_TS, Header, Kind, Mark
from fp_contracts.partition import partition_of
from fp_runtime.eventtime.merge import Cursor, Deadlines, Head, InputKey, PartitionMerge, interleave, output_frontier

from .bugs import Bug
from .gateway import TAG
from .join import Join, Snapshot, deadline_of
from .kernel import Kernel, Rec, Steps, Tp
from .world import RANKS, Event, World

TOPICS = (*topics.INGRESS, topics.LABELS)


@dataclass
class Checkpoint:
    """What survives a member: state, joins, deadlines, cursors, offsets, out sequences, last output frontier."""

    join: Join = field(default_factory=Join)
    deadlines: dict[str, int] = field(default_factory=dict)
    cursors: dict[InputKey, Cursor] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))
    sequences: dict[int, int] = field(default_factory=dict)


class PartitionLoop:
    """One ingress partition in one incarnation of its member."""

    def __init__(self, kernel: Kernel, world: World, writer: str, partition: int, kept: dict[int, Checkpoint]) -> None:
        self._kernel, self._world, self._partition, self._kept = kernel, world, partition, kept
        self._scope = f"rtdl/{partition}"
        self._epoch = kernel.raise_epoch(self._scope)
        last = kept.get(partition, Checkpoint())
        inputs = [*(InputKey(topic, writer) for topic in topics.INGRESS), InputKey(topics.LABELS, "ls")]
        self._merge = PartitionMerge(inputs, last.cursors)
        self._deadlines = Deadlines(last.deadlines)
        self._join = last.join.copy()
        self._tps = [(topic, (topic, partition % topics.TOPICS[topic].partitions)) for topic in TOPICS]
        self._positions = dict(last.offsets)
        self._starts = dict(last.offsets)
        self._sequences = defaultdict(int, last.sequences)
        self._sent = NONE_TS
        self._saved = self._join.copy()
        self._moved = False

    def has_input(self) -> bool:
        """Whether there is anything to read."""
        return any(len(self._kernel.logs[tp]) > self._positions[topic] for topic, tp in self._tps)

    def turn(self) -> Steps:
        """Poll one input, release, publish; sometimes checkpoint."""
        self._poll()
        yield
        outs = self._work(self._merge.take(self._kernel.plan.take))
        first = self._kernel.bug is Bug.CHECKPOINT_BEFORE_PUBLISH
        if outs and first:
            self._checkpoint()
        for tp, rec in outs:
            yield
            yield from self._kernel.publish_until_acked(tp, rec)
        yield from self._watermarks()
        if not first and self._moved and self._kernel.rng.random() < 0.3:
            yield
            self._checkpoint()
            self._moved = False

    def _poll(self) -> None:
        rng, logs = self._kernel.rng, self._kernel.logs
        waiting = [(topic, tp) for topic, tp in self._tps if len(logs[tp]) > self._positions[topic]]
        if not waiting:
            return
        self._kernel.busy = self._kernel.now
        topic, tp = rng.choice(waiting)
        start = self._positions[topic]
        stop = start + rng.randint(1, self._kernel.plan.poll)
        for offset, rec in enumerate(logs[tp][start:stop], start):
            if rec.header.kind is Kind.WATERMARK:
                self._merge.mark(rec.header, topic, offset)
            else:
                event = event_of(rec)
                self._merge.offer(rec.header, RANKS[topic], event.event_id, topic, offset, event)
            self._positions[topic] = offset + 1
        self._moved = True

    def _work(self, heads: list[Head]) -> list[tuple[Tp, Rec]]:
        return [self._out(snapshot) for snapshot in self._snapshots(heads)]

    def _snapshots(self, heads: list[Head]) -> Iterator[Snapshot]:
        horizon = self._merge.horizon_us
        if self._kernel.bug is Bug.DEADLINE_BY_FRONTIER:
            for early in heads:
                yield from self._merged(early)
            heads = []
        for at, head, payment in interleave(heads, self._deadlines, horizon):
            if head is None:
                yield self._join.expire(at, int(payment or ""))
            else:
                yield from self._merged(head)

    def _merged(self, head: Head) -> Iterator[Snapshot]:
        event: Event = head.value
        partition = self._partition % topics.TOPICS[head.topic].partitions
        done = self._join.merge(head.order_us, event, (head.topic, partition, head.offset))
        if done is not None:
            self._deadlines.cancel(str(event.payment))
            yield done
        elif event.kind is Kind.AUTH_REQUEST:
            self._deadlines.add(deadline_of(event, self._world.window_end(head.order_us)), str(event.payment))

    def _out(self, snapshot: Snapshot) -> tuple[Tp, Rec]:
        target = partition_of(snapshot.key, topics.TOPICS[topics.RTDL].partitions)
        self._sequences[target] += 1
        body = snapshot.body()
        source, digest = f"rtdl:{self._partition}", sha256(body).digest()
        header = Header(Kind.FEATURE_SNAPSHOT, TAG, source, self._sequences[target], snapshot.release, digest)
        return (topics.RTDL, target), Rec(header, body)

    def _watermarks(self) -> Steps:
        """To every target when the output frontier rose, after everything it promises was published."""
        frontier = output_frontier(self._join.clock, self._merge.horizon_us, self._deadlines)
        if self._kernel.bug is Bug.WATERMARK_FROM_CLOCK:
            frontier = self._join.clock
        if frontier <= self._sent:
            return
        for target in range(topics.TOPICS[topics.RTDL].partitions):
            yield
            mark = Mark(f"rtdl:{self._partition}", frontier, self._sequences[target])
            rec = Rec(Header(Kind.WATERMARK, TAG, f"rtdl:{self._partition}", 0, frontier, marks=(mark,)), b"")
            yield from self._kernel.publish_until_acked((topics.RTDL, target), rec)
        self._sent = frontier

    def _checkpoint(self) -> None:
        bug = self._kernel.bug
        cursors = self._merge.cursors()
        if bug is Bug.CURSOR_CAPPED_AT_BOUND:
            bound = self._merge.bound()
            cursors = {key: Cursor(cursor.released, min(cursor.frontier_us, bound)) for key, cursor in cursors.items()}
        kept = Checkpoint(
            self._join.copy(), self._deadlines.pending(), cursors, self._merge.resume_offsets(self._starts),
            dict(self._sequences),
        )  # fmt: skip
        if bug is Bug.JOINS_NOT_IN_CHECKPOINT:
            kept.join.pending, kept.deadlines = {}, {}
        epoch = None if bug is Bug.CHECKPOINT_WITHOUT_OWNER else self._epoch
        self._kernel.commit(self._scope, epoch, lambda: self._write(kept), moves=False)
        self._saved = kept.join

    def _write(self, kept: Checkpoint) -> None:
        """Only changed entities are written, over those that are there: two owners would mix their states."""
        before = self._kept.get(self._partition, Checkpoint()).join
        join, saved = kept.join.copy(), self._saved
        changed = {name: state for name, state in join.merchants.items() if saved.merchants.get(name) != state}
        join.merchants = {**before.merchants, **changed}
        self._kept[self._partition] = replace(kept, join=join)


def member(loops: Callable[[], list[PartitionLoop]]) -> Steps:
    """A member's process: `loops` makes the partitions it owns, reloaded from their checkpoints."""
    owned = loops()
    yield
    while True:
        yield None if any(map(PartitionLoop.has_input, owned)) else 10
        for partition in owned:
            yield from partition.turn()


def event_of(rec: Rec) -> Event:
    """The event in an ingress or label record."""
    raw = orjson.loads(rec.value)
    return Event(**{**raw, "kind": Kind(raw["kind"])})
