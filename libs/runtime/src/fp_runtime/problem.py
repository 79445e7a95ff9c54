"""Errors of the HTTP surfaces: problem+json with a stable code (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_ROUTING = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Code(StrEnum):
    """Stable codes of the endpoints that take lines; those of credentials are tokens.Refusal."""

    NO_OPEN_RUN = "NO_OPEN_RUN"
    LANE_NOT_HERE = "LANE_NOT_HERE"
    LANE_SEQ_GAP = "LANE_SEQ_GAP"
    LANE_SEQ_REUSED = "LANE_SEQ_REUSED"
    BODY_LATE = "BODY_LATE"
    BODY_OVER_LIMIT = "BODY_OVER_LIMIT"
    BATCH_OVER_LIMIT = "BATCH_OVER_LIMIT"
    BAD_REQUEST = "BAD_REQUEST"
    OVERLOADED = "OVERLOADED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    BUS_UNAVAILABLE = "BUS_UNAVAILABLE"
    UNRESOLVED = "UNRESOLVED"
    NOT_CLAIMED = "NOT_CLAIMED"
    LIVE_NOT_OPEN = "LIVE_NOT_OPEN"
    CASE_UNKNOWN = "CASE_UNKNOWN"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Problem:
    """4xx or 5xx: nothing was done by this request."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None

    def response(self) -> Response:
        """The answer that says so."""
        later = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return problem(self.status, self.code, self.detail, later)


class Refused(Exception):
    """The request gets this problem."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(status, code, detail, retry_after_s)


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that was refused; the title is the status's own."""
    body = {
        "type": f"urn:fp:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    sent = dict(headers or {})
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body), status, sent, media_type="application/problem+json")


async def on_http(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such path, no such method)."""
    assert isinstance(error, HTTPException)
    code = _ROUTING.get(error.status_code, "BAD_REQUEST")
    return problem(error.status_code, code, str(error.detail), error.headers)


async def on_refused(_: Request, error: Exception) -> Response:
    """What an endpoint refused by raising."""
    assert isinstance(error, Refused)
    return error.problem.response()
