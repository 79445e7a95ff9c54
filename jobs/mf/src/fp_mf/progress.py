"""What the job says while it runs: JSON lines on standard output, the result last."""

import json
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Say nothing."""


def say(stage: str, done: int, total: int) -> None:
    """One line of progress: `done` of `total` in a named stage."""
    _line({"stage": stage, "done": done, "total": total})


def say_result(result: Any) -> None:
    """The last line."""
    _line({"result": result})


def _line(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    sys.stdout.flush()
