"""Publishes in doubt are resolved forward only: found on the topic, or published again with equal bytes (law 4)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from fp_contracts.topics import INGRESS
from fp_ig.records import Attempt, Fact, facts_of
from fp_runtime.bus import Delivery, Lookup, Producer, Record, TopicPartition


class Journal(Protocol):
    """What the resolver writes and asks; see service.Store."""

    def record(self, facts: Sequence[Fact]) -> None:
        """Commit publish facts."""
        ...

    def note_unknown(self, attempts: Sequence[Attempt]) -> None:
        """Commit that these publishes are in doubt; repeatable."""
        ...

    def high_water(self, lane: int, topic: int, before_seq: int) -> int | None:
        """The offset behind the last record published in order below a sequence; None when there is none."""
        ...


class Resolver:
    """Looks for claims on their topic from the recorded high-water mark. `starts`: where the run's topics begin."""

    def __init__(
        self, journal: Journal, producer: Producer, lookup: Lookup, starts: Mapping[TopicPartition, int]
    ) -> None:
        self._journal = journal
        self._producer = producer
        self._lookup = lookup
        self._starts = starts

    def resolve(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those still in doubt afterwards. Raises Unavailable; safe to repeat."""
        claimed = [one for one in attempts if one.seq]
        if claimed:
            self._journal.note_unknown(claimed)
        left = []
        for topic in sorted({one.topic for one in attempts}):
            left += self._resolve_topic([one for one in attempts if one.topic == topic])
        return left

    def _resolve_topic(self, attempts: list[Attempt]) -> list[Attempt]:
        claimed = sorted((one for one in attempts if one.seq), key=lambda one: one.seq)
        found = self._find(claimed) if claimed else {}
        observed = [one for one in claimed if one.seq in found]
        self._record(observed, [Delivery(found[one.seq]) for one in observed], "O")
        missing = [one for one in claimed if one.seq not in found]
        again = missing + [one for one in attempts if not one.seq]
        deliveries = self._producer.publish([one.out for one in again])
        self._record(again, deliveries, "R")
        return [one for one, delivery in zip(again, deliveries, strict=True) if delivery.offset is None]

    def _record(self, attempts: Sequence[Attempt], deliveries: Sequence[Delivery], how: str) -> None:
        facts = facts_of(attempts, deliveries, how)
        if facts:
            self._journal.record(facts)

    def _find(self, claimed: Sequence[Attempt]) -> dict[int, int]:
        """Offsets of the first copies of these claims on their topic, by sequence."""
        first = claimed[0]
        topic, lane = INGRESS[first.topic], first.lane
        mark = self._journal.high_water(lane, first.topic, first.seq)
        wanted = {one.out.header: one for one in claimed}
        found: dict[int, int] = {}

        def match(record: Record) -> bool:
            one = wanted.get(record.header)
            if one is not None and record.value == one.out.value:
                found.setdefault(one.seq, record.offset)
            return len(found) == len(wanted)

        self._lookup(topic, lane, self._starts[topic, lane] if mark is None else mark, match)
        return found
