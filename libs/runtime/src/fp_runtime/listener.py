"""The HTTP server in a thread of its own, in the process of the one who answers."""

import asyncio
import threading
from typing import Any

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from fp_runtime.errors import Unavailable

STOP_TIMEOUT_S = 10.0


class Listener:
    """Serves an ASGI application until closed. `check` raises when it ended by itself."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._server = Server(
            app, address=host, port=port, interface=Interfaces.ASGINL, websockets=False, log_enabled=False,
            http1_settings=HTTP1Settings(keep_alive=True),
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._ended: str | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._server.serve())
            self._ended = "stopped"
        except (OSError, RuntimeError) as error:
            self._ended = str(error)

    def check(self) -> None:
        """Raise Unavailable when the server ended."""
        if self._ended is not None or not self._thread.is_alive():
            raise Unavailable(f"the HTTP server ended: {self._ended}")

    def close(self) -> None:
        """Finish the requests in flight and stop."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()
