"""Comparing a topic-partition with the claims made for it, record by record, in bounded memory. Pure.

Both sides add up sha256 over (seq, offset, key, header, bytes) of each record modulo 2^256, so the order in which they
are read does not matter and equal sums mean equal records at equal offsets.
"""

import hashlib
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fp_contracts.header import HeaderError, Kind, unpack
from fp_ig.records import Attempt, Fact, Stamp
from fp_runtime.bus import Record

_MODULUS = 1 << 256
_PLACE = struct.Struct(">qqIII").pack  # seq, offset, and the lengths that keep key, header and bytes apart


class Offsets:
    """Publish facts of one topic-partition, both ways."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._by_seq = sorted(facts, key=lambda fact: fact.first_seq)
        self._by_offset = sorted(self._by_seq, key=lambda fact: fact.first_offset)
        self._first_seqs = [fact.first_seq for fact in self._by_seq]
        self._first_offsets = [fact.first_offset for fact in self._by_offset]

    def of_seq(self, seq: int) -> int | None:
        """Where a sequence lies, None without a fact."""
        at = bisect_right(self._first_seqs, seq) - 1
        fact = self._by_seq[at] if at >= 0 else None
        return None if fact is None or seq >= fact.first_seq + fact.n else fact.first_offset + seq - fact.first_seq

    def at_offset(self, offset: int) -> int | None:
        """The sequence that lies at an offset, None when no fact says so."""
        at = bisect_right(self._first_offsets, offset) - 1
        fact = self._by_offset[at] if at >= 0 else None
        if fact is None or offset >= fact.first_offset + fact.n:
            return None
        return fact.first_seq + offset - fact.first_offset


@dataclass(slots=True)
class PartitionAudit:
    """One topic-partition over [start, end) against the claims up to `last_seq`; fed by `see` and `claim`."""

    stamp: Stamp
    topic: str
    partition: int
    start: int
    end: int
    last_seq: int
    offsets: Offsets
    unknown: frozenset[int]
    claimed: int = 0
    without_offset: int = 0
    matched: int = 0
    later: int = 0
    unexplained: int = 0
    claim_sum: int = 0
    topic_sum: int = 0
    others: Counter[str] = field(default_factory=Counter)
    copies: list[tuple[int, bytes]] = field(default_factory=list)
    copies_equal: int = 0

    def see(self, record: Record) -> None:
        """A record of the topic, in any order."""
        try:
            header = unpack(record.header)
        except HeaderError:
            self.unexplained += 1
            return
        ours = header.run_tag == self.stamp.run_tag
        if not ours or header.kind in (Kind.WATERMARK, Kind.CANARY):
            self.others[f"{'this run' if ours else header.run_tag.hex()} {header.kind.name}"] += 1
        elif header.source != self.stamp.writer or header.seq < 1:
            self.unexplained += 1
        elif header.seq > self.last_seq:
            self.later += 1
        elif self.offsets.at_offset(record.offset) == header.seq:
            self.matched += 1
            weight = _weight(header.seq, record.offset, record.key or b"", record.header, record.value)
            self.topic_sum = (self.topic_sum + weight) % _MODULUS
        else:
            self.copies.append((header.seq, _content(record.key or b"", record.header, record.value)))

    def claim(self, claimed: Attempt) -> None:
        """A claimed record of this topic-partition, after all records were seen."""
        self.claimed += 1
        out = claimed.out
        offset = self.offsets.of_seq(claimed.seq)
        if offset is None:
            self.without_offset += 1
            return
        self.claim_sum = (self.claim_sum + _weight(claimed.seq, offset, out.key, out.header, out.value)) % _MODULUS
        if self.copies:
            content = _content(out.key, out.header, out.value)
            self.copies_equal += sum(copy == (claimed.seq, content) for copy in self.copies)

    @property
    def equal(self) -> bool:
        """Whether the records at the recorded offsets are the claimed ones, byte for byte."""
        return self.matched == self.claimed - self.without_offset and self.topic_sum == self.claim_sum

    @property
    def copies_explained(self) -> bool:
        """Whether every further copy equals its claim and lies beside a recorded unknown."""
        return self.copies_equal == len(self.copies) and all(seq in self.unknown for seq, _ in self.copies)


def _weight(seq: int, offset: int, key: bytes, header: bytes, value: bytes) -> int:
    place = _PLACE(seq, offset, len(key), len(header), len(value))
    return int.from_bytes(hashlib.sha256(b"".join((place, key, header, value))).digest(), "big")


def _content(key: bytes, header: bytes, value: bytes) -> bytes:
    return hashlib.sha256(b"".join((_PLACE(0, 0, len(key), len(header), len(value)), key, header, value))).digest()


@dataclass(frozen=True, slots=True)
class LaneCount:
    """Lines of a lane up to the last one declared, by first class."""

    lane: int
    declared: int
    admitted: int
    duplicate: int
    quarantined: int

    @property
    def closed(self) -> bool:
        """sent = admitted + duplicate + quarantined."""
        return self.declared == self.admitted + self.duplicate + self.quarantined


@dataclass(frozen=True, slots=True)
class IngestFacts:
    """What tables and topics say of a window. `unknown_open`: publishes in doubt without a fact."""

    lanes: Sequence[LaneCount]
    partitions: Sequence[PartitionAudit]
    reasons: dict[str, int]
    kept_aside: int
    aside_digest: str
    identities: int
    unknown_open: int
    unknown_seen: int
    empty_run_waived: bool
