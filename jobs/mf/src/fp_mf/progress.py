"""What the job says while it runs, JSON lines on standard output; and where it hears that it shall stop."""

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from fp_mf.errors import Cancelled

Progress: TypeAlias = Callable[[str, int, int], None]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Say nothing."""


def speaker(stop: threading.Event, show: Progress = silent) -> Progress:
    """Says and shows each tenth of a stage; at every call the job may end by Cancelled, once `stop` is set."""
    told: dict[str, int] = {}

    def say(stage: str, done: int, total: int) -> None:
        if stop.is_set():
            raise Cancelled(stage)
        tenth = 10 * done // max(total, 1)
        if told.get(stage) != tenth:
            told[stage] = tenth
            say_line({"stage": stage, "done": done, "total": total})
            show(stage, done, total)

    return say


def say_line(document: dict[str, Any]) -> None:
    """One line on standard output."""
    sys.stdout.write(orjson.dumps(document).decode() + "\n")
    sys.stdout.flush()
