"""What a job says while it works: one JSON line per step on stdout; and how it is asked to stop."""

import threading
from collections.abc import Callable

import orjson

from fp_ofs.errors import Cancelled

_STEPS = 20


def _unseen(_stage: str, _done: int, _total: int) -> None:
    """Nobody looks."""


class Progress:
    """Tells about some twenty steps per stage; every call is a place where a cancel is heard. `show` gets the same."""

    def __init__(
        self, write: Callable[[str], object], stop: threading.Event, show: Callable[[str, int, int], None] = _unseen
    ) -> None:
        self._write = write
        self._stop = stop
        self._show = show
        self._stage = ""
        self._told = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` are done; raises Cancelled when the job was asked to stop."""
        if stage != self._stage:
            self._stage, self._told = stage, -total
        if done >= total or done - self._told >= total / _STEPS:
            self._told = done
            self._write(orjson.dumps({"stage": stage, "done": done, "total": total}).decode())
            self._show(stage, done, total)
        if self._stop.is_set():
            raise Cancelled(stage)

    def of(self, stage: str) -> Callable[[int, int], None]:
        """A tick for one stage."""
        return lambda done, total: self(stage, done, total)
