"""A broker that stops answering: what is in doubt is UNKNOWN, and the lookup settles it."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import pytest

from fp_contracts.topics import CONTROL, RTDL
from fp_runtime import kafka, kafka_offsets
from fp_runtime.bus import FetchProfile, Out, Producer, PublishError, PublishUnknown
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_rounds import open_rounds
from fp_runtime.settings import RuntimeSettings

pytestmark = pytest.mark.stack
TIMED_OUT = ("_MSG_TIMED_OUT", "no report by the deadline")


def _broker(bootstrap: str) -> int:
    port = int(bootstrap.rpartition(":")[2])
    listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
    pid = next((c.pid for c in listening if c.laddr and c.laddr.port == port), None)
    if pid is None:
        pytest.skip("the broker is not a process of this machine that we may stop")
    return pid


@contextmanager
def _stopped(settings: RuntimeSettings) -> Iterator[None]:
    pid = _broker(settings.kafka_bootstrap)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _out(number: int) -> Out:
    return Out(RTDL, 0, b"k", b"%d" % number, b"h")


@pytest.fixture(params=[kafka.open_producer, open_rounds], ids=["per_partition", "rounds"])
def opened(request: pytest.FixtureRequest, kafka_settings: RuntimeSettings) -> Callable[..., Producer]:
    """Either producer."""
    return partial(request.param, kafka_settings)


def test_an_outage_longer_than_the_delivery_timeout_is_unknown_and_lookup_settles_each_record(
    kafka_settings: RuntimeSettings,
    opened: Callable[..., Producer],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    producer = opened(delivery_timeout_s=1.5)
    assert producer.publish([_out(0)])[0].offset == 0
    with _stopped(kafka_settings):
        deliveries = producer.publish([_out(number) for number in range(1, 200)])
    assert {delivery.error for delivery in deliveries} == {PublishError.UNKNOWN}
    assert any(word in deliveries[0].reason for word in TIMED_OUT)
    _settles(kafka_settings, producer, 200)
    assert capfd.readouterr().err == ""
    assert len(caplog.records) < 20


def test_a_publish_deadline_before_the_delivery_timeout_is_unknown_and_the_producer_goes_on(
    kafka_settings: RuntimeSettings, opened: Callable[..., Producer]
) -> None:
    producer = opened(delivery_timeout_s=30)
    assert producer.publish([_out(0)])[0].offset == 0
    with _stopped(kafka_settings):
        deliveries = producer.publish([_out(number) for number in range(1, 200)], timeout_s=1.0)
    assert {delivery.error for delivery in deliveries} == {PublishError.UNKNOWN}
    _settles(kafka_settings, producer, 200)


def _settles(settings: RuntimeSettings, producer: Producer, count: int) -> None:
    """Resolve forward: look each record up, publish again what is not there; in the end all are there."""
    until(lambda: producer.publish([Out(CONTROL, 0, b"", b"", b"")])[0].error is None, 30, "the broker is back")
    for number in range(1, count, 40):
        value = b"%d" % number
        found = kafka.lookup(settings, RTDL, 0, 1, lambda record, value=value: record.value == value)  # type: ignore[misc]
        if found is None:
            assert producer.publish([_out(number)])[0].error is None
        assert kafka.lookup(settings, RTDL, 0, 1, lambda record, value=value: record.value == value)  # type: ignore[misc]
    producer.close()


def test_flush_raises_for_what_was_sent_without_a_callback(
    kafka_settings: RuntimeSettings, opened: Callable[..., Producer]
) -> None:
    producer = opened(delivery_timeout_s=1.5)
    producer.publish([_out(0)])
    with _stopped(kafka_settings):
        producer.send(_out(1))
        with pytest.raises(PublishUnknown):
            producer.flush(0.2)  # no report yet
        with pytest.raises(PublishUnknown, match="|".join(TIMED_OUT)):
            producer.flush(10)
    producer.close()


@pytest.mark.parametrize("fetch", [FetchProfile.CONTROL, FetchProfile.LOW_LATENCY, FetchProfile.GATHERED])
def test_a_consumer_waits_out_an_outage_and_misses_nothing(
    kafka_settings: RuntimeSettings, fetch: FetchProfile
) -> None:
    producer = kafka.open_producer(kafka_settings)
    producer.publish([_out(number) for number in range(10)])
    consumer = kafka.open_consumer(kafka_settings, "g", fetch=fetch)
    consumer.assign({(RTDL, 0): 0})
    seen: list[int] = []

    def read() -> bool:
        seen.extend(record.offset for record in consumer.poll(3, 0.2))
        return len(seen) > 0

    until(read, 20, "the first records")
    with _stopped(kafka_settings):
        for _ in range(5):
            read()
    producer.publish([_out(10)])
    until(lambda: read() and 10 in seen, 30, "the last record")
    assert seen == list(range(11))
    consumer.close()
    producer.close()


def test_a_missing_broker_is_unavailable_and_named(
    kafka_settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_offsets, "REQUEST_TIMEOUT_S", 0.5)
    nowhere = kafka_settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    consumer = kafka.open_consumer(nowhere, "g")
    with pytest.raises(Unavailable, match="offsets of"):
        consumer.ends([(RTDL, 0)])
    consumer.close()
