"""What ends a build early: a blocker with its code, or a cancel."""

from typing import Final

LEAKAGE: Final = "DFULL-RUN-B12"
BASIS: Final = "DFULL-RUN-B12.1"
BUILD: Final = "DFULL-RUN-B13"
MANIFEST: Final = "DFULL-RUN-B13.1"


class Blocked(Exception):
    """The build may not go on; `code` is a blocker of P12 or P13, the message the reason in plain words."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Cancelled(Exception):
    """Somebody asked this run to end; what was put so far stays and means nothing without its manifest."""
