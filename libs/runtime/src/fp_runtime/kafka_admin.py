"""bus.Admin on Kafka: topics of the registry, created once and described by one request."""

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package re-exports them without __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from fp_contracts.topics import Topic
from fp_runtime import bus
from fp_runtime.bus import TopicState, physical
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_client import Options

REQUEST_TIMEOUT_S = 10.0
VISIBLE_TIMEOUT_S = 30.0
CREATE_TIMEOUT_S = 5.0
_BROKER_DEFAULT = -1

# While a controller is being elected or brokers register again a request fails so; asked again it succeeds.
_PASSING = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.INVALID_REPLICATION_FACTOR,  # of the broker's own default: no broker is registered yet
    }
)


class KafkaAdmin:
    """bus.Admin on Kafka; with `calls_per_s` it creates one topic per call and keeps that rate."""

    def __init__(
        self, options: Options, prefix: str, pinned: Mapping[str, Topic], calls_per_s: float | None = None
    ) -> None:
        """`pinned`: the topics as this environment must have them."""
        self._client = AdminClient(options)
        self._prefix = prefix
        self._pinned = pinned
        self._names = {topic: physical(prefix, topic) for topic in pinned}
        self._calls_per_s = calls_per_s

    def create_topics(self, names: Iterable[str] | None = None) -> None:
        """See bus.Admin; raises Unavailable. An existing topic is left as it is: `describe` shows a drift."""
        wanted = [self._pinned[name] for name in (self._pinned if names is None else names)]
        made: set[str] = set()

        def all_visible() -> bool:
            present = self._partitions()
            made.update(self._create([topic for topic in wanted if topic.name not in present.keys() | made]))
            return all(topic.name in present for topic in wanted)

        try:
            until(all_visible, VISIBLE_TIMEOUT_S, "every partition of the topics has a leader", 0.1)
        except TimeoutError as error:
            raise Unavailable(str(error)) from error

    def describe(self) -> dict[str, TopicState]:
        """See bus.Admin; raises Unavailable."""
        partitions = self._partitions()
        asked = {name: ConfigResource(ResourceType.TOPIC, self._names[name]) for name in partitions}
        if not asked:
            return {}
        futures = self._client.describe_configs(list(asked.values()), request_timeout=REQUEST_TIMEOUT_S)
        states = {}
        for name, resource in asked.items():
            try:
                config = futures[resource].result()
            except KafkaException as error:
                raise Unavailable(f"configuration of {name}: {error}") from error
            states[name] = TopicState(
                partitions[name], int(config["retention.ms"].value), int(config["max.message.bytes"].value)
            )
        return states

    def committed(self, group: str) -> dict[bus.TopicPartition, int]:
        """See bus.Admin; raises Unavailable."""
        request = [ConsumerGroupTopicPartitions(group)]
        future = self._client.list_consumer_group_offsets(request, request_timeout=REQUEST_TIMEOUT_S)[group]
        try:
            found = future.result().topic_partitions
        except KafkaException as error:
            raise Unavailable(f"committed offsets of {group}: {error}") from error
        logical = {physical_name: name for name, physical_name in self._names.items()}
        return {(logical[tp.topic], tp.partition): tp.offset for tp in found if tp.topic in logical and tp.offset >= 0}

    def under_prefix(self) -> list[str]:
        """Real names of all topics under this admin's prefix, of the registry or not. ValueError without a prefix."""
        if not self._prefix:
            raise ValueError("without a prefix every topic of the cluster would be meant")
        try:
            found = self._client.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise Unavailable(f"metadata: {error}") from error
        return sorted(name for name in found if name.startswith(self._prefix))

    def delete_under_prefix(self) -> None:
        """Delete what `under_prefix` names and wait until none is left; raises Unavailable. Facts: scratch only."""

        def gone() -> bool:
            names = self.under_prefix()
            for name, future in (self._client.delete_topics(names) if names else {}).items():
                try:
                    future.result()
                except KafkaException as error:
                    if error.args[0].code() not in _PASSING | {KafkaError.UNKNOWN_TOPIC_OR_PART}:
                        raise Unavailable(f"topic {name} could not be deleted: {error}") from error
            return not names

        try:
            until(gone, VISIBLE_TIMEOUT_S, f"no topic {self._prefix}* is left", 0.1)
        except TimeoutError as error:
            raise Unavailable(str(error)) from error

    def close(self) -> None:
        """See bus.Admin."""
        del self._client  # it has no close of its own

    def _create(self, topics: list[Topic]) -> set[str]:
        """Those of the topics that exist now; the rest met a passing error. One call for all, or paced calls."""
        if not topics:
            return set()
        if self._calls_per_s is None:
            return self._request(topics)
        made: set[str] = set()
        for topic in topics:
            made |= self._request([topic])
            time.sleep(1 / self._calls_per_s)
        return made

    def _request(self, topics: list[Topic]) -> set[str]:
        futures = self._client.create_topics(
            [self._new(topic) for topic in topics],
            operation_timeout=CREATE_TIMEOUT_S,
            request_timeout=CREATE_TIMEOUT_S,
        )
        made = set()
        for topic in topics:
            try:
                futures[self._names[topic.name]].result()
            except KafkaException as error:
                code = error.args[0].code()
                if code in _PASSING:
                    continue
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise Unavailable(f"topic {topic.name} could not be created: {error}") from error
            made.add(topic.name)
        return made

    def _new(self, topic: Topic) -> NewTopic:
        config = {"retention.ms": str(topic.retention_ms), "max.message.bytes": str(topic.max_message_bytes)}
        return NewTopic(self._names[topic.name], topic.partitions, _BROKER_DEFAULT, config=config)

    def _partitions(self) -> dict[str, int]:
        """Topics of the registry whose every partition has a leader, with the number of partitions."""
        try:
            found = self._client.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise Unavailable(f"metadata: {error}") from error
        states = {name: found[actual] for name, actual in self._names.items() if actual in found}
        return {
            name: len(state.partitions)
            for name, state in states.items()
            if state.error is None and state.partitions and all(p.leader >= 0 for p in state.partitions.values())
        }
