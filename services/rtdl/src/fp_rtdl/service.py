"""The loop of one member: poll, merge, publish, mark, checkpoint. Derived stage: publish, then checkpoint (law 3)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Protocol

from fp_contracts import topics
from fp_contracts.header import Header, Kind, Mark, pack
from fp_rtdl.checkpoint import Checkpoint, Restored
from fp_rtdl.lane import Lane
from fp_rtdl.plan import RunPlan
from fp_runtime.bus import Consumer, Out, Producer, TopicPartition
from fp_runtime.failpoint import Failpoint, hit

POLL_S = 0.02  # ends with the first record; without any the turn looks at labels and what is due
BATCH = 2_000
CHECKPOINT_S = 4.5
"""A restart repeats at most this much of a lane; each costs a write of every merchant that changed. One lane after the
other, so that no turn waits for all of them."""
IDLE_S = 0.5
FLUSH_S = 30.0


class Checkpoints(Protocol):
    """Where checkpoints live. Every method raises Unavailable, `save` also Fenced."""

    def own(self, parts: Sequence[int]) -> None:
        """Become the one owner of these partitions."""
        ...

    def load(self, part: int) -> Restored | None:
        """The last checkpoint of a partition, None before the first."""
        ...

    def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Save all in one transaction, as the owner of every partition that `own` named."""
        ...


class Online(Protocol):
    """The write-behind copy: never read on the decision path, may drop."""

    def put(self, run: str, kind: str, entries: Mapping[str, bytes]) -> None:
        """Hand entries over without waiting."""
        ...


class Stage:
    """One member's partitions of one run. `clock` gives seconds, for intervals only: never for an output."""

    def __init__(
        self,
        plan: RunPlan,
        parts: Sequence[int],
        checkpoints: Checkpoints,
        ingress: Consumer,
        labels: Consumer,
        producer: Producer,
        clock: Callable[[], float],
        online: Online | None = None,
    ) -> None:
        self._plan = plan
        self._checkpoints = checkpoints
        self._ingress = ingress
        self._labels = labels
        self._producer = producer
        self._clock = clock
        self._online = online
        checkpoints.own(parts)
        self.lanes = {part: Lane(plan, part, checkpoints.load(part)) for part in parts}
        self._by_label: dict[int, list[Lane]] = {}
        for lane in self.lanes.values():
            self._by_label.setdefault(lane.place(topics.LABELS), []).append(lane)
        ingress.assign(self.ingress_offsets())
        labels.assign(self.label_offsets())
        self._to_save = cycle(self.lanes.values())
        self._marked_at = self._saved_at = self._busy_at = clock()
        self._resting = False

    def ingress_offsets(self) -> dict[TopicPartition, int]:
        """The ingress topic-partitions of this member, each with the offset that a restart reads first."""
        return {
            (topic, part): lane.starts()[topic] for part, lane in self.lanes.items() for topic in topics.INGRESS
        }  # fmt: skip

    def label_offsets(self) -> dict[TopicPartition, int]:
        """The label topic-partitions of this member: read once for all lanes, from where the first of them needs."""
        return {
            (topics.LABELS, place): min(lane.starts()[topics.LABELS] for lane in lanes)
            for place, lanes in self._by_label.items()
        }

    def turn(self) -> int:
        """One turn; the number of records read."""
        records = self._ingress.poll(BATCH, POLL_S)
        for record in records:
            self.lanes[record.partition].take(record)
        labels = self._labels.poll(BATCH, 0)
        for record in labels:
            for lane in self._by_label[record.partition]:
                lane.take(record)
        self._publish([out for lane in self.lanes.values() for out in lane.advance()])
        self._keep_up(len(records) + len(labels))
        return len(records) + len(labels)

    def _publish(self, outs: Sequence[Out]) -> None:
        if not outs:
            return
        hit(Failpoint.RTDL_BEFORE_PUBLISH)
        self._producer.send_all(outs)

    def _keep_up(self, n: int) -> None:
        """Watermarks and checkpoints when they are due; a checkpoint also when the stream falls idle."""
        now = self._clock()
        if n:
            self._busy_at, self._resting = now, False
        interval_s = self._plan.watermark_interval_s
        if now - self._marked_at >= interval_s:
            self._mark()
            # On the beat, not from now: a turn that comes a little early would else wait for the next one.
            self._marked_at = max(self._marked_at + interval_s, now - interval_s)
        elif n and all(lane.frontier() > lane.marked_us for lane in self.lanes.values()):
            self._mark()  # a whole wave is here: what waits behind it need not wait for the beat
        if not self._resting and now - self._busy_at >= IDLE_S:
            self.checkpoint()
            self._resting = True
        elif self.lanes and now - self._saved_at >= CHECKPOINT_S / len(self.lanes):
            self._save([next(self._to_save)])

    def _mark(self) -> None:
        """One watermark per target with the frontiers of the own sources that rose."""
        now = [(lane, lane.frontier()) for lane in self.lanes.values()]
        moved = [(lane, frontier_us) for lane, frontier_us in now if frontier_us > lane.marked_us]
        if not moved:
            return
        lowest, source = min(frontier_us for _, frontier_us in moved), moved[0][0].source
        outs = []
        for target in range(self._plan.targets):
            marks = tuple(Mark(lane.source, frontier_us, lane.last_seq(target)) for lane, frontier_us in moved)
            header = Header(Kind.WATERMARK, self._plan.tag, source, 0, lowest, marks=marks)
            outs.append(Out(topics.RTDL, target, b"", b"", pack(header)))
        self._producer.send_all(outs)
        for lane, frontier_us in moved:
            lane.marked_us = frontier_us

    def checkpoint(self) -> None:
        """Everything sent is acknowledged, then state and offsets of all lanes are saved, then others are told."""
        self._save(self.lanes.values())

    def _save(self, lanes: Iterable[Lane]) -> None:
        self._saved_at = self._clock()
        self._producer.flush(FLUSH_S)
        hit(Failpoint.RTDL_AFTER_PUBLISH)
        changed = [checkpoint for lane in lanes if (checkpoint := lane.checkpoint()) is not None]
        if not changed:
            return
        self._checkpoints.save(changed)
        hit(Failpoint.RTDL_AFTER_CHECKPOINT)
        self._ingress.commit(self.ingress_offsets())
        self._labels.commit(self.label_offsets())
        if self._online is not None:
            for checkpoint in changed:
                self._online.put(self._plan.run, "merchant", checkpoint.merchants)

    def read(self) -> dict[TopicPartition, int]:
        """Per topic-partition the next offset that this member reads; labels: the one that every lane has read."""
        found = {(topic, part): at for part, lane in self.lanes.items() for topic, at in lane.read().items()
                 if topic != topics.LABELS}  # fmt: skip
        for place, lanes in self._by_label.items():
            found[topics.LABELS, place] = min(lane.read()[topics.LABELS] for lane in lanes)
        return found

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat; read from the control thread."""
        lanes = tuple(self.lanes.values())
        return {
            "merged_n": sum(lane.join.n for lane in lanes),
            "snapshots": sum(lane.join.counts["snapshots"] for lane in lanes),
            "degraded": sum(lane.join.counts["degraded"] for lane in lanes),
            "waiting": sum(lane.waiting() for lane in lanes),
            "watermark_us": min((lane.frontier() for lane in lanes), default=0),
        }
