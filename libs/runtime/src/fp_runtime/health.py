"""Health over HTTP: `/livez` (the loop still turns), `/readyz` (named conditions hold), `/status` (all, as JSON)."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fp_runtime.openapi import OBJECT, document, health_paths, json_answer
from fp_runtime.readonly_http import Answer, ReadOnlyServer

_STATUS = {"get": {"operationId": "status", "responses": {"200": json_answer("Everything", OBJECT)}}}
DOCUMENT = document("Health of a process", {"/status": _STATUS, **health_paths()})
MAX_BEAT_AGE_S = 10.0


class Health:
    """What a process knows of itself. Written by its loop, read by the server's threads."""

    def __init__(self, instance: str, conditions: tuple[str, ...] = (), clock: Callable[[], float] = time.monotonic):
        self._instance = instance
        self._clock = clock
        self._beat_at = clock()
        self._conditions = dict.fromkeys(conditions, "not yet")
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def beat(self) -> None:
        """The loop made a turn."""
        self._beat_at = self._clock()

    def condition(self, name: str, fault: str | None) -> None:
        """A named condition holds (None) or does not (why)."""
        with self._lock:
            self._conditions[name] = fault or ""

    def number(self, name: str, value: int) -> None:
        """A number for `/status`."""
        with self._lock:
            self._numbers[name] = value

    def alive(self) -> bool:
        """Whether the loop made a turn within the last 10 s."""
        return self._clock() - self._beat_at <= MAX_BEAT_AGE_S

    def ready(self) -> bool:
        """Alive, and every condition holds."""
        with self._lock:
            return self.alive() and not any(self._conditions.values())

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON values; a condition that holds is the empty string."""
        with self._lock:
            conditions, numbers = dict(self._conditions), dict(self._numbers)
        return {
            "instance": self._instance,
            "alive": self.alive(),
            "ready": self.ready(),
            "beat_age_ms": int((self._clock() - self._beat_at) * 1000),
            "conditions": conditions,
            "numbers": numbers,
        }


def serve(health: Health, host: str = "127.0.0.1", port: int = 0) -> ReadOnlyServer:
    """The health of one process over HTTP; port 0 = a free one."""
    checks: dict[str, Callable[[], bool]] = {"/livez": health.alive, "/readyz": health.ready, "/status": lambda: True}

    def answer(path: str) -> Answer:
        if path == "/openapi.json":
            return Answer(200, "application/json", json.dumps(DOCUMENT).encode())
        if path not in checks:
            return Answer(404, "text/plain", b"try /livez, /readyz or /status\n")
        return Answer(200 if checks[path]() else 503, "application/json", json.dumps(health.snapshot()).encode())

    return ReadOnlyServer(host, port, "health", answer)
