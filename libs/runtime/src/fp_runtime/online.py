"""The online copy in Redis: written behind the checkpoint, never read on the decision path (decisions.md).

Entries of one kind live in packed hashes `fp:{run}:{kind}:{bucket}`, field = entity, value = bytes the writer packed.
"""

import threading
import time
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple
from zlib import crc32

import redis

from fp_runtime.errors import Unavailable

BUCKETS = 64
TTL_S = 7 * 86_400
_MAX_HELD = 50_000
_BATCH = 2_000
_TIMEOUT_S = 1.0
_DOWN_PAUSE_S = 1.0
_CLOSE_WAIT_S = 10.0


class Counts(NamedTuple):
    """Entries of this process: written, dropped (server down or queue full), and still held."""

    written: int
    dropped: int
    held: int


class Difference(NamedTuple):
    """Online copy against the checkpointed truth: entities that are missing, extra, or hold other bytes."""

    missing: int
    extra: int
    other: int


def bucket_key(run: str, kind: str, entity: str) -> str:
    """The hash in which an entity's entry lives."""
    return f"fp:{run}:{kind}:{crc32(entity.encode()) % BUCKETS}"


class OnlineWriter:
    """Takes entries without waiting and writes them from its own thread; when Redis is down it drops and counts."""

    def __init__(self, url: str) -> None:
        self._redis = _client(url)
        self._held: dict[tuple[str, str, str], bytes] = {}
        self._written = self._dropped = self._in_flight = 0
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="online", daemon=True)
        self._thread.start()

    def put(self, run: str, kind: str, entries: Mapping[str, bytes]) -> None:
        """Hand entries over; the newest value of an entity wins. Never raises, never waits for Redis."""
        with self._change:
            room = _MAX_HELD - len(self._held)
            if len(entries) > room:
                self._dropped += len(entries)
                return
            for entity, value in entries.items():
                self._held[(run, kind, entity)] = value
            self._change.notify_all()

    def counts(self) -> Counts:
        """What became of the entries so far."""
        with self._change:
            return Counts(self._written, self._dropped, len(self._held) + self._in_flight)

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is held; False when the time ran out. Before a comparison."""
        with self._change:
            return self._change.wait_for(lambda: not self._held and not self._in_flight, timeout_s)

    def close(self) -> None:
        """Write what is held, once, and stop."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(_CLOSE_WAIT_S)
        self._redis.close()

    def _run(self) -> None:
        quiet_until = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._held) or self._closing)
                batch = dict(islice(self._held.items(), _BATCH))
                for entry in batch:
                    del self._held[entry]
                self._in_flight = len(batch)
                last = self._closing and not self._held
            ok = time.monotonic() >= quiet_until and self._write(batch)
            if not ok:
                quiet_until = max(quiet_until, time.monotonic() + _DOWN_PAUSE_S)
            with self._change:
                self._in_flight = 0
                self._written += len(batch) if ok else 0
                self._dropped += 0 if ok else len(batch)
                self._change.notify_all()
            if last:
                return

    def _write(self, batch: Mapping[tuple[str, str, str], bytes]) -> bool:
        hashes: dict[str, list[str | bytes]] = {}
        for (run, kind, entity), value in batch.items():
            hashes.setdefault(bucket_key(run, kind, entity), []).extend((entity, value))
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for key, fields in hashes.items():
                    pipe.hset(key, items=fields)
                    pipe.expire(key, TTL_S)
                pipe.execute()
        except redis.RedisError:
            return False
        return True


class OnlineReader:
    """Reads the copy back: for P8's comparison and for looking things up, never for a decision."""

    def __init__(self, url: str) -> None:
        self._redis = _client(url)

    def get(self, run: str, kind: str, entity: str) -> bytes | None:
        """One entry, None when it is not there; Unavailable."""
        try:
            found = self._redis.hget(bucket_key(run, kind, entity), entity)
        except redis.RedisError as error:
            raise Unavailable(f"online copy: {error}") from error
        return found.encode() if isinstance(found, str) else found

    def read_all(self, run: str, kind: str) -> dict[str, bytes]:
        """Every entry of a kind; Unavailable."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for bucket in range(BUCKETS):
                    pipe.hgetall(f"fp:{run}:{kind}:{bucket}")
                pages: list[dict[bytes, bytes]] = pipe.execute()
        except redis.RedisError as error:
            raise Unavailable(f"online copy: {error}") from error
        return {entity.decode(): value for page in pages for entity, value in page.items()}

    def compare(self, run: str, kind: str, truth: Mapping[str, bytes]) -> Difference:
        """How the copy differs from `truth`; all zero = equal."""
        copy = self.read_all(run, kind)
        shared = truth.keys() & copy.keys()
        other = sum(1 for entity in shared if truth[entity] != copy[entity])
        return Difference(len(truth) - len(shared), len(copy) - len(shared), other)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
