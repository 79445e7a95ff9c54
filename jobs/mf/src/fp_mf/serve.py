"""The model behind HTTP: GET /ping, POST /invocations; the scores are the trainer's, bit for bit.

Bodies of /invocations: `application/json` {"rows": [[…], …]}, `text/csv` with a row a line, or
`application/x-fp-float64`: packed little-endian float64, features in schema order. Numbers in JSON and CSV are read
and written so that the same bits come back. Errors are problem+json.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fp_contracts.bundle import MANIFEST_FILE, BundleManifest
from fp_mf.openapi import PACKED, describe
from fp_models import Bundle, NotFinite, action_of, load_folder
from fp_models.model import Matrix
from fp_runtime.errors import UserError
from fp_runtime.listener import Listener
from fp_runtime.problem import on_http, problem

BODY_LIMIT = 16 * 1_048_576
_TURN_S = 0.2


class Refused(Exception):
    """The request gets this status and sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def open_bundle(folder: Path) -> Bundle:
    """The bundle in a folder, for the features that it names itself; UserError, BundleBroken."""
    try:
        manifest = BundleManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"bundle {folder}", f"no readable {MANIFEST_FILE}", "name the folder of a bundle") from error
    return load_folder(folder, schema_digest=manifest.feature_schema_digest)


def build(bundle: Bundle) -> Starlette:
    """The ASGI application that scores with this bundle."""

    async def ping(_: Request) -> Response:
        return _json({"bundle_id": bundle.manifest.bundle_id})

    async def invocations(request: Request) -> Response:
        try:
            matrix = _matrix(bundle, request.headers.get("content-type", ""), await _body(request))
            return _json(await run_in_threadpool(_answer, bundle, matrix))
        except Refused as refused:
            return problem(refused.status, "NOT_SCORED", refused.detail)

    async def openapi(_: Request) -> Response:
        return _json(described)

    described = describe(len(bundle.manifest.feature_names))
    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/invocations", invocations, methods=["POST"]),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={HTTPException: on_http},
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise Refused(413, f"more than {BODY_LIMIT} bytes")
    return bytes(body)


def _matrix(bundle: Bundle, content_type: str, body: bytes) -> Matrix:
    width = len(bundle.manifest.feature_names)
    kind = content_type.partition(";")[0].strip().lower()
    try:
        match kind:
            case "application/json":
                rows = orjson.loads(body)["rows"]
            case "text/csv":
                rows = [[float(cell) for cell in line.split(",")] for line in body.decode().splitlines()]
            case _ if kind == PACKED:
                return np.frombuffer(body, "<f8").reshape(-1, width).astype(np.float64)
            case _:
                raise Refused(415, f"send application/json, text/csv or {PACKED}")
        if not all(type(cell) in (int, float) for row in rows for cell in row):
            raise Refused(422, "a cell is no number")
        return np.array(rows, np.float64).reshape(len(rows), width)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise Refused(422, f"not rows of {width} numbers") from error


def _answer(bundle: Bundle, matrix: Matrix) -> dict[str, Any]:
    try:
        scores = bundle.score(matrix).tolist()
    except NotFinite as error:
        raise Refused(422, str(error)) from error
    return {
        "bundle_id": bundle.manifest.bundle_id,
        "model_digest": bundle.manifest.model_digest,
        "scores": scores,
        "actions": [action_of(score, bundle.manifest.thresholds) for score in scores],
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def run(folder: Path, host: str, port: int, stop: threading.Event) -> int:
    """Serve until asked to stop; Unavailable when the server ends by itself."""
    listener = Listener(build(open_bundle(folder)), host, port)
    while not stop.wait(_TURN_S):
        listener.check()
    listener.close()
    return 0
