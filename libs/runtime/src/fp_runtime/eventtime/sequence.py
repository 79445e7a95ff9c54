"""Dense sequences per (source, topic, partition): duplicates and losses are seen at once (dataflow.md §4)."""

from collections import OrderedDict
from enum import Enum

from fp_contracts.header import NONE_TS

_REMEMBERED_HASHES = 4_096


class Seen(Enum):
    """What a sequence number means to the one who reads it."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"


class HashConflict(Exception):
    """A duplicate sequence with another payload hash: the line must stop."""


class SourceTrack:
    """Sequences and frontier of one source on one input.

    `frontier_us` is the lowest order_ts that may still come. A frontier counts only when every sequence up to its
    `last_seq` is there: one taken over an open gap would release past a record that is still to come.
    """

    __slots__ = ("_hashes", "_order_at_last", "_promised", "frontier_us", "gaps", "last")

    def __init__(self, last: int = 0, frontier_us: int = NONE_TS) -> None:
        self.last = last
        self.gaps: set[int] = set()
        self.frontier_us = frontier_us
        self._promised: list[tuple[int, int]] = []
        self._order_at_last = NONE_TS
        self._hashes: OrderedDict[int, bytes] = OrderedDict()

    @property
    def contiguous(self) -> int:
        """The highest sequence up to which nothing is missing."""
        return min(self.gaps) - 1 if self.gaps else self.last

    def accept(self, seq: int, payload_hash: bytes, order_us: int) -> Seen:
        """Take note of a record. HashConflict when a known sequence comes with other bytes."""
        if seq == self.last + 1:
            self.last = seq
        elif seq > self.last:
            self.gaps.update(range(self.last + 1, seq))
            self.last = seq
        elif seq in self.gaps:
            self.gaps.discard(seq)
        else:
            known = self._hashes.get(seq)
            if known is not None and known != payload_hash:
                raise HashConflict(f"sequence {seq} came with another payload hash")
            return Seen.DUPLICATE
        self._remember(seq, payload_hash)
        self._order_at_last = max(self._order_at_last, order_us)
        self._settle()
        return Seen.NEW

    def promise(self, frontier_us: int, last_seq: int) -> None:
        """A frontier declared after sequence `last_seq`: holds from when all sequences up to it are there."""
        if frontier_us > self.frontier_us:
            self._promised.append((last_seq, frontier_us))
            self._settle()

    def _remember(self, seq: int, payload_hash: bytes) -> None:
        self._hashes[seq] = payload_hash
        if len(self._hashes) > _REMEMBERED_HASHES:
            self._hashes.popitem(last=False)

    def _settle(self) -> None:
        if not self.gaps and self._order_at_last > self.frontier_us:
            # Within a source order_ts never falls, so a record is itself a frontier at its own order_ts.
            self.frontier_us = self._order_at_last
        if self._promised:
            there = self.contiguous
            for last_seq, frontier_us in self._promised:
                if last_seq <= there:
                    self.frontier_us = max(self.frontier_us, frontier_us)
            self._promised = [promise for promise in self._promised if promise[0] > there]
