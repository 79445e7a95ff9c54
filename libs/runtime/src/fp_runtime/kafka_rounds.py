"""bus.Producer in rounds: all that waits goes to a broker as one request, and the next round when that is answered.

librdkafka sends a request per topic-partition. A stage that writes a few records to each of its many partitions then
pays the broker's cost of a request for each of them, which was most of what the broker did (ADR 14). aiokafka puts the
batches of all topic-partitions of a broker into one request and answers a batch with its base offset.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from fp_contracts.topics import MAX_MESSAGE_BYTES, TOPICS
from fp_runtime.bus import BusBroken, Delivery, Flight, Out, Producer, PublishError, physical, raise_for, raw_limit
from fp_runtime.kafka import open_producer
from fp_runtime.kafka_batches import NO_REPORT, Batch, Entry, batches_of, failure
from fp_runtime.settings import RuntimeSettings

log = logging.getLogger("fp_runtime.kafka")
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats each reconnect while a broker is away
CLOSE_TIMEOUT_S = 5.0
GRACE_S = 1.0  # a round is given up by its own deadline first, which knows why
RETRY_S = 0.2
LINGER_S = 0.001  # a turn's records and its watermarks are given one after the other
MAX_HELD = 100_000
_MAX_ROUND = 20_000
_BROKEN = (OutOfOrderSequenceNumber, InvalidProducerEpoch, ProducerFenced)

Connect = Callable[[], AIOKafkaProducer]


def open_rounds(settings: RuntimeSettings, *, delivery_timeout_s: float = 30.0) -> Producer:
    """As kafka.open_producer, for stages that write to many topic-partitions at once.

    On MSK it is that one: this client's login there is not built.
    """
    if settings.profile == "dev_full":
        return open_producer(settings, delivery_timeout_s=delivery_timeout_s)

    def connect() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap, client_id=settings.instance, acks="all",
            enable_idempotence=True, compression_type="snappy", linger_ms=0, max_batch_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=10_000, retry_backoff_ms=100, metadata_max_age_ms=300_000,
        )  # fmt: skip

    return RoundProducer(connect, settings.topic_prefix, delivery_timeout_s)


class RoundProducer:
    """bus.Producer on aiokafka. Any thread may call; rounds are worked off in order by one thread of its own.

    A round without an answer in time is UNKNOWN, and the client goes with it: nothing of it is written later than its
    sockets let it, and the next round starts with a new producer id, so that no sequence is missing in its eyes.
    """

    def __init__(self, connect: Connect, prefix: str, delivery_timeout_s: float) -> None:
        """`connect` makes an idempotent client, in the event loop that calls it; it is started here."""
        self._connect = connect
        self._timeout_s = delivery_timeout_s
        self._route = {topic: (physical(prefix, topic), raw_limit(topic)) for topic in TOPICS}
        self._client: AIOKafkaProducer | None = None
        self._waiting: list[Entry] = []
        self._held = 0
        self._changed = threading.Condition()
        self._sent_errors: list[Delivery] = []
        self._broken = ""
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._round: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="rounds", daemon=True)
        self._thread.start()
        self._pump: Future[None] = asyncio.run_coroutine_threadsafe(self._pumping(), self._loop)

    def publish(self, outs: Sequence[Out], timeout_s: float | None = None) -> list[Delivery]:
        """See bus.Producer."""
        return self.begin(outs, timeout_s).deliveries()

    def begin(self, outs: Sequence[Out], timeout_s: float | None = None) -> Flight:
        """See bus.Producer."""
        deadline = time.monotonic() + (self._timeout_s + GRACE_S if timeout_s is None else timeout_s)
        entry = Entry(outs, [NO_REPORT] * len(outs))
        if outs:
            self._enqueue(entry, deadline)
        return Flight(entry.deliveries, partial(self._settle, entry, deadline))

    def _settle(self, entry: Entry, deadline: float) -> None:
        """Wait for an entry's round; one that is late is given up, with all that waits."""
        if not entry.outs:
            return
        with self._changed:
            self._changed.wait_for(lambda: entry.done, max(0.0, deadline - time.monotonic()))
        if not entry.done:
            self._ask(self._abandon)
            with self._changed:
                self._changed.wait_for(lambda: entry.done, CLOSE_TIMEOUT_S)
        self._check()

    def send_all(self, outs: Sequence[Out]) -> None:
        """See bus.Producer."""
        if outs:
            self._enqueue(Entry(outs, [NO_REPORT] * len(outs), self._note), time.monotonic() + self._timeout_s)

    def send(self, out: Out, on_delivered: Callable[[int | None, str | None], None] | None = None) -> None:
        """See bus.Producer; `on_delivered` is called from the thread of the rounds."""

        def tell(deliveries: Sequence[Delivery]) -> None:
            assert on_delivered is not None
            on_delivered(deliveries[0].offset, deliveries[0].error)

        after = self._note if on_delivered is None else tell
        self._enqueue(Entry([out], [NO_REPORT], after), time.monotonic() + self._timeout_s)

    def flush(self, timeout_s: float) -> None:
        """See bus.Producer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, timeout_s)
            unreported, errors, self._sent_errors = self._held, self._sent_errors, []
        self._check()
        raise_for(errors, unreported)

    def close(self) -> None:
        """See bus.Producer; what has no report by then is given up and logged."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, CLOSE_TIMEOUT_S)
            unreported = self._held
        if unreported:
            log.error("closing with %d records without a report", unreported)
        self._pump.cancel()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(CLOSE_TIMEOUT_S)
        self._ask(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        self._loop.close()

    def _note(self, deliveries: Sequence[Delivery]) -> None:
        self._sent_errors += [delivery for delivery in deliveries if delivery.offset is None]

    def _check(self) -> None:
        if self._broken:
            raise BusBroken(self._broken)

    def _ask(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    def _enqueue(self, entry: Entry, deadline: float) -> None:
        """Let an entry wait for the next round; while very much waits, so does the caller."""
        self._check()
        with self._changed:
            self._changed.wait_for(lambda: self._held < MAX_HELD, max(0.0, deadline - time.monotonic()))
            self._held += len(entry.outs)
            self._waiting.append(entry)
        self._ask(self._wake.set)

    # --- in the thread of the rounds ---

    async def _pumping(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._urgent():
                await asyncio.sleep(LINGER_S)
            while entries := self._take():
                self._round = asyncio.create_task(self._work(entries))
                await asyncio.wait([self._round])
                self._report(entries)

    def _urgent(self) -> bool:
        """Whether somebody waits for an answer."""
        return any(entry.after is None for entry in self._waiting)

    def _take(self) -> list[Entry]:
        """What goes into the next round, oldest first."""
        with self._changed:
            size, n = 0, 0
            while n < len(self._waiting) and size < _MAX_ROUND:
                size += len(self._waiting[n].outs)
                n += 1
            taken, self._waiting = self._waiting[:n], self._waiting[n:]
        return taken

    def _report(self, entries: Sequence[Entry]) -> None:
        with self._changed:
            for entry in entries:
                entry.done = True
                self._held -= len(entry.outs)
                if entry.after is not None:
                    entry.after(entry.deliveries)
            self._changed.notify_all()

    def _abandon(self) -> None:
        """Give up everything: nothing may be written long after it was called UNKNOWN."""
        with self._changed:
            given_up, self._waiting = self._waiting, []
        self._report(given_up)
        if self._round is not None:
            self._round.cancel()

    async def _work(self, entries: Sequence[Entry]) -> None:
        """One round. Every record has its delivery at the end, UNKNOWN where nothing is certain."""
        deadline = time.monotonic() + self._timeout_s
        clean = False
        try:
            client = await self._started(deadline)
            if client is not None:
                clean = await self._exchange(client, batches_of(client, entries, self._route), deadline)
            else:
                _refuse(entries, "no broker could be reached")
        except Exception as error:
            log.exception("a round failed")
            self._broken = self._broken or repr(error)
        finally:
            if not clean:
                await self._drop()

    async def _started(self, deadline: float) -> AIOKafkaProducer | None:
        """The client, connected and with a producer id; None when that took too long."""
        while self._client is None:
            client = self._connect()
            try:
                await asyncio.wait_for(client.start(), max(0.0, deadline - time.monotonic()))
                self._client = client
            except (KafkaError, TimeoutError) as error:
                await _stop(client)
                if time.monotonic() + RETRY_S >= deadline:
                    log.error("kafka client: %s", error)
                    return None
                await asyncio.sleep(RETRY_S)
        return self._client

    async def _exchange(self, client: AIOKafkaProducer, batches: Sequence[Batch], deadline: float) -> bool:
        """Hand the batches over and wait for their answers; False when one has none, or a bad one.

        Nothing else runs in this loop before the last of them is there: the client sends what it has as soon as it
        runs, and the rest only once that is answered.
        """
        answers: dict[asyncio.Future[Any], Batch] = {}
        clean = True
        for batch in batches:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    handed = await client.send_batch(batch.builder, batch.topic, partition=batch.partition)
                answers[handed] = batch
            except AssertionError:  # aiokafka's word for a partition that the topic does not have
                batch.settle(Delivery(None, PublishError.FAILED, f"no partition {batch.partition} of {batch.topic}"))
            except (KafkaError, TimeoutError) as error:
                clean = self._failed(batch, error)
        if answers:
            done, _ = await asyncio.wait(answers, timeout=max(0.0, deadline - time.monotonic()))
            clean = clean and len(done) == len(answers)
            for answer in done:
                if (bad := answer.exception()) is not None:
                    clean = self._failed(answers[answer], bad)
                else:
                    answers[answer].acknowledged(answer.result().offset)
        return clean

    def _failed(self, batch: Batch, error: BaseException) -> bool:
        """Never clean: the batch had its sequences, and the next one would leave a gap behind it."""
        if isinstance(error, _BROKEN):
            self._broken = self._broken or repr(error)
        batch.settle(failure(error))
        return False

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _stop(client)

    async def _stop(self) -> None:
        if self._round is not None and not self._round.done():
            self._round.cancel()
            await asyncio.wait([self._round])
        await self._drop()


def _refuse(entries: Sequence[Entry], why: str) -> None:
    for entry in entries:
        entry.deliveries[:] = [Delivery(None, PublishError.FAILED, why)] * len(entry.outs)


async def _stop(client: AIOKafkaProducer) -> None:
    """Close the connections first: a sender that waits for a dead broker would not end."""
    client._closed = True  # its own stop() would flush
    await client.client.close()
    with suppress(asyncio.CancelledError, KafkaError, TimeoutError):
        await asyncio.wait_for(client._sender.close(), CLOSE_TIMEOUT_S / 5)
