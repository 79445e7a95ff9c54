"""Health over HTTP: `/livez` (the loop still turns), `/readyz` (named conditions hold), `/status` (all, as JSON)."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


class HealthServer:
    """Serves one Health in daemon threads; `port` is the one it listens on."""

    def __init__(self, health: Health, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(health))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    checks: dict[str, Callable[[], bool]] = {"/livez": health.alive, "/readyz": health.ready, "/status": lambda: True}

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            check = checks.get(self.path)
            status = 404 if check is None else 200 if check() else 503
            body = b"" if check is None else json.dumps(health.snapshot()).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes are not logged."""

    return Handler
