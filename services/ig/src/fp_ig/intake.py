"""Batches between the HTTP side and the writer: bounded, in order per lane, answered once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from fp_ig.lines import Admissible, Quarantined
from fp_runtime.problem import Problem

MAX_WAITING = 64
MAX_GROUP = 16
EXPECT_S = 0.02  # no take waits longer for requests that are being read
LATELY_S = 0.2  # and it waits for those alone that began within this time: one that has stopped holds up few takes


@dataclass(frozen=True, slots=True)
class Classes:
    """200: every line has its first class, in line order: [class, receipt id or reason]."""

    classes: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Unknown:
    """202: claimed, and not yet known to be published: send the same batch again."""


Answer = Classes | Unknown | Problem


@dataclass(slots=True, eq=False)
class Batch:
    """Lines first_seq, first_seq + 1, … of a lane under one principal; none = a watermark round."""

    lane: int
    first_seq: int
    lines: Sequence[Admissible | Quarantined]
    frontier_us: int
    principal: str
    answer: "Future[Answer]" = field(default_factory=Future)


class Intake:
    """Waiting batches. `offer` from any thread, `take` from the writer's."""

    def __init__(self, max_waiting: int = MAX_WAITING, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_waiting = max_waiting
        self._clock = clock
        self._waiting: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._reading: dict[object, float] = {}  # when each began, in this order

    @property
    def expected(self) -> int:
        """Requests that are being read."""
        return len(self._reading)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While a request is read: `take` waits a little for what it brings."""
        request = object()
        with self._changed:
            self._reading[request] = self._clock()
        try:
            yield
        finally:
            with self._changed:
                del self._reading[request]
                self._changed.notify()

    def offer(self, batch: Batch) -> bool:
        """Queue a batch; False when too many wait."""
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                return False
            self._waiting.append(batch)
            self._changed.notify()
            return True

    def take(self, timeout_s: float, gather: int = 1, gather_s: float = 0.0) -> list[Batch]:
        """Up to MAX_GROUP batches of different lanes, oldest first. Waits for the first, then `gather_s` for `gather`,
        and on while requests are being read: lanes that send together are one claim and one produce.

        Each is begun: from here its sender can no longer withdraw it.
        """
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._waiting), timeout_s):
                self._changed.wait_for(lambda: len(self._waiting) >= gather, gather_s)
                self._changed.wait_for(lambda: len(self._waiting) >= gather or not self._more_comes(), EXPECT_S)
            taken: dict[int, Batch] = {}
            rest: deque[Batch] = deque()
            for batch in self._waiting:
                if batch.lane in taken or len(taken) == MAX_GROUP:
                    rest.append(batch)
                elif batch.answer.set_running_or_notify_cancel():
                    taken[batch.lane] = batch
            self._waiting = rest
            return list(taken.values())

    def _more_comes(self) -> bool:
        newest = next(reversed(self._reading.values()), None)
        return newest is not None and self._clock() - newest < LATELY_S

    def refuse_all(self, problem: Problem) -> None:
        """Answer everything that waits: the run is over."""
        with self._changed:
            for batch in self._waiting:
                if batch.answer.set_running_or_notify_cancel():
                    batch.answer.set_result(problem)
            self._waiting.clear()
