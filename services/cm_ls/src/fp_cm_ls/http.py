"""The HTTP side of cm_ls: the external-adjudication API, cases to read, health. Errors are problem+json (RFC 9457)."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fp_cm_ls.labeldesk import LabelDesk, LaneBroken
from fp_cm_ls.openapi import DOCUMENT
from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_runtime.health import Health
from fp_runtime.problem import on_http, problem
from fp_runtime.tokens import Claims, Refusal, TokenRefused, authorize

ADJUDICATION = "adjudication"
T = TypeVar("T")
Classes = list[tuple[str, str]]


class Refused(Exception):
    """The request gets a problem."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


@dataclass(slots=True)
class Session:
    """The open run as the endpoint needs it; the desk is worked by one thread only."""

    run: str
    desk: LabelDesk
    cases: Callable[[], list[dict[str, Any]]]
    case: Callable[[str], dict[str, Any] | None]


class Door:
    """What the HTTP side shares with the main thread."""

    def __init__(self, keys: Mapping[str, bytes], health: Health, deadline_s: float) -> None:
        self.keys = keys
        self.health = health
        self.deadline_s = deadline_s
        self.session: Session | None = None
        self.failure: BaseException | None = None
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="labels")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="reading")

    def take(
        self, session: Session, first_seq: int, lines: Sequence[bytes], frontier_us: int, principal: str
    ) -> Future[Classes]:
        """Hand a batch to the desk. What ends the desk otherwise than by LaneBroken ends the process: see `failure`."""

        def work() -> Classes:
            self._still(session)
            return session.desk.take(first_seq, lines, frontier_us, principal)

        return self._watched(self._desk.submit(work))

    def read(self, session: Session, look: Callable[[], T]) -> Future[T]:
        """Look something up beside the desk, so that a long list holds up no label."""

        def work() -> T:
            self._still(session)
            return look()

        return self._watched(self._reading.submit(work))

    def shut(self) -> None:
        """No session any more: returns when nothing uses its connections."""
        self.session = None
        for pool in (self._desk, self._reading):
            pool.submit(lambda: None).result()

    def _still(self, session: Session) -> None:
        if self.session is not session or self.failure is not None:
            raise Refused(503, "NO_OPEN_RUN", "this run is no longer served here")

    def _watched(self, work: Future[T]) -> Future[T]:
        """The desk may have committed before it failed: only a restart that reads its state again may go on."""

        def ended(done: Future[T]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None and not isinstance(error, LaneBroken | Refused):
                self.failure = error

        work.add_done_callback(ended)
        return work


def build(door: Door) -> Starlette:
    """The ASGI application."""

    async def adjudications(request: Request) -> Response:
        return await _adjudications(door, request)

    async def cases(request: Request) -> Response:
        session = _session(door)
        _claims(door, session, request)
        found = await asyncio.wrap_future(door.read(session, session.cases))
        return _json(200, {"cases": found})

    async def case(request: Request) -> Response:
        session = _session(door)
        _claims(door, session, request)
        name = request.path_params["case_id"]
        # The store takes no NUL or lone surrogate, and what it refuses there would end the process.
        plain = name.isascii() and name.isprintable()
        found = await asyncio.wrap_future(door.read(session, partial(session.case, name))) if plain else None
        if found is None:
            raise Refused(404, "CASE_UNKNOWN", f"no case {name[:64]} in this run")
        return _json(200, found)

    async def livez(_: Request) -> Response:
        return _json(200 if door.health.alive() else 503, door.health.snapshot())

    async def readyz(_: Request) -> Response:
        return _json(200 if door.health.ready() else 503, door.health.snapshot())

    async def openapi(_: Request) -> Response:
        return _json(200, DOCUMENT)

    return Starlette(
        routes=[
            Route("/v1/adjudications", adjudications, methods=["POST"]),
            Route("/v1/cases", cases),
            Route("/v1/cases/{case_id}", case),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={Refused: _on_refused, HTTPException: on_http, Exception: _on_failure},
    )


async def _adjudications(door: Door, request: Request) -> Response:
    session = _session(door)
    claims = _claims(door, session, request)
    if ADJUDICATION not in claims.classes:
        raise Refused(403, Refusal.SCOPE.value, "this credential may not adjudicate")
    lines = _lines(await _body(request))
    first_seq = _number(request, "fp-lane-seq", minimum=1) if lines else 0
    work = door.take(session, first_seq, lines, _number(request, "fp-frontier"), claims.sub)
    # Not cancelled at the deadline: the batch may be under way, so its result is unknown and not "no".
    waiting = asyncio.wrap_future(work)
    done, _ = await asyncio.wait({waiting}, timeout=door.deadline_s)
    if not done:
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())
        return _json(202, {"unknown": True})
    try:
        return _json(200, {"classes": waiting.result()})
    except LaneBroken as error:
        raise Refused(409, error.code, str(error)) from error


def _session(door: Door) -> Session:
    if door.session is None or door.failure is not None:
        raise Refused(503, "NO_OPEN_RUN", "no run is open here")
    return door.session


def _claims(door: Door, session: Session, request: Request) -> Claims:
    try:
        claims = authorize(door.keys, request.headers.get("authorization"), session.run, time.time_ns() // 1_000)
        if request.headers.get("fp-run", session.run) != session.run:
            raise TokenRefused(Refusal.OTHER_RUN)
    except TokenRefused as refused:
        raise Refused(refused.status, refused.refusal.value, "this credential is not accepted here") from refused
    return claims


async def _body(request: Request) -> bytes:
    """The whole body, read no further than it may be long."""
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > BODY_LIMIT:
                raise Refused(413, "BODY_OVER_LIMIT", f"a body has at most {BODY_LIMIT} bytes: split it")
    except ClientDisconnect as gone:
        raise Refused(400, "BAD_REQUEST", "the body ended early") from gone
    return b"".join(chunks)


def _lines(body: bytes) -> list[bytes]:
    """NDJSON lines; the last may lack its newline."""
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > BATCH_LIMIT:
        raise Refused(413, "BATCH_OVER_LIMIT", f"a batch has at most {BATCH_LIMIT} lines: split it")
    return lines


def _number(request: Request, name: str, minimum: int = 0) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused(400, "BAD_REQUEST", f"header {name} is missing or no whole number")
    if int(text) < minimum:
        raise Refused(400, "BAD_REQUEST", f"header {name} is below {minimum}")
    return int(text)


def _json(status: int, value: Any) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem(error.status, error.code, error.detail)


async def _on_failure(_: Request, error: Exception) -> Response:
    """The store or the bus did not do it (or it is our bug): the process restarts and the same batch goes again."""
    return problem(503, "STORE_UNAVAILABLE", "the label store restarts; send the same batch again")
