"""The strict k-way merge of one partition: an order that depends on the logs alone (dataflow.md §2)."""

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fp_contracts.header import NONE_TS, Header
from fp_contracts.ingress import RANK_DEADLINE
from fp_runtime.eventtime.sequence import Seen, SourceTrack


class Head(NamedTuple):
    """One record in the merge. Compares by (order_us, rank, source, seq): within an input the source's own order."""

    order_us: int
    rank: int
    source: str
    seq: int
    topic: str
    offset: int
    event_id: str
    value: Any


_as_head = tuple.__new__  # Head(...) without its Python-level constructor: a third of the cost, once per event


class InputKey(NamedTuple):
    """One input of a merge: a source on a topic (the partition is the merge's own)."""

    topic: str
    source: str


class Cursor(NamedTuple):
    """What a checkpoint keeps of an input: sequences up to `released` are done, none below `frontier_us` remains."""

    released: int
    frontier_us: int


class PartitionMerge:
    """Buffers the inputs of one partition and releases everything below the lowest frontier, in order.

    Equal to head-by-head release: all that is below the bound is sorted at once. Records *at* the bound stay, since a
    tie may still come. No input is ever judged silent. A LineBroken of an input is raised to the caller.
    """

    def __init__(self, inputs: Iterable[InputKey], cursors: Mapping[InputKey, Cursor] | None = None) -> None:
        start = {key: Cursor(0, NONE_TS) for key in inputs} | dict(cursors or {})
        self._tracks: dict[tuple[str, str], SourceTrack] = {key: SourceTrack(*start[key]) for key in start}
        self._pending: list[Head] = []
        self._read: dict[str, int] = {}
        self._noted_us = [NONE_TS] * len(self._tracks)
        self.horizon_us = NONE_TS
        """As of the last `take`: everything below it was released, nothing below it can come."""

    def offer(self, header: Header, rank: int, event_id: str, topic: str, offset: int, value: Any) -> Seen:
        """Take a record in; KeyError for a source that is no input of this merge."""
        _, _, source, seq, order_us, payload_hash, frontier_us, _ = header
        track = self._tracks[topic, source]
        seen = track.accept(seq, payload_hash, order_us)
        if frontier_us != NONE_TS:
            track.promise(frontier_us, seq, offset)
        if seen is Seen.NEW:
            head = (order_us, rank, source, seq, topic, offset, event_id, value)
            self._pending.append(_as_head(Head, head))
        self._read[topic] = offset
        return seen

    def mark(self, header: Header, topic: str, offset: int) -> None:
        """Take a watermark in: the marks of every source it speaks for; sources that are no inputs are passed by."""
        for mark in header.marks:
            track = self._tracks.get((topic, mark.source))
            if track is not None:
                track.promise(mark.frontier_us, mark.last_seq, offset)
        self._read[topic] = offset

    def passed(self, topic: str, offset: int) -> None:
        """Note a record that is skipped, so that progress passes it. Offsets of a topic only ever rise."""
        self._read[topic] = offset

    def bound(self) -> int:
        """The lowest order_ts (µs) that may still come: the least frontier of all inputs."""
        return min(track.frontier_us for track in self._tracks.values())

    def note_frontiers(self) -> None:
        """Remember where every input stands, for `all_rose`."""
        self._noted_us = [track.frontier_us for track in self._tracks.values()]

    def all_rose(self) -> bool:
        """Whether every input's frontier is above where it was noted."""
        return all(
            track.frontier_us > us for track, us in zip(self._tracks.values(), self._noted_us, strict=True)
        )  # fmt: skip

    def take(self, limit: int | None = None, below_us: int | None = None) -> list[Head]:
        """Release the records below the bound, in the one order; at most `limit`, the rest by the next call.

        `below_us` holds the merge there, whatever the bound (a switch that is not announced yet).
        """
        bound = self.bound() if below_us is None else min(self.bound(), below_us)
        pending = self._pending
        pending.sort()
        cut = bisect_left(pending, (bound,))
        if limit is not None and cut > limit:
            cut = limit
            bound = pending[cut].order_us
        heads, self._pending = pending[:cut], pending[cut:]
        self.horizon_us = bound
        return heads

    def cursors(self) -> dict[InputKey, Cursor]:
        """What to checkpoint once the heads of the last `take` are worked off.

        Released records are a prefix of every source's sequences, because order_ts never falls within a source. A
        frontier is kept only up to the lowest record that a restart will read again.
        """
        lowest: dict[tuple[str, str], Head] = {}
        for head in self._pending:
            key = (head.topic, head.source)
            if key not in lowest or head.seq < lowest[key].seq:
                lowest[key] = head
        return {InputKey(*key): self._cursor(key, lowest.get(key)) for key in self._tracks}

    def _cursor(self, key: tuple[str, str], unreleased: Head | None) -> Cursor:
        track = self._tracks[key]
        there = track.contiguous
        if unreleased is None:
            return Cursor(there, track.frontier_us)
        return Cursor(min(there, unreleased.seq - 1), min(track.frontier_us, unreleased.order_us))

    def resume_offsets(self, starts: Mapping[str, int]) -> dict[str, int]:
        """Per topic the lowest offset (inclusive) that a restart must read again; `starts` where nothing was read."""
        lowest = {topic: self._read.get(topic, start - 1) + 1 for topic, start in starts.items()}
        for head in self._pending:
            lowest[head.topic] = min(lowest[head.topic], head.offset)
        for (topic, _), track in self._tracks.items():
            offset = track.unsettled_offset()
            if offset is not None:
                lowest[topic] = min(lowest[topic], offset)
        return lowest

    def open_gaps(self) -> dict[InputKey, int]:
        """Inputs with missing sequences and how many: closure needs none."""
        return {InputKey(*key): len(track.gaps) for key, track in self._tracks.items() if track.gaps}

    def waiting(self) -> int:
        """Records read and not yet released."""
        return len(self._pending)


