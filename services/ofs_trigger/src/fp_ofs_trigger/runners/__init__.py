"""Where learning jobs run: one protocol; `local` (a process here), `databricks` and `sagemaker`.

A runner blocks its thread until the job has ended and never raises for a job that fails: every end is a value.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fp_contracts.learning import Limits, Outcome

# 143: the job was told to end by somebody else and ended clean.
EXIT: Mapping[int, Outcome] = {0: "DONE", 2: "USAGE", 3: "BLOCKED", 4: "UNAVAILABLE", 143: "KILLED"}
LOG_BYTES = 65_536
_NAME = re.compile(r"[0-9a-f]{64}")


class Job(NamedTuple):
    """One job. `request_id` (hex64) is the idempotency key, `module` the job's package, `out_url` its store.

    `failpoints`: what its process arms, for a drill; a runner that cannot hand them over runs it without.
    """

    request_id: str
    module: str
    request: bytes
    out_url: str
    limits: Limits
    failpoints: str = ""


class Progress(NamedTuple):
    """One line of progress: done of total in a named stage."""

    stage: str
    done: int
    total: int


class Ended(NamedTuple):
    """How a job ended. `result` is the document of its last line; `log` the end of what it said, at most 64 kB."""

    outcome: Outcome
    reason: str
    result: Mapping[str, Any] | None
    log: bytes
    ref: str
    usage: Mapping[str, int]


class Runner(Protocol):
    """Runs jobs somewhere. The same `request_id` twice gives the running or the ended job, never a second one."""

    name: str

    def run(self, job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        """Run to the end; `cancelled` is asked at least once a second. ValueError for a malformed request id."""
        ...


def check_id(request_id: str) -> str:
    """The id itself; ValueError unless it is hex64: it names folders and remote runs."""
    if not _NAME.fullmatch(request_id):
        raise ValueError(f"request id {request_id[:80]!r} is not hex64")
    return request_id


def concluded(code: int, result: Mapping[str, Any] | None, log: bytes, ref: str, usage: Mapping[str, int]) -> Ended:
    """What an exit code and a last line mean together: a job that says it is done must bring its result."""
    outcome = EXIT.get(code, "KILLED" if code < 0 else "FAILED")
    reason = "" if outcome == "DONE" else f"exit {code}" if code >= 0 else f"signal {-code}"
    if outcome in ("DONE", "BLOCKED") and result is None:
        return Ended("FAILED", f"{reason or 'exit 0'} without a result", None, log, ref, usage)
    return Ended(outcome, reason, result if outcome in ("DONE", "BLOCKED") else None, log, ref, usage)
