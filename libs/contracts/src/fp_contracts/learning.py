"""Learning jobs on the bus: what ofs_trigger asks for and what comes back (learning topics, keyed by run).

A request is journaled and its bytes are an object; the bus carries the reference, so a request of any size
fits and a runner anywhere reads the same bytes.
"""

from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fp_contracts import topics
from fp_contracts.canonical import digest_of
from fp_contracts.control import Blocker, EvidenceRef
from fp_contracts.envelope import Closed, Envelope, Hex32, Hex64, Id, TimeUs
from fp_contracts.ids import h32
from fp_contracts.records import RecordError, read_envelope

DRILLED = {"P13": "fp_ofs", "P14": "fp_mf"}
"""Phases whose job a drill may kill, and the job as a drill names it."""
Outcome = Literal["DONE", "BLOCKED", "UNAVAILABLE", "USAGE", "FAILED", "TIMED_OUT", "CANCELLED", "KILLED"]


class Limits(Closed):
    """What one job may use; more ends it."""

    wall_s: int = Field(ge=1)
    cpu_s: int = Field(ge=1)
    memory_bytes: int = Field(ge=1)


class JobRequested(Closed):
    """One job for one attempt of one phase. `request_id` is the idempotency key: one id never runs twice at once."""

    request_id: Hex64
    phase: Literal["P12", "P13", "P14"]
    attempt: int = Field(ge=1)
    request: EvidenceRef
    out_url: str
    limits: Limits
    requested_by: Id
    at_us: TimeUs


class OfsRequested(JobRequested):
    """A dataset job is asked for: P12 reads only, P13 builds."""

    type: Literal["ofs_requested"] = "ofs_requested"


class MfRequested(JobRequested):
    """A training job is asked for."""

    type: Literal["mf_requested"] = "mf_requested"


class KilledRun(Closed):
    """A drill's run of a job: killed at a failpoint in the middle of its work, then started again.

    `stage`, `done`, `total`: what it had said last; `left`: objects that stand in its places since it ran, by hash;
    `started_us` to `restarted_us` and `usage` as the runner measured them.
    """

    drill_id: Hex32
    failpoint: str
    outcome: Outcome
    reason: str
    runner_ref: str
    stage: str
    done: int
    total: int
    left: tuple[EvidenceRef, ...]
    started_us: TimeUs
    killed_us: TimeUs
    restarted_us: TimeUs
    usage: dict[str, int]


class JobEnded(Closed):
    """How a job ended. `result` is the object with the last line of the job; only DONE and BLOCKED have one.

    `usage`: wall_ms, cpu_ms, peak_rss_bytes, as the runner measured them. `killed`: the run before, when a drill killed
    it.
    """

    request_id: Hex64
    phase: Literal["P12", "P13", "P14"]
    attempt: int = Field(ge=1)
    outcome: Outcome
    reason: str
    result: EvidenceRef | None
    log: EvidenceRef | None
    blockers: tuple[Blocker, ...]
    runner: str
    runner_ref: str
    started_us: TimeUs
    ended_us: TimeUs
    usage: dict[str, int]
    killed: KilledRun | None = None


class OfsEnded(JobEnded):
    """A dataset job ended."""

    type: Literal["ofs_ended"] = "ofs_ended"


class MfEnded(JobEnded):
    """A training job ended."""

    type: Literal["mf_ended"] = "mf_ended"


LearningPayload = Annotated[OfsRequested | MfRequested | OfsEnded | MfEnded, Field(discriminator="type")]
LEARNING_MODELS = (OfsRequested, MfRequested, OfsEnded, MfEnded)
TOPIC_OF = {
    "ofs_requested": topics.OFS_REQUESTS,
    "ofs_ended": topics.OFS_EVENTS,
    "mf_requested": topics.MF_REQUESTS,
    "mf_ended": topics.MF_EVENTS,
}
_ADAPTER: TypeAdapter[LearningPayload] = TypeAdapter(LearningPayload)


def request_id_of(phase: str, attempt: int, request_sha256: str) -> str:
    """hex64 of the attempt and its request: a resumed attempt runs anew, a repeated event does not."""
    return digest_of({"phase": phase, "attempt": attempt, "request": request_sha256})


def learning_event_id(platform_run_id: str, payload: LearningPayload) -> str:
    """Derived identity of a learning event: publishing again after a crash repeats it."""
    return h32("learning", platform_run_id, payload.type, payload.request_id)


def read_learning(body: bytes) -> tuple[Envelope, LearningPayload]:
    """A learning record as (Envelope, payload); RecordError when it breaks its contract."""
    envelope = read_envelope(body)
    try:
        return envelope, _ADAPTER.validate_json(orjson.dumps(envelope.payload), extra="ignore")
    except ValidationError as error:
        raise RecordError(f"{envelope.event_type[:60]}: {error.errors(include_url=False)[0]['msg']}"[:200]) from error
