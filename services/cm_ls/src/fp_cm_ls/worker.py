"""One thread that does one thing after the other, for a bounded number of callers."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

from fp_runtime.problem import Code, Refused

T = TypeVar("T")


class Worker:
    """`ask` from any thread. What was withdrawn keeps its place until its turn: no caller can pile up work."""

    def __init__(self, name: str, max_waiting: int) -> None:
        self._room = BoundedSemaphore(max_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have work done in its turn; cancel the future to withdraw it. Refused when too many wait."""
        if not self._room.acquire(blocking=False):
            raise Refused(429, Code.OVERLOADED, "too many requests wait", retry_after_s=1)
        asked: Future[T] = Future()

        def turn() -> T:
            self._room.release()
            if not asked.set_running_or_notify_cancel():
                raise CancelledError
            return work()

        self._thread.submit(turn).add_done_callback(lambda done: _tell(asked, done))
        return asked

    def drain(self) -> None:
        """Returns when all that was asked before has had its turn."""
        self._thread.submit(lambda: None).result()


def _tell(asked: Future[T], done: Future[T]) -> None:
    if asked.cancelled():
        return
    error = done.exception()
    if error is None:
        asked.set_result(done.result())
    else:
        asked.set_exception(error)
