"""What a consumer asks of the broker beside records: the ends of the log, and the commits that lag tools see."""

from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaException, TopicPartition
from confluent_kafka import Consumer as Client

from fp_runtime import bus
from fp_runtime.bus import physical
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable

REQUEST_TIMEOUT_S = 10.0


class Offsets:
    """The half of bus.Consumer that reads nothing. `assigned` = what may be committed."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self.assigned: frozenset[bus.TopicPartition] = frozenset()

    def ends(self, tps: Iterable[bus.TopicPartition]) -> dict[bus.TopicPartition, int]:
        """See bus.Consumer; one request per broker. Raises Unavailable."""
        return self._offsets(tps, OFFSET_END)

    def begins(self, tps: Iterable[bus.TopicPartition]) -> dict[bus.TopicPartition, int]:
        """See bus.Consumer; one request per broker. Raises Unavailable."""
        return self._offsets(tps, OFFSET_BEGINNING)

    def commit(self, offsets: Mapping[bus.TopicPartition, int]) -> None:
        """See bus.Consumer; a failure is logged, since nothing depends on it."""
        foreign = offsets.keys() - self.assigned
        if foreign:
            raise ValueError(f"not assigned: {sorted(foreign)}")
        self._client.commit(offsets=[self.native(tp, offset) for tp, offset in offsets.items()], asynchronous=True)

    def leaders(self, timeout_s: float) -> dict[tuple[str, int], tuple[str, int]]:
        """Address of the leader of every partition (by the broker's names) that has one. Raises KafkaException."""
        cluster = self._client.list_topics(timeout=timeout_s)
        addresses = {number: (broker.host, broker.port) for number, broker in cluster.brokers.items()}
        return {
            (topic, number): addresses[partition.leader]
            for topic, found in cluster.topics.items()
            for number, partition in found.partitions.items()
            if partition.leader in addresses
        }

    def serve(self) -> None:
        """Let the client tell how commits went; for one that is never polled for records."""
        self._client.poll(0)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def native(self, tp: bus.TopicPartition, offset: int = 0) -> TopicPartition:
        """A place as the client names it."""
        return TopicPartition(physical(self._prefix, tp[0]), tp[1], offset)

    def _offsets(self, tps: Iterable[bus.TopicPartition], which: int) -> dict[bus.TopicPartition, int]:
        asked = list(tps)
        failure = ""

        # A fresh or moving partition refuses for a moment, and the client would go on believing what it saw then.
        def attempt() -> dict[bus.TopicPartition, int] | None:
            nonlocal failure
            try:
                for topic in {topic for topic, _ in asked} if failure else ():
                    self._client.list_topics(physical(self._prefix, topic), REQUEST_TIMEOUT_S)
                return self._ask(asked, which)
            except KafkaException as error:
                failure = str(error)
                return None

        try:
            return until(attempt, REQUEST_TIMEOUT_S, "offsets")
        except TimeoutError as error:
            raise Unavailable(f"offsets of {asked}: {failure}") from error

    def _ask(self, asked: list[bus.TopicPartition], which: int) -> dict[bus.TopicPartition, int]:
        # ListOffsets takes the marks of the end and the beginning for the times -1 and -2.
        natives = [self.native(tp, which) for tp in asked]
        found = self._client.offsets_for_times(natives, timeout=REQUEST_TIMEOUT_S)
        for native in found:
            if native.error is not None:
                raise KafkaException(native.error)
        answers = {(native.topic, native.partition): native.offset for native in found}
        return {tp: answers[physical(self._prefix, tp[0]), tp[1]] for tp in asked}


class Asking:
    """The calls of bus.Consumer that read nothing, passed on; see there."""

    def __init__(self, offsets: Offsets) -> None:
        self._offsets = offsets

    def ends(self, tps: Iterable[bus.TopicPartition]) -> dict[bus.TopicPartition, int]:
        """See bus.Consumer. Raises Unavailable."""
        return self._offsets.ends(tps)

    def begins(self, tps: Iterable[bus.TopicPartition]) -> dict[bus.TopicPartition, int]:
        """See bus.Consumer. Raises Unavailable."""
        return self._offsets.begins(tps)

    def commit(self, offsets: Mapping[bus.TopicPartition, int]) -> None:
        """See bus.Consumer; a failure is logged, since nothing depends on it."""
        self._offsets.commit(offsets)
