"""The strict k-way merge of one partition: an order that depends on the logs alone (dataflow.md §2)."""

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fp_contracts.header import NONE_TS, Header
from fp_contracts.ingress import RANK_DEADLINE
from fp_runtime.eventtime.sequence import Seen, SourceTrack


class Head(NamedTuple):
    """One record in the merge. Compares by (order_us, rank, source, event_id); event ids never tie."""

    order_us: int
    rank: int
    source: str
    event_id: str
    topic: str
    seq: int
    offset: int
    value: Any


class InputKey(NamedTuple):
    """One input of a merge: a source on a topic (the partition is the merge's own)."""

    topic: str
    source: str


class Cursor(NamedTuple):
    """What a checkpoint keeps of an input: everything up to `released` was released; `frontier_us` held then."""

    released: int
    frontier_us: int


class PartitionMerge:
    """Buffers the inputs of one partition and releases everything below the lowest frontier, in order.

    Equal to head-by-head release: all that is below the bound is sorted at once. Records *at* the bound stay, since a
    tie may still come. No input is ever judged silent.
    """

    def __init__(self, inputs: Iterable[InputKey], cursors: Mapping[InputKey, Cursor] | None = None) -> None:
        cursors = cursors or {}
        start = Cursor(0, NONE_TS)
        self._cursors = {key: cursors.get(key, start) for key in inputs}
        self._tracks = {key: SourceTrack(*cursor) for key, cursor in self._cursors.items()}
        self._pending: list[Head] = []
        self._read: dict[str, int] = {}

    def offer(self, header: Header, rank: int, event_id: str, topic: str, offset: int, value: Any) -> Seen:
        """Take a record in; KeyError for a source that is no input of this merge."""
        key = InputKey(topic, header.source)
        track = self._tracks[key]
        seen = track.accept(header.seq, header.payload_hash, header.order_us)
        if header.frontier_us != NONE_TS:
            track.promise(header.frontier_us, header.seq)
        if seen is Seen.NEW:
            self._pending.append(Head(header.order_us, rank, header.source, event_id, topic, header.seq, offset, value))
        self.passed(topic, offset)
        return seen

    def mark(self, header: Header, topic: str, offset: int) -> None:
        """Take a watermark in: its own frontier (if any) and the marks of every source it speaks for."""
        for mark in header.marks:
            track = self._tracks.get(InputKey(topic, mark.source))
            if track is not None:
                track.promise(mark.frontier_us, mark.last_seq)
        self.passed(topic, offset)

    def passed(self, topic: str, offset: int) -> None:
        """Note that a record of a topic was read (also one that is skipped), so that progress passes it."""
        self._read[topic] = max(self._read.get(topic, -1), offset)

    def bound(self) -> int:
        """The lowest order_ts (µs) that may still come: the least frontier of all inputs."""
        return min(track.frontier_us for track in self._tracks.values())

    def take(self) -> list[Head]:
        """Release all records below the bound, in the one order."""
        bound = self.bound()
        self._pending.sort()
        cut = bisect_left(self._pending, bound, key=lambda head: head.order_us)
        released, self._pending = self._pending[:cut], self._pending[cut:]
        for head in released:
            key = InputKey(head.topic, head.source)
            released_before, _ = self._cursors[key]
            self._cursors[key] = Cursor(max(released_before, head.seq), NONE_TS)
        return released

    def cursors(self) -> dict[InputKey, Cursor]:
        """What to checkpoint: per input the last released sequence and the frontier of now, capped at the bound.

        Released records are a prefix of every source's sequences, because order_ts never falls within a source.
        """
        bound = self.bound()
        return {
            key: Cursor(cursor.released, min(self._tracks[key].frontier_us, bound))
            for key, cursor in self._cursors.items()
        }

    def resume_offsets(self, starts: Mapping[str, int]) -> dict[str, int]:
        """Per topic the lowest offset (inclusive) that a restart must read again; `starts` where nothing was read."""
        lowest = {topic: self._read.get(topic, start - 1) + 1 for topic, start in starts.items()}
        for head in self._pending:
            lowest[head.topic] = min(lowest[head.topic], head.offset)
        return lowest

    def open_gaps(self) -> dict[InputKey, int]:
        """Inputs with missing sequences and how many: closure needs none."""
        return {key: len(track.gaps) for key, track in self._tracks.items() if track.gaps}

    def waiting(self) -> int:
        """Records read and not yet released."""
        return len(self._pending)


class Deadlines:
    """Deadlines as heads of the merge: they fire in the order, never by a clock or by the frontier alone."""

    __slots__ = ("_cancelled", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._cancelled: set[str] = set()

    def add(self, at_us: int, name: str) -> None:
        """Wait for `name` until `at_us`."""
        self._cancelled.discard(name)
        heapq.heappush(self._heap, (at_us, RANK_DEADLINE, name))

    def cancel(self, name: str) -> None:
        """`name` is complete; its deadline does not fire."""
        self._cancelled.add(name)

    def earliest(self) -> int | None:
        """The next deadline (µs) that will fire, None without one."""
        while self._heap and self._heap[0][2] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._heap)[2])
        return self._heap[0][0] if self._heap else None

    def due(self, before: tuple[int, int]) -> tuple[int, str] | None:
        """Pop the next (at_us, name) whose (at, rank) is below `before`; None when there is none."""
        if self.earliest() is None or self._heap[0][:2] >= before:
            return None
        at_us, _, name = heapq.heappop(self._heap)
        return at_us, name


def interleave(heads: list[Head], deadlines: Deadlines, bound_us: int) -> Iterator[tuple[int, Head | None, str | None]]:
    """Heads and deadlines in one order, lazily: deadlines set while a head is worked on take their place.

    Yields (order_us, head, None) or (at_us, None, name of the deadline).
    """
    for head in heads:
        while (fired := deadlines.due((head.order_us, head.rank))) is not None:
            yield fired[0], None, fired[1]
        yield head.order_us, head, None
    while (fired := deadlines.due((bound_us, 0))) is not None:
        yield fired[0], None, fired[1]


def output_frontier(clock_us: int, bound_us: int, deadlines: Deadlines) -> int:
    """The lowest order_ts this partition may still emit: records come at the merge clock or later."""
    earliest = deadlines.earliest()
    lowest = bound_us if earliest is None else min(bound_us, earliest)
    return max(clock_us, lowest)
