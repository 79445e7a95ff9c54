"""The ingest endpoint: credentials, limits, lines; every error is problem+json with a stable code (RFC 9457)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fp_contracts.envelope import BODY_LIMIT
from fp_contracts.ingress import EVENT_CLASSES
from fp_ig.domain import Admission
from fp_ig.intake import Answer, Batch, Classes, Intake, Unknown
from fp_ig.openapi import DOCUMENT
from fp_runtime.health import Health
from fp_runtime.ndjson import Credentials, Late, number, own_routes, read_lines, reply, settled
from fp_runtime.problem import Code, Problem, Refused, on_http, on_refused
from fp_runtime.telemetry import Metric, histogram
from fp_runtime.tokens import Claims

HARD_LIMIT = 4 * BODY_LIMIT  # bytes read at most, to tell one endless line from a batch that can be split


@dataclass(frozen=True, slots=True)
class Session:
    """The open run as the endpoint needs it."""

    run: str
    admission: Admission
    intake: Intake


class Door:
    """What the HTTP side shares with the main thread: the session of the open run, None while there is none."""

    def __init__(self, keys: Mapping[str, bytes], health: Health, deadline_s: float, body_deadline_s: float) -> None:
        self.credentials = Credentials(keys)
        self.health = health
        self.deadline_s = deadline_s
        self.body_deadline_s = body_deadline_s
        self.session: Session | None = None


def build(door: Door) -> Starlette:
    """The ASGI application of one gateway."""

    async def events(request: Request) -> Response:
        return await _events(door, request)

    return Starlette(
        routes=[Route("/v1/events", events, methods=["POST"]), *own_routes(door.health, DOCUMENT)],
        exception_handlers={Refused: on_refused, HTTPException: on_http, Exception: _on_failure},
    )


async def _events(door: Door, request: Request) -> Response:
    session = door.session
    if session is None:
        raise Refused(503, Code.NO_OPEN_RUN, "no run is open here", retry_after_s=1)
    claims = door.credentials.of(request, session.run, EVENT_CLASSES)
    with session.intake.expecting():
        batch = await _read(door, session, claims, request)
        if batch is None:
            return reply(200, {"classes": []})  # a credential check that changes nothing
        if not session.intake.offer(batch):
            raise Refused(429, Code.OVERLOADED, "too many batches wait", retry_after_s=1)
    return _answered(await _answer(batch, door.deadline_s))


async def _read(door: Door, session: Session, claims: Claims, request: Request) -> Batch | None:
    """The batch of a request; None for one without a lane and without lines."""
    lines = await read_lines(request, door.body_deadline_s, HARD_LIMIT)
    if "fp-lane" not in request.headers:
        if not lines:
            return None
        raise Refused(501, Code.LIVE_NOT_OPEN, "events without Fp-Lane are live traffic, which is not open yet")
    lane = number(request, "fp-lane")
    read, classes = session.admission.read, frozenset(claims.classes)
    return Batch(
        lane,
        _first_seq(request, bool(lines)),
        [read(line, lane, classes) for line in lines],
        number(request, "fp-frontier"),
        claims.sub,
    )


def _first_seq(request: Request, has_lines: bool) -> int:
    """Number of the first line; a round may give the next one to come, or 0, or none."""
    if not has_lines and "fp-lane-seq" not in request.headers:
        return 0
    return number(request, "fp-lane-seq", minimum=1 if has_lines else 0)


async def _answer(batch: Batch, deadline_s: float) -> Answer:
    began = time.monotonic()
    try:
        return await settled(batch.answer, deadline_s)
    except Late:
        return Unknown()
    finally:
        histogram(Metric.INGEST_TIME).record((time.monotonic() - began) * 1_000)


def _answered(answer: Answer) -> Response:
    match answer:
        case Classes():
            return reply(200, {"classes": answer.classes})
        case Unknown():
            return reply(202, {"unknown": True})
        case Problem():
            return answer.response()


async def _on_failure(_: Request, __: Exception) -> Response:
    return Problem(500, Code.FAILED, "this gateway failed; the log says why").response()
