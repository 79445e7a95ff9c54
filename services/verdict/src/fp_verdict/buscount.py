"""Counts a run's records on the topics behind the gateway and hashes them by the archive's ranges. Pure.

Shares no code with what wrote them but the contract of the archive's declared content digest.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fp_contracts import topics
from fp_contracts.archived import ContentDigest
from fp_contracts.header import NONE_TS, Header, HeaderError, Kind, unpack

COUNTED = (topics.RTDL, topics.AUDIT, topics.CASE_TRIGGERS, topics.LABELS)
INGRESS_KINDS = (
    Kind.ARRIVAL_EVENT, Kind.ARRIVAL_ENTITIES, Kind.FLOW_ANCHOR, Kind.AUTH_REQUEST, Kind.TRAFFIC_OTHER,
)  # fmt: skip
NAMES: Mapping[Kind, str] = {
    Kind.FEATURE_SNAPSHOT: "snapshots",
    Kind.DECISION: "decisions",
    Kind.ACTION_OUTCOME: "outcomes",
    Kind.AUDIT_RECORD: "audits",
    Kind.CASE_TRIGGER: "triggers",
    Kind.LABEL_ASSERTION: "labels",
}
_KINDS = {*NAMES, *INGRESS_KINDS}
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    """One recorded archive object: offsets [first, next_offset) of a topic-partition."""

    topic: str
    partition: int
    first: int
    next_offset: int
    key: str
    sha256: str
    size: int
    records: int
    content_digest: str


@dataclass
class BusCount:
    """Fed with every record of the counted topics, in order per topic-partition.

    What is ordered before `since_us` (labels: `labels_since_us`) is hashed and not counted; `hashed` = topics read.
    """

    tag: bytes
    objects: Sequence[ArchiveObject]
    since_us: int = NONE_TS
    labels_since_us: int = NONE_TS
    hashed: Sequence[str] = COUNTED
    _seen: dict[Kind, set[tuple[str, int, int, str]]] = field(default_factory=lambda: defaultdict(set))
    _coming: dict[Place, deque[ArchiveObject]] = field(default_factory=lambda: defaultdict(deque))
    _open: dict[str, ContentDigest] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for found in self.objects:
            self._coming[found.topic, found.partition].append(found)

    def take(self, topic: str, partition: int, offset: int, key: bytes | None, header: bytes, value: bytes,
             trace: bytes | None) -> Header | None:  # fmt: skip
        """One record; its header when it was counted for the first time."""
        self._hash(topic, partition, offset, key, header, value, trace)
        try:
            head = unpack(header)
        except HeaderError:
            return None
        if head.run_tag != self.tag or head.kind not in _KINDS:
            return None
        place = (head.source, head.seq, partition, topic)
        since_us = self.labels_since_us if head.kind is Kind.LABEL_ASSERTION else self.since_us
        if head.order_us < since_us or place in self._seen[head.kind]:
            return None
        self._seen[head.kind].add(place)
        return head

    def _hash(self, topic: str, partition: int, offset: int, key: bytes | None, header: bytes, value: bytes,
              trace: bytes | None) -> None:  # fmt: skip
        coming = self._coming.get((topic, partition))
        while coming and coming[0].next_offset <= offset:
            self._close(coming.popleft().key)
        if coming and offset >= coming[0].first:
            digest = self._open.get(coming[0].key)
            if digest is None:
                digest = self._open[coming[0].key] = ContentDigest()
            digest.take((offset, key, header, value, trace))

    def _close(self, passed: str) -> None:
        digest = self._open.pop(passed, None)
        if digest is not None:
            self._said[passed] = digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Distinct (source, sequence) of this run by kind."""
        return {name: len(self._seen[kind]) for kind, name in NAMES.items()}

    def ingress(self) -> int:
        """Distinct (source, sequence) of this run on the ingress topics."""
        return sum(len(self._seen[kind]) for kind in INGRESS_KINDS)

    def requests(self) -> int:
        """Those of them that ask for a decision."""
        return len(self._seen[Kind.AUTH_REQUEST])

    def mismatches(self) -> list[str]:
        """Objects of the topics read whose declared content is not what the topic holds; after the last record."""
        for key in list(self._open):
            self._close(key)
        return [
            f"{found.key}: not what the topic holds"
            for found in self.objects
            if found.topic in self.hashed and self._said.get(found.key) != found.content_digest
        ]


def holes(objects: Sequence[ArchiveObject], starts: Mapping[Place, int], ends: Mapping[Place, int]) -> list[str]:
    """Where the objects of each topic-partition fail to tile [start, end); they may reach beyond the end."""
    by_place: dict[Place, list[ArchiveObject]] = defaultdict(list)
    for found in objects:
        by_place[found.topic, found.partition].append(found)
    faults = []
    for place, start in starts.items():
        at = start
        for found in sorted(by_place[place], key=lambda item: item.first):
            if found.first != at:
                faults.append(f"{place[0]}[{place[1]}]: {at} to {found.first}")
            at = found.next_offset
        if at < ends[place]:
            faults.append(f"{place[0]}[{place[1]}]: {at} to {ends[place]}")
    return faults
