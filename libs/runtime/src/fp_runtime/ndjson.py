"""What the endpoints that take lines share: credentials, bodies within limits, numbers in headers, health.

Everything here refuses by raising problem.Refused.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_runtime.health import Health
from fp_runtime.problem import Code, Refused
from fp_runtime.tokens import Claims, Refusal, TokenRefused, authorize

TOKENS_KEPT = 64
T = TypeVar("T")
_TOO_LONG = f"a body has at most {BODY_LIMIT} bytes: split it"
_TOO_MANY = f"a batch has at most {BATCH_LIMIT} lines: split it"


class Late(Exception):
    """What a request asked for was begun and has not ended: whether it will is not known."""


class Credentials:
    """The keys of an endpoint, and the signatures lately found good."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys
        self._accepted: dict[str, Claims] = {}

    def claims(self, authorization: str | None, run: str, now_us: int) -> Claims:
        """tokens.authorize, with the signatures lately found good remembered; the time and the run always count."""
        known = self._accepted.get(authorization or "")
        if known is not None and now_us < known.exp_us and known.run == run:
            return known
        claims = authorize(self._keys, authorization, run, now_us)
        if len(self._accepted) >= TOKENS_KEPT:
            self._accepted.clear()
        self._accepted[authorization or ""] = claims
        return claims

    def of(self, request: Request, run: str, scope: Collection[str]) -> Claims:
        """What the credential of a request to this run grants; it must grant one of the classes in `scope`."""
        try:
            claims = self.claims(request.headers.get("authorization"), run, time.time_ns() // 1_000)
            if request.headers.get("fp-run", run) != run:
                raise TokenRefused(Refusal.OTHER_RUN)
            if not any(granted in scope for granted in claims.classes):
                raise TokenRefused(Refusal.SCOPE)
        except TokenRefused as refused:
            raise Refused(refused.status, refused.refusal, "this credential is not accepted here") from refused
        return claims


async def read_lines(request: Request, within_s: float, line_limit: int = BODY_LIMIT) -> list[bytes]:
    """The NDJSON lines of a body, the last with or without its newline, once all of it came within `within_s`.

    A body of one line may have `line_limit` bytes.
    """
    try:
        async with asyncio.timeout(within_s):
            body = await _body(request, line_limit)
    except TimeoutError as late:
        raise Refused(408, Code.BODY_LATE, f"the body did not come within {within_s:g} s") from late
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > BATCH_LIMIT:
        raise Refused(413, Code.BATCH_OVER_LIMIT, _TOO_MANY)
    if len(lines) > 1 and len(body) > BODY_LIMIT:
        raise Refused(413, Code.BODY_OVER_LIMIT, _TOO_LONG)
    return lines


async def _body(request: Request, line_limit: int) -> bytes:
    """The whole body, read no further than it may be answered."""
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > line_limit or (size > BODY_LIMIT and any(b"\n" in part.rstrip(b"\n") for part in chunks)):
                raise Refused(413, Code.BODY_OVER_LIMIT, _TOO_LONG)
    except ClientDisconnect as gone:
        raise Refused(400, Code.BAD_REQUEST, "the body ended early") from gone
    return b"".join(chunks)


async def settled(asked: Future[T], within_s: float) -> T:
    """What came of a request; past the deadline what was not begun is withdrawn (Refused), anything else is Late."""
    waiting = asyncio.wrap_future(asked)
    done, _ = await asyncio.wait({waiting}, timeout=within_s)
    if done:
        return waiting.result()
    if asked.cancel():
        raise Refused(503, Code.NOT_CLAIMED, "the turn of this request did not come in time", retry_after_s=1)
    waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # somebody has looked at it
    raise Late


def number(request: Request, name: str, minimum: int = 0) -> int:
    """An integer that a header must hold."""
    text = request.headers.get(name, "")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise Refused(400, Code.BAD_REQUEST, f"header {name} is missing or no integer")
    if int(text) < minimum:
        raise Refused(400, Code.BAD_REQUEST, f"header {name} is below {minimum}")
    return int(text)


def reply(status: int, value: Any) -> Response:
    """A value as JSON."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def own_routes(health: Health, document: Any) -> list[Route]:
    """`/livez`, `/readyz` and `/openapi.json` of an endpoint."""

    async def livez(_: Request) -> Response:
        return reply(200 if health.alive() else 503, health.snapshot())

    async def readyz(_: Request) -> Response:
        return reply(200 if health.ready() else 503, health.snapshot())

    async def openapi(_: Request) -> Response:
        return reply(200, document)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/openapi.json", openapi)]
