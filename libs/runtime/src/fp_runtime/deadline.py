"""Waiting for a condition with a deadline: the only way in which this code waits."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(predicate: Callable[[], T | None], timeout_s: float, what: str, interval_s: float = 0.02) -> T:
    """The first result of `predicate` that is neither None nor False; TimeoutError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = predicate()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(interval_s)
