"""Looks at the topics once for P8: counts requests, snapshots, labels; hashes what the archive should hold. Pure."""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.archived import ContentDigest
from fp_contracts.derive import SNAPSHOT_FIELDS, content_fingerprint, multiset_digest, snapshot_hash
from fp_contracts.header import Header, HeaderError, Kind, kind_of, unpack
from fp_rtdl.archive import Archived, Range
from fp_rtdl.gates import StreamFacts
from fp_runtime.bus import Record, TopicPartition

_KINDS = frozenset({Kind.AUTH_REQUEST, Kind.FEATURE_SNAPSHOT, Kind.LABEL_ASSERTION})


@dataclass
class StreamAudit:
    """Counts distinct records of one run in a window; knows nothing of how rtdl made them."""

    tag: bytes
    window_end_us: int
    requests: set[tuple[int, int]] = field(default_factory=set)
    answered: set[tuple[int, int]] = field(default_factory=set)
    labels: int = 0
    conflicts: int = 0
    broken_hashes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    fingerprints: list[str] = field(default_factory=list)
    _seen: dict[tuple[str, str, int], dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))

    def take(self, record: Record) -> None:
        """Take one record; those of other runs, kinds and windows are passed over."""
        raw = record.header
        if kind_of(raw) not in _KINDS:
            return  # most records: not even their header is taken apart
        try:
            header = unpack(raw)
        except HeaderError:
            return
        if header.run_tag != self.tag or not self._is_first(record, header):
            return
        if header.kind is Kind.LABEL_ASSERTION:
            self.labels += 1
        elif header.order_us >= self.window_end_us:
            return
        elif header.kind is Kind.AUTH_REQUEST:
            self.requests.add((record.partition, record.offset))
        else:
            self._snapshot(orjson.loads(record.value)["payload"], header)

    def _is_first(self, record: Record, header: Header) -> bool:
        digest = sha256(record.value).digest()
        known = self._seen[record.topic, header.source, record.partition].setdefault(header.seq, digest)
        if known is digest:
            return True
        self.conflicts += known != digest
        return False

    def _snapshot(self, payload: dict[str, Any], header: Header) -> None:
        source = payload["source_event"]
        self.answered.add((source["origin"]["partition"], source["origin"]["offset"]))
        self.statuses[payload["join_status"]] += 1
        self.fingerprints.append(content_fingerprint(SNAPSHOT_FIELDS, payload, source["event_id"]))
        digest = snapshot_hash(payload, source["event_id"])
        self.broken_hashes += not digest == payload["snapshot_hash"] == header.payload_hash.hex()

    def facts(self) -> StreamFacts:
        """What was found."""
        return StreamFacts(
            requests=len(self.requests),
            snapshots=len(self.fingerprints),
            unanswered=len(self.requests - self.answered),
            unasked=len(self.answered - self.requests),
            conflicts=self.conflicts,
            broken_hashes=self.broken_hashes,
            labels=self.labels,
            statuses=self.statuses,
            fingerprint=multiset_digest(self.fingerprints),
        )


class ArchiveAudit:
    """Hashes the records of a topic-partition by the ranges of its objects, to be compared with what those say."""

    def __init__(self, objects: Sequence[Archived]) -> None:
        self._objects = objects
        self._coming: dict[TopicPartition, deque[Archived]] = defaultdict(deque)
        for found in objects:
            self._coming[found.range.place].append(found)
        self._open: dict[Range, ContentDigest] = {}
        self._said: dict[Range, str] = {}

    def take(self, record: Record) -> None:
        """Take one record; records come in order per topic-partition."""
        topic, partition, offset, key, value, header, trace, _ = record
        coming = self._coming.get((topic, partition))
        while coming and coming[0].range.next_offset <= offset:
            self._close(coming.popleft().range)
        if coming and offset >= coming[0].range.first:
            wanted = coming[0].range
            digest = self._open.get(wanted)
            if digest is None:
                digest = self._open[wanted] = ContentDigest()
            digest.take((offset, key, header, value, trace))

    def _close(self, passed: Range) -> None:
        digest = self._open.pop(passed, None)
        if digest is not None:
            self._said[passed] = digest.hexdigest()

    def mismatches(self) -> list[str]:
        """Objects whose recorded content is not what the topic holds; after the last record."""
        for wanted in list(self._open):
            self._close(wanted)
        return [
            f"{found.ref.key}: not what the topic holds"
            for found in self._objects
            if self._said.get(found.range) != found.content_digest
        ]


def covering(objects: Sequence[Archived], needed: Mapping[TopicPartition, tuple[int, int]]) -> tuple[
    list[Archived], list[str]
]:  # fmt: skip
    """(objects that cover [start, end) of each topic-partition, holes): objects come ordered by first offset."""
    chosen, holes = [], []
    by_place: dict[TopicPartition, list[Archived]] = defaultdict(list)
    for found in objects:
        by_place[found.range.place].append(found)
    for place, (start, end) in needed.items():
        at = start
        for found in by_place[place]:
            if at >= end:
                break
            if found.range.first != at:
                holes.append(f"{place[0]}[{place[1]}]: {at} to {found.range.first}")
            at = found.range.next_offset
            chosen.append(found)
        if at < end:
            holes.append(f"{place[0]}[{place[1]}]: {at} to {end}")
    return chosen, holes


AUDITED = (*topics.INGRESS, topics.RTDL)
