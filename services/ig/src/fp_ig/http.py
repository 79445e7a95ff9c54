"""The ingest endpoint: credentials, limits, lines; every error is problem+json with a stable code (RFC 9457)."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_ig.domain import Admission
from fp_ig.intake import Answer, Batch, Classes, Code, Intake, Problem, Unknown
from fp_ig.openapi import DOCUMENT
from fp_runtime.health import Health
from fp_runtime.problem import on_http, problem
from fp_runtime.telemetry import Metric, histogram
from fp_runtime.tokens import Claims, Refusal, TokenRefused, authorize

HARD_LIMIT = 4 * BODY_LIMIT  # bytes read at most, to tell one endless line from a batch that can be split
TOKENS_KEPT = 64
_JSON = "application/json"


class Refused(Exception):
    """The request gets this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Session:
    """The open run as the endpoint needs it."""

    run: str
    admission: Admission
    intake: Intake


class Door:
    """What the HTTP side shares with the main thread: the session of the open run, None while there is none."""

    def __init__(self, keys: Mapping[str, bytes], health: Health, deadline_s: float) -> None:
        self.keys = keys
        self.health = health
        self.deadline_s = deadline_s
        self.session: Session | None = None
        self._accepted: dict[str, Claims] = {}

    def claims(self, authorization: str | None, run: str, now_us: int) -> Claims:
        """tokens.authorize, with the signatures lately found good remembered; the time and the run always count."""
        known = self._accepted.get(authorization or "")
        if known is not None and now_us < known.exp_us and known.run == run:
            return known
        claims = authorize(self.keys, authorization, run, now_us)
        if len(self._accepted) >= TOKENS_KEPT:
            self._accepted.clear()
        self._accepted[authorization or ""] = claims
        return claims


def build(door: Door) -> Starlette:
    """The ASGI application of one gateway."""

    async def events(request: Request) -> Response:
        return await _events(door, request)

    async def livez(_: Request) -> Response:
        return _json(200 if door.health.alive() else 503, door.health.snapshot())

    async def readyz(_: Request) -> Response:
        return _json(200 if door.health.ready() else 503, door.health.snapshot())

    async def openapi(_: Request) -> Response:
        return _json(200, DOCUMENT)

    return Starlette(
        routes=[
            Route("/v1/events", events, methods=["POST"]),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={Refused: _on_refused, HTTPException: on_http, Exception: _on_failure},
    )


async def _events(door: Door, request: Request) -> Response:
    session = door.session
    if session is None:
        raise Refused(Problem(503, Code.NO_OPEN_RUN, "no run is open here", retry_after_s=1))
    claims = _authorized(door, session, request)
    with session.intake.expecting():
        batch = await _read(session, claims, request)
        if batch is None:
            return _json(200, {"classes": []})  # a credential check that changes nothing
        if not session.intake.offer(batch):
            raise Refused(Problem(429, Code.OVERLOADED, "too many batches wait", retry_after_s=1))
    began = time.monotonic()
    answer = await _wait(batch, door.deadline_s)
    histogram(Metric.INGEST_TIME).record((time.monotonic() - began) * 1_000)
    return _answered(answer)


async def _read(session: Session, claims: Claims, request: Request) -> Batch | None:
    """The batch of a request; None for one without a lane and without lines."""
    lines = _lines(await _body(request))
    if "fp-lane" not in request.headers:
        if not lines:
            return None
        raise Refused(
            Problem(501, Code.LIVE_NOT_OPEN, "events without Fp-Lane are live traffic, which is not open yet")
        )
    lane = _number(request, "fp-lane")
    read, classes = session.admission.read, frozenset(claims.classes)
    return Batch(
        lane,
        _first_seq(request, bool(lines)),
        [read(line, lane, classes) for line in lines],
        _number(request, "fp-frontier"),
        claims.sub,
    )


def _authorized(door: Door, session: Session, request: Request) -> Claims:
    try:
        claims = door.claims(request.headers.get("authorization"), session.run, time.time_ns() // 1_000)
        if request.headers.get("fp-run", session.run) != session.run:
            raise TokenRefused(Refusal.OTHER_RUN)
    except TokenRefused as refused:
        raise Refused(Problem(refused.status, refused.refusal, "this credential is not accepted here")) from refused
    return claims


async def _body(request: Request) -> bytes:
    """The whole body, read no further than it may be answered."""
    chunks, size = [], 0
    try:
        async for chunk in _chunks(request):
            chunks.append(chunk)
            size += len(chunk)
            if size > HARD_LIMIT or (size > BODY_LIMIT and any(b"\n" in part.rstrip(b"\n") for part in chunks)):
                raise Refused(Problem(413, Code.BODY_OVER_LIMIT, f"a body has at most {BODY_LIMIT} bytes: split it"))
    except ClientDisconnect as gone:
        raise Refused(Problem(400, Code.BAD_REQUEST, "the body ended early")) from gone
    return b"".join(chunks)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _lines(body: bytes) -> list[bytes]:
    """NDJSON lines; the last may lack its newline."""
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > BATCH_LIMIT:
        raise Refused(Problem(413, Code.BATCH_OVER_LIMIT, f"a batch has at most {BATCH_LIMIT} lines: split it"))
    if len(lines) > 1 and len(body) > BODY_LIMIT:
        raise Refused(Problem(413, Code.BODY_OVER_LIMIT, f"a body has at most {BODY_LIMIT} bytes: split it"))
    return lines


def _number(request: Request, name: str, minimum: int = 0) -> int:
    text = request.headers.get(name, "")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Refused(Problem(400, Code.BAD_REQUEST, f"header {name} is missing or no integer"))
    if int(text) < minimum:
        raise Refused(Problem(400, Code.BAD_REQUEST, f"header {name} is below {minimum}"))
    return int(text)


def _first_seq(request: Request, has_lines: bool) -> int:
    """Number of the first line; a round may give the next one to come, or 0, or none."""
    if not has_lines and "fp-lane-seq" not in request.headers:
        return 0
    return _number(request, "fp-lane-seq", minimum=1 if has_lines else 0)


async def _wait(batch: Batch, deadline_s: float) -> Answer:
    """The writer's answer; past the deadline a batch that was not begun is withdrawn, else its result is unknown."""
    waiting = asyncio.wrap_future(batch.answer)
    done, _ = await asyncio.wait({waiting}, timeout=deadline_s)
    if done:
        return waiting.result()
    if batch.answer.cancel():
        return Problem(503, Code.NOT_CLAIMED, "the writer did not come to this batch in time", retry_after_s=1)
    return Unknown()


def _answered(answer: Answer) -> Response:
    match answer:
        case Classes():
            return _json(200, {"classes": answer.classes})
        case Unknown():
            return _json(202, {"unknown": True})
        case Problem():
            return _problem(answer)


def _json(status: int, value: Any) -> Response:
    return Response(orjson.dumps(value), status, media_type=_JSON)


def _problem(refused: Problem) -> Response:
    later = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    return problem(refused.status, refused.code, refused.detail, later)


async def _on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _problem(error.problem)


async def _on_failure(_: Request, __: Exception) -> Response:
    return _problem(Problem(500, Code.FAILED, "this gateway failed; the log says why"))
