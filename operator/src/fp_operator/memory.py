"""Resident memory of everything that belongs to an environment: servers, services, their jobs, and this command."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from fp_operator.metering import Family, families
from fp_operator.stack import Supervisor, SupervisorDown

EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Resident:
    """One look. `pss_bytes` counts a shared page once over all who share it; `rss_bytes` once for each of them."""

    processes: int = 0
    pss_bytes: int = 0
    rss_bytes: int = 0


def look(folder: Path) -> Resident:
    """Memory as of now of the supervisor, all below it, and this process; nothing is read of what ends meanwhile."""
    try:
        root = Supervisor(folder).daemon_pid()
    except SupervisorDown:
        root = None
    roots = {os.getpid(), *([root] if root is not None else [])}
    found = Resident()
    for pid in below(roots, families()):
        found = with_process(found, pid)
    return found


def below(roots: set[int], family: Family) -> set[int]:
    """These processes and all they started, each once: a supervisor may have been started by this command."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += [child.pid for child in family.get(pid, ())]
    return found


def with_process(found: Resident, pid: int) -> Resident:
    """A look and one more process; one that is gone adds nothing."""
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return found
    return Resident(found.processes + 1, found.pss_bytes + memory.pss, found.rss_bytes + memory.rss)


class Peak:
    """The largest of the looks so far, one every EVERY_S at most."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_s = 0.0
        self.largest = Resident()

    def note(self, now_s: float) -> None:
        """Look if it is time."""
        if now_s >= self._next_s:
            self._next_s = now_s + EVERY_S
            self.largest = max(self.largest, look(self._folder), key=lambda seen: seen.pss_bytes)
