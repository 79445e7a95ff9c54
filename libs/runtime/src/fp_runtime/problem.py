"""Errors of the HTTP surfaces: problem+json with a stable code (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_ROUTING = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


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
