"""What a job says on its standard output: JSON lines of progress, and one with the result."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fp_ofs_trigger.runners import LOG_BYTES, Progress

_LINE_BYTES = 4_194_304


class JobOutput:
    """Takes lines as they come; keeps the last result and the end of the log. One thread at a time."""

    def __init__(self, progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._log: deque[bytes] = deque()
        self._kept = 0
        self.result: Mapping[str, Any] | None = None

    def take(self, line: bytes) -> None:
        """One line of either stream; what is neither progress nor a result is log."""
        document = _document(line)
        if "result" in document and isinstance(document["result"], dict):
            self.result = document["result"]
            return
        progress = _progress(document)
        if progress is not None:
            self._progress(progress)
            return
        self.note(line)

    def note(self, line: bytes) -> None:
        """Keep a line of log; the oldest go when there is too much."""
        line = line.rstrip(b"\n")[:LOG_BYTES]
        self._log.append(line)
        self._kept += len(line) + 1
        while self._kept > LOG_BYTES:
            self._kept -= len(self._log.popleft()) + 1

    def log(self) -> bytes:
        """The end of the log."""
        return b"\n".join(tuple(self._log))


def _document(line: bytes) -> dict[str, Any]:
    if not line.startswith(b"{") or len(line) > _LINE_BYTES:
        return {}
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _progress(document: Mapping[str, Any]) -> Progress | None:
    match document:
        case {"stage": str(stage), "done": int(done), "total": int(total)}:
            return Progress(stage[:60], done, total)
        case _:
            return None
