"""A small real actuator: executes an action once per Idempotency-Key, in a durable store of its own.

Stands in for the issuer's systems (block a card, hold a payment, ask for a step-up). Its store is a SQLite file that
nobody else reads, so that "executed once" is shown by another party than the one who asks.
"""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

KINDS = frozenset({"BLOCK_PAYMENT", "HOLD_FOR_REVIEW", "REQUEST_STEP_UP"})
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, kind TEXT NOT NULL, flow_id TEXT NOT NULL,"
    " asked INTEGER NOT NULL DEFAULT 1)"
)


class Effects:
    """Effects by idempotency key. `asked` counts the requests, so that repeats are seen; the effect stays one."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)

    def execute(self, key: str, kind: str, flow_id: str) -> tuple[bool, bool]:
        """(executed now or before with these facts, first time). False, False = the key stands for another action."""
        with self._lock:
            self._db.execute(
                "INSERT INTO effect (key, kind, flow_id) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " asked = asked + 1",
                (key, kind, flow_id),
            )
            row = self._db.execute("SELECT kind, flow_id, asked FROM effect WHERE key = ?", (key,)).fetchone()
        same = (row[0], row[1]) == (kind, flow_id)
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
    """POST /v1/actions {kind, flow_id} with Idempotency-Key; GET /v1/effects; GET /livez."""

    async def act(request: Request) -> JSONResponse:
        key = request.headers.get("idempotency-key", "")
        kind, flow_id = _asked(await request.body())
        if not key or kind not in KINDS:
            return _problem(422, "ACTION_UNKNOWN", "an Idempotency-Key and a known kind are needed")
        executed, first = effects.execute(key, kind, flow_id)
        if not executed:
            return _problem(409, "KEY_REUSED", "this Idempotency-Key stands for another action")
        return JSONResponse({"status": "EXECUTED", "first": first})

    async def totals(_: Request) -> JSONResponse:
        return JSONResponse(effects.totals())

    async def alive(_: Request) -> JSONResponse:
        return JSONResponse({"alive": True})

    return Starlette(
        routes=[Route("/v1/actions", act, methods=["POST"]), Route("/v1/effects", totals), Route("/livez", alive)]
    )


def _asked(body: bytes) -> tuple[str, str]:
    """(kind, flow_id) of a request; empty texts when it is none."""
    try:
        asked: Any = orjson.loads(body)
        return str(asked["kind"]), str(asked["flow_id"])
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return "", ""


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")
