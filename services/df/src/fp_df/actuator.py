"""A small real actuator: executes an action once per idempotency key, in a durable store of its own.

Stands in for the issuer's systems (block a card, hold a payment, ask for a step-up). Its store is a SQLite file that
nobody else reads, so that "executed once" is shown by another party than the one who asks.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fp_df.actuator_openapi import DOCUMENT
from fp_runtime.problem import on_http, problem

KINDS = frozenset({"BLOCK_PAYMENT", "HOLD_FOR_REVIEW", "REQUEST_STEP_UP"})
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, kind TEXT NOT NULL, flow_id TEXT NOT NULL,"
    " asked INTEGER NOT NULL DEFAULT 1)"
)

_UNKNOWN = {"status": 422, "code": "ACTION_UNKNOWN"}


class Action(msgspec.Struct):
    """One action to carry out, once per key."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1)]
    kind: str
    flow_id: str


class Actions(msgspec.Struct):
    """The body of a request."""

    actions: list[Action]


_asked = msgspec.json.Decoder(Actions)


class Effects:
    """Effects by idempotency key. `asked` counts the requests, so that repeats are seen; the effect stays one."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)

    def execute(self, actions: Sequence[Action]) -> list[tuple[bool, bool]]:
        """For each (executed now or before with these facts, first time), all durable in one transaction.

        False, False = the key stands for another action.
        """
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            return [self._one(action) for action in actions]

    def _one(self, action: Action) -> tuple[bool, bool]:
        row = self._db.execute(
            "INSERT INTO effect (key, kind, flow_id) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
            " asked = asked + 1 RETURNING kind, flow_id, asked",
            (action.idempotency_key, action.kind, action.flow_id),
        ).fetchone()
        same = row[:2] == (action.kind, action.flow_id)
        return same, same and row[2] == 1

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def totals(self) -> dict[str, int]:
        """Number of effects, and of requests that repeated one."""
        with self._lock:
            row = self._db.execute("SELECT count(*), coalesce(sum(asked - 1), 0) FROM effect").fetchone()
        return {"effects": row[0], "repeats": row[1]}


def make_app(effects: Effects) -> Starlette:
    """POST /v1/actions {actions: [{idempotency_key, kind, flow_id}]}; GET /v1/effects; GET /livez."""

    async def act(request: Request) -> Response:
        try:
            actions = _asked.decode(await request.body()).actions
        except msgspec.MsgspecError as error:
            return problem(422, "ACTIONS_UNREADABLE", str(error)[:200])
        return Response(orjson.dumps({"results": _carry_out(effects, actions)}), media_type="application/json")

    async def totals(_: Request) -> JSONResponse:
        return JSONResponse(effects.totals())

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"alive": True})

    async def openapi(_: Request) -> JSONResponse:
        return JSONResponse(DOCUMENT)

    return Starlette(
        routes=[
            Route("/v1/actions", act, methods=["POST"]),
            Route("/v1/effects", totals),
            Route("/livez", alive),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={HTTPException: on_http},
    )


def _carry_out(effects: Effects, actions: Sequence[Action]) -> list[dict[str, Any]]:
    """A result per action, in order: 200, 409 for a key that stands for another action, 422 for what is no action."""
    known = [action for action in actions if action.kind in KINDS]
    done = iter(effects.execute(known) if known else ())
    return [_result(*next(done)) if action.kind in KINDS else _UNKNOWN for action in actions]


def _result(executed: bool, first: bool) -> dict[str, Any]:
    return {"status": 200, "first": first} if executed else {"status": 409, "code": "KEY_REUSED"}
