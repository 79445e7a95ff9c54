"""How a training can end early: blocked for a reason, or cancelled."""

from typing import NoReturn

FAILED = "DFULL-RUN-B14"
QUALITY = "DFULL-RUN-B14.1"


class Blocked(Exception):
    """The training cannot give a candidate. `code` is a blocker of P14, `reason` a line a person can act on."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Cancelled(Exception):
    """Someone asked the job to stop."""


def fail(reason: str) -> NoReturn:
    """Block with B14: the training or its evaluation could not be done."""
    raise Blocked(FAILED, reason)
