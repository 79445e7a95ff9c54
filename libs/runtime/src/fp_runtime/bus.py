"""The bus as services see it: records, protocols and errors. `kafka` and `memory` implement them alike.

Topics are named by their registry name everywhere; only `physical` knows the prefix. Offsets are exclusive-next.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from fp_contracts.topics import TOPICS

TopicPartition = tuple[str, int]
HEADER = "fp"
TRACEPARENT = "traceparent"
BATCH_OVERHEAD_BYTES = 512  # what Kafka adds to a lone record; a larger record cannot fit its topic


class Record(NamedTuple):
    """One record read from the bus. A named tuple: a frozen dataclass costs 1 µs more per record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    header: bytes
    traceparent: bytes | None
    timestamp_ms: int


class Out(NamedTuple):
    """One record to publish; `header` is packed by fp_contracts.header."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    header: bytes
    traceparent: bytes | None = None


# (topic, partition, from_offset, match): the first record that matches up to the end as of the call, or None.
Lookup = Callable[[str, int, int, Callable[[Record], bool]], Record | None]


class PublishError(StrEnum):
    """UNKNOWN: the record may be on the topic, resolve it forward. FAILED: it is certainly not there."""

    UNKNOWN = "UNKNOWN"
    FAILED = "FAILED"


class Delivery(NamedTuple):
    """What became of one published record: its offset, or the error and the client's words for it."""

    offset: int | None
    error: PublishError | None = None
    reason: str = ""


class TopicState(NamedTuple):
    """What the broker says of one topic."""

    partitions: int
    retention_ms: int
    max_message_bytes: int


class FetchProfile(StrEnum):
    """How long records are gathered before they are handed out (ADR 14, ADR 21).

    LOW_LATENCY: the broker answers at once, with all of a round. GATHERED, for stages nobody waits for: with 500 kB or
    after 150 ms. BULK: 100 kB or 500 ms. READBACK: 100 kB or 20 ms, for what is read to a known end, whose last records
    are never 100 kB. CONTROL: at once, through librdkafka; where that client reads LOW_LATENCY and GATHERED too, `poll`
    waits 3 and 100 ms behind its first record unless it is full.
    """

    LOW_LATENCY = "LOW_LATENCY"
    GATHERED = "GATHERED"
    BULK = "BULK"
    READBACK = "READBACK"
    CONTROL = "CONTROL"


class OffsetOutOfRange(Exception):
    """The start offset is not in the log (retention took it, or it is past the end): never skip, never rewind."""


class PublishUnknown(Exception):
    """Sent records have no report, or one that leaves open whether they are on the topic."""


class PublishFailed(Exception):
    """Sent records were definitely not written."""


class BusBroken(Exception):
    """The client reported a fatal error; only a new process can go on."""


class Consumer(Protocol):
    """Reads assigned partitions. All calls from the thread that polls."""

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Replace the assignment; reading starts at these offsets. ValueError for a negative one."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records`, in order per partition; waits only for the first one. Raises OffsetOutOfRange."""
        ...

    def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The next offset to be written, per partition."""
        ...

    def begins(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The lowest offset that is still there, per partition."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell lag tools how far we are, without waiting; never used as progress. ValueError if not assigned."""
        ...

    def pause(self, tps: Iterable[TopicPartition]) -> None:
        """Return nothing of these partitions until `resume`."""
        ...

    def resume(self, tps: Iterable[TopicPartition]) -> None:
        """Go on where `poll` left these partitions."""
        ...

    def close(self) -> None:
        """Let go of the connections; the consumer is then of no more use."""
        ...


def _settled() -> None:
    """Nothing to wait for."""


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """Records that are under way together; `settle` waits until every report in `known` is final."""

    known: list[Delivery]
    settle: Callable[[], None] = _settled

    def deliveries(self) -> list[Delivery]:
        """Wait for every report, in the order given; what has none by the deadline is UNKNOWN. Raises BusBroken."""
        self.settle()
        return list(self.known)


class Producer(Protocol):
    """Writes records in the order given, per partition."""

    def begin(self, outs: Sequence[Out], timeout_s: float | None = None) -> Flight:
        """`publish` in two halves: write all now, wait for the reports when they are asked for. Raises BusBroken."""
        ...

    def publish(self, outs: Sequence[Out], timeout_s: float | None = None) -> list[Delivery]:
        """Write all and wait for every report, in the order of `outs`; what has none by the deadline is UNKNOWN.

        Without `timeout_s` the delivery timeout of the producer is the limit. Raises BusBroken.
        """
        ...

    def send(self, out: Out, on_delivered: Callable[[int | None, str | None], None] | None = None) -> None:
        """Write without waiting; `on_delivered(offset, error)` is called in this or a later call."""
        ...

    def send_all(self, outs: Sequence[Out]) -> None:
        """Write all without waiting; errors come with `flush`."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait for everything sent; raises PublishUnknown or PublishFailed for records without `on_delivered`."""
        ...

    def close(self) -> None:
        """Wait briefly for what is in flight and let go of the connections."""
        ...


class Admin(Protocol):
    """Topics of the registry, under the prefix of the settings."""

    def create_topics(self, names: Iterable[str] | None = None) -> None:
        """Create those that are missing (default: all) and wait until the metadata shows every partition."""
        ...

    def describe(self) -> dict[str, TopicState]:
        """State of each topic of the registry that exists."""
        ...

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group last committed: what a lag tool sees."""
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...


def physical(prefix: str, topic: str) -> str:
    """The name of a topic on the broker; the only place where the prefix is applied."""
    return prefix + topic


def raw_limit(topic: str) -> int:
    """The most bytes that key, value and header of one record may have together, however well they compress."""
    return TOPICS[topic].max_message_bytes - BATCH_OVERHEAD_BYTES


def raise_for(errors: Sequence[Delivery], unreported: int = 0) -> None:
    """Raise PublishUnknown when any record is in doubt, else PublishFailed when any has failed."""
    unknown = unreported + sum(error.error is PublishError.UNKNOWN for error in errors)
    reason = errors[0].reason if errors else "no report by the deadline"
    if unknown:
        raise PublishUnknown(f"{unknown} records: {reason}")
    if errors:
        raise PublishFailed(f"{len(errors)} records: {reason}")
