"""Failpoints: named places where a test or a drill stops this process. Nothing is armed unless the settings say so."""

import os
import signal
from enum import StrEnum

from fp_runtime.errors import UserError


class Failpoint(StrEnum):
    """Every place that can be armed."""

    IG_AFTER_CLAIM = "ig.after_claim"
    IG_AFTER_PRODUCE = "ig.after_produce"
    IG_AFTER_FACT = "ig.after_fact"
    IG_BEFORE_RESPONSE = "ig.before_response"
    WSP_BEFORE_SEND = "wsp.before_send"
    WSP_AFTER_SEND = "wsp.after_send"
    WSP_AFTER_CHECKPOINT = "wsp.after_checkpoint"
    RTDL_BEFORE_PUBLISH = "rtdl.before_publish"
    RTDL_AFTER_PUBLISH = "rtdl.after_publish"
    RTDL_AFTER_CHECKPOINT = "rtdl.after_checkpoint"
    ARCHIVE_BEFORE_PUT = "archive.before_put"
    ARCHIVE_AFTER_PUT = "archive.after_put"
    ARCHIVE_AFTER_ROW = "archive.after_row"
    DF_BEFORE_COMMIT = "df.before_commit"
    DF_AFTER_COMMIT = "df.after_commit"
    DF_AFTER_PUBLISH = "df.after_publish"
    DF_AFTER_FACT = "df.after_fact"
    AL_BEFORE_CALL = "al.before_call"
    AL_AFTER_CALL = "al.after_call"
    AL_AFTER_COMMIT = "al.after_commit"
    CM_LS_BEFORE_COMMIT = "cm_ls.before_commit"
    CM_LS_AFTER_COMMIT = "cm_ls.after_commit"
    CM_LS_AFTER_PUBLISH = "cm_ls.after_publish"
    SR_AFTER_HEADER = "sr.after_header"
    SR_AFTER_PUBLISH = "sr.after_publish"
    GATE_AFTER_JOURNAL = "gate.after_journal"
    GATE_AFTER_EVIDENCE = "gate.after_evidence"
    GATE_AFTER_PUBLISH = "gate.after_publish"
    TEARDOWN_AFTER_SERVICES = "teardown.after_services"
    TEARDOWN_AFTER_TOPICS = "teardown.after_topics"
    OFS_AFTER_ROWS = "ofs.after_rows"
    MF_AFTER_FIT = "mf.after_fit"


class FailpointRaised(Exception):
    """An armed failpoint of action `raise` was hit."""


_ACTIONS = ("kill", "stop", "raise")
_armed: dict[str, tuple[str, int]] = {}


def hit(name: str) -> None:
    """Pass a failpoint: nothing unless it is armed, which costs some 50 ns."""
    if _armed:
        _count_down(name)


def _count_down(name: str) -> None:
    if name not in _armed:
        return
    action, left = _armed.pop(name)
    if left > 1:
        _armed[name] = (action, left - 1)
    elif action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise FailpointRaised(name)


def arm(spec: str) -> None:
    """Arm `name:action:N[,…]`: the N-th hit from now kills (SIGKILL), stops (SIGSTOP) or raises, once; UserError."""
    for item in filter(None, spec.split(",")):
        name, action, count = (*item.split(":"), "", "")[:3]
        if name not in set(Failpoint) or action not in _ACTIONS or not count.isdigit() or int(count) < 1:
            raise UserError(f"failpoint {item!r}", "not name:action:N", f"actions {', '.join(_ACTIONS)}; N from 1")
        _armed[str(name)] = (action, int(count))


def armed() -> bool:
    """Whether anything is armed in this process and was not hit yet."""
    return bool(_armed)


def disarm() -> None:
    """Disarm everything."""
    _armed.clear()
