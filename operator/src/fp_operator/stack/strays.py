"""Processes of a stack whose supervisor is gone: found by the mark in their environment, and ended."""

from pathlib import Path

import psutil

from fp_operator.stack.tether import MARK

_GRACE_S = 10


def strays(state_dir: Path) -> list[psutil.Process]:
    """Living processes marked with this state folder; never this process or one of its parents."""
    me = psutil.Process()
    family = {me.pid, *(parent.pid for parent in me.parents())}
    return [p for p in psutil.process_iter() if p.pid not in family and _mark(p) == str(state_dir)]


def end_strays(state_dir: Path) -> int:
    """SIGTERM, after a grace time SIGKILL; returns how many there were."""
    found = strays(state_dir)
    for process in found:
        _send(process, "terminate")
        _send(process, "resume")  # a stopped one cannot hear
    _, deaf = psutil.wait_procs(found, timeout=_GRACE_S)
    for process in deaf:
        _send(process, "kill")
    psutil.wait_procs(deaf, timeout=_GRACE_S)
    return len(found)


def _mark(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mark: str | None = process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
    return mark


def _send(process: psutil.Process, order: str) -> None:
    try:
        getattr(process, order)()
    except psutil.NoSuchProcess:
        return
