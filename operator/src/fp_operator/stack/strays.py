"""Processes of a stack whose supervisor is gone: found by the mark in their environment, and ended."""

from pathlib import Path

import psutil

from fp_operator.stack.tether import MARK
from fp_runtime.deadline import until

_GRACE_S = 10


def strays(state_dir: Path) -> list[psutil.Process]:
    """Living processes marked with this state folder; never this process or one of its parents."""
    me = psutil.Process()
    family = {me.pid, *(parent.pid for parent in me.parents())}
    return [p for p in psutil.process_iter() if p.pid not in family and _mark(p) == str(state_dir)]


def end_strays(state_dir: Path, grace_s: float = _GRACE_S) -> None:
    """SIGTERM, after a grace time SIGKILL; returns when none is left."""
    for process in strays(state_dir):
        _send(process, "terminate")
        _send(process, "resume")  # a frozen one cannot hear
    try:
        until(lambda: not strays(state_dir), grace_s, "the stack's processes end")
    except TimeoutError:
        for process in strays(state_dir):
            _send(process, "kill")
        until(lambda: not strays(state_dir), _GRACE_S, "the stack's killed processes are gone")


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
