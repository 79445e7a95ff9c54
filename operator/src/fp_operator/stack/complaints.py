"""What logs say about programs in trouble: how often each ended by itself, and its last word on it."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

RECENT_S = 600.0
_TAIL_BYTES = 65_536
_LINE_LIMIT = 200
_STAMP = "%Y-%m-%d %H:%M:%S"
_STARTED = "supervisord started with pid"
_EXITED = re.compile(r"exited: (\S+) \(.*; not expected\)")
_DETAILS = ("error", "why", "reason", "detail")


def ended_lately(supervisor_log: Path, now: float) -> Counter[str]:
    """Name -> how often a program ended unasked within the last ten minutes of this supervisor's life."""
    if not supervisor_log.is_file():
        return Counter()
    return count_ends(supervisor_log.read_text(errors="replace").splitlines(), now)


def count_ends(lines: Iterable[str], now: float) -> Counter[str]:
    """As `ended_lately`, of the lines of supervisord's log."""
    found: Counter[str] = Counter()
    for line in lines:
        if _STARTED in line:
            found.clear()
        elif (ended := _EXITED.search(line)) and now - _at(line) <= RECENT_S:
            found[ended.group(1)] += 1
    return found


def last_error(log: Path) -> str:
    """The newest line that tells an error, shortened; the last line when none does, "" for an empty log."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    told = next((text for line in reversed(lines) if (text := _error_of(line))), lines[-1] if lines else "")
    return " ".join(told.split())[:_LINE_LIMIT]


def _error_of(line: str) -> str | None:
    """The error that a line tells, None when it tells something else. Our services log JSON, servers plain text."""
    try:
        event = json.loads(line)
    except ValueError:
        return line if re.search(r"error|fatal|exception|no space", line, re.IGNORECASE) else None
    if not isinstance(event, dict) or event.get("level") not in ("error", "critical"):
        return None
    trace = str(event.get("exception") or "").strip().splitlines()
    details = [str(event[name]) for name in _DETAILS if event.get(name)] + trace[-1:]
    return ": ".join([str(event.get("event", "")), *details])


def _at(line: str) -> float:
    """Seconds of a line's time, which supervisord writes as local time; 0 for a line without one."""
    try:
        return time.mktime(time.strptime(line[:19], _STAMP))
    except ValueError:
        return 0.0
