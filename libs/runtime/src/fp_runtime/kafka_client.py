"""What all Kafka clients share: every option that we rely on, written out (defaults change), and fatal errors."""

import logging
from typing import Any

from confluent_kafka import KafkaError

from fp_contracts.topics import MAX_MESSAGE_BYTES
from fp_runtime.bus import BusBroken, FetchProfile
from fp_runtime.errors import Unavailable
from fp_runtime.settings import RuntimeSettings

Options = dict[str, Any]
log = logging.getLogger("fp_runtime.kafka")

FETCH: dict[FetchProfile, tuple[int, int]] = {  # least bytes, longest wait of the broker in ms
    FetchProfile.LOW_LATENCY: (1, 500),
    FetchProfile.GATHERED: (500_000, 150),
    FetchProfile.BULK: (100_000, 500),
    FetchProfile.READBACK: (100_000, 20),
    FetchProfile.CONTROL: (1, 500),
}


def admin_options(settings: RuntimeSettings) -> Options:
    """Connection, retry and log options: the whole of an admin client, and shared by the other two."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": settings.instance,
        "broker.address.family": "any",
        "socket.timeout.ms": 10_000,
        "socket.connection.setup.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "connections.max.idle.ms": 0,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 300_000,
        "topic.metadata.refresh.fast.interval.ms": 100,
        "topic.metadata.propagation.max.ms": 10_000,
        "metadata.max.age.ms": 900_000,
        "receive.message.max.bytes": 100_000_000,
        "allow.auto.create.topics": False,
        "enable.metrics.push": False,
        "statistics.interval.ms": 0,
        "log.connection.close": False,
        "log_level": 3,  # errors only: lower levels repeat each reconnect while a broker is away
        "logger": log,
        **_security(settings),
    }


def consumer_options(settings: RuntimeSettings, group: str, fetch: FetchProfile) -> Options:
    """Options of a consumer with manual assignment; the group only holds committed offsets for lag tools."""
    min_bytes, max_wait_ms = FETCH[fetch]
    return admin_options(settings) | {
        "group.id": group,
        "group.protocol": "classic",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_uncommitted",
        "check.crcs": True,
        "fetch.min.bytes": min_bytes,
        "fetch.wait.max.ms": max_wait_ms,
        "fetch.max.bytes": 16_777_216,
        "max.partition.fetch.bytes": 2 * MAX_MESSAGE_BYTES,
        "message.max.bytes": 2 * MAX_MESSAGE_BYTES,
        "fetch.queue.backoff.ms": 20,
        "fetch.error.backoff.ms": 100,
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 32_768,
    }


def producer_options(settings: RuntimeSettings, linger_ms: int, delivery_timeout_s: float) -> Options:
    """Options of an idempotent producer; `delivery_timeout_s` bounds every attempt and its retries together."""
    return admin_options(settings) | {
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": False,
        "max.in.flight.requests.per.connection": 5,
        "message.send.max.retries": 2_147_483_647,
        "message.timeout.ms": round(delivery_timeout_s * 1000),
        "request.timeout.ms": 10_000,
        "compression.type": "lz4",
        "compression.level": -1,
        "linger.ms": linger_ms,
        "batch.num.messages": 10_000,
        "batch.size": 1_000_000,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 131_072,
        "queue.buffering.backpressure.threshold": 1,
        "delivery.report.only.error": False,
    }


def _security(settings: RuntimeSettings) -> Options:
    if settings.profile != "dev_full":
        return {"security.protocol": "PLAINTEXT"}
    if settings.msk_region is None:
        raise Unavailable("profile dev_full reaches Kafka through MSK IAM, and msk_region is not set")
    from fp_runtime.msk import tokens_of  # boto costs 0.2 s of start-up that only MSK needs

    tokens = tokens_of(settings.msk_region)
    tokens("")  # a missing credential shows here with its reason, not as a timeout of the client
    return {"security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER", "oauth_cb": tokens}


class FatalWatch:
    """Remembers the first fatal error that a client reports in the background, and logs the others."""

    def __init__(self) -> None:
        self._reason = ""

    def see(self, error: KafkaError) -> None:
        """`error_cb` of the client; also fed with errors of delivery reports."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._reason = self._reason or str(error)
        elif error.code() == KafkaError._AUTHENTICATION:
            log.error("kafka authentication: %s", error)
        else:
            log.info("kafka client: %s", error)  # it retries by itself; deadlines decide

    def check(self) -> None:
        """Raise BusBroken after a fatal error."""
        if self._reason:
            raise BusBroken(self._reason)