class Deadlines:
    """Deadlines as heads of the merge: they fire in the order, never by a clock or by the frontier alone.

    One deadline (µs) per name.
    """

    __slots__ = ("_at", "_heap")

    def __init__(self, pending: Mapping[str, int] | None = None) -> None:
        self._at = dict(pending or {})
        self._heap = [(at_us, RANK_DEADLINE, name) for name, at_us in self._at.items()]
        heapq.heapify(self._heap)

    def add(self, at_us: int, name: str) -> None:
        """Wait for `name` until `at_us`; replaces an earlier deadline of the name."""
        self._at[name] = at_us
        heapq.heappush(self._heap, (at_us, RANK_DEADLINE, name))

    def cancel(self, name: str) -> None:
        """`name` is complete; its deadline does not fire. Unknown names are no error."""
        self._at.pop(name, None)

    def pending(self) -> dict[str, int]:
        """What waits, for the checkpoint: name -> time (µs)."""
        return dict(self._at)

    def earliest(self) -> int | None:
        """The next deadline (µs) that will fire, None without one."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, before: tuple[int, int]) -> tuple[int, str] | None:
        """Pop the next (at_us, name) whose (at, rank) is below `before`; None when there is none."""
        if self.earliest() is None or self._heap[0][:2] >= before:
            return None
        at_us, _, name = heapq.heappop(self._heap)
        del self._at[name]
        return at_us, name


def interleave(
    heads: Sequence[Head], deadlines: Deadlines, horizon_us: int
) -> Iterator[tuple[int, Head | None, str | None]]:
    """Heads and deadlines in one order, lazily: deadlines set while a head is worked on take their place.

    `horizon_us` is that of the `take` that gave the heads. Yields (order_us, head, None) or (at_us, None, name). A
    deadline may lie before the head that set it (a late request): the merge clock is the running maximum.
    """
    pending = deadlines._at  # as a rule nothing waits: then no call per head
    for head in heads:
        while pending and (fired := deadlines.due((head.order_us, head.rank))) is not None:
            yield fired[0], None, fired[1]
        yield head.order_us, head, None
    while (fired := deadlines.due((horizon_us, 0))) is not None:
        yield fired[0], None, fired[1]


def output_frontier(clock_us: int, horizon_us: int, deadlines: Deadlines) -> int:
    """The lowest order_ts this partition may still emit: records come at the merge clock or later."""
    earliest = deadlines.earliest()
    lowest = horizon_us if earliest is None else min(horizon_us, earliest)
    return max(clock_us, lowest)
