"""The HTTP side of cm_ls: the external-adjudication API, cases to read, health. Errors are problem+json (RFC 9457)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fp_cm_ls.labeldesk import LabelDesk, LaneBroken
from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_runtime.errors import Fenced, Unavailable
from fp_runtime.health import Health
from fp_runtime.tokens import Claims, Refusal, TokenRefused, authorize

ADJUDICATION = "adjudication"


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
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="labels")
        self.failure: BaseException | None = None


def build(door: Door) -> Starlette:
    """The ASGI application."""

    async def adjudications(request: Request) -> Response:
        return await _adjudications(door, request)

    async def cases(request: Request) -> Response:
        session = _session(door)
        _claims(door, session, request)
        found = await asyncio.get_running_loop().run_in_executor(door.worker, session.cases)
        return _json(200, {"cases": found})

    async def case(request: Request) -> Response:
        session = _session(door)
        _claims(door, session, request)
        name = request.path_params["case_id"]
        found = await asyncio.get_running_loop().run_in_executor(door.worker, session.case, name)
        if found is None:
            raise Refused(404, "CASE_UNKNOWN", f"no case {name[:64]} in this run")
        return _json(200, found)

    async def livez(_: Request) -> Response:
        return _json(200 if door.health.alive() else 503, door.health.snapshot())

    async def readyz(_: Request) -> Response:
        return _json(200 if door.health.ready() else 503, door.health.snapshot())

    return Starlette(
        routes=[
            Route("/v1/adjudications", adjudications, methods=["POST"]),
            Route("/v1/cases", cases),
            Route("/v1/cases/{case_id}", case),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        exception_handlers={Refused: _on_refused},
    )


async def _adjudications(door: Door, request: Request) -> Response:
    session = _session(door)
    claims = _claims(door, session, request)
    if ADJUDICATION not in claims.classes:
        raise Refused(403, Refusal.OTHER_RUN.value, "this credential may not adjudicate")
    lines = _lines(await request.body())
    first_seq = _number(request, "fp-lane-seq") if lines else 0
    frontier_us = _number(request, "fp-frontier")
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(door.worker, session.desk.take, first_seq, lines, frontier_us, claims.sub)
    try:
        classes = await asyncio.wait_for(asyncio.shield(work), door.deadline_s)
    except TimeoutError:
        return _json(202, {"unknown": True})
    except LaneBroken as error:
        raise Refused(409, "LANE_SEQ_GAP", str(error)) from error
    except (Unavailable, Fenced) as error:
        # The desk may have committed: only a restart that reads its state again may go on.
        door.failure = error
        raise Refused(503, "STORE_UNAVAILABLE", "the label store restarts; send the same batch again") from error
    return _json(200, {"classes": classes})


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


def _lines(body: bytes) -> list[bytes]:
    if len(body) > BODY_LIMIT:
        raise Refused(413, "BODY_OVER_LIMIT", f"a body has at most {BODY_LIMIT} bytes: split it")
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > BATCH_LIMIT:
        raise Refused(413, "BATCH_OVER_LIMIT", f"a batch has at most {BATCH_LIMIT} lines: split it")
    return lines


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused(400, "BAD_REQUEST", f"header {name} is missing or no whole number")
    return int(text)


def _json(status: int, value: Any) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


async def _on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    body = {
        "type": f"urn:fp:problem:{error.code}",
        "title": "Refused",
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
    }
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return Response(orjson.dumps(body), error.status, headers, media_type="application/problem+json")
