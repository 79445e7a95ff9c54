"""A read-only HTTP server in daemon threads: one function from a path to an answer; every method but GET is a 405."""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """What one GET gets."""

    status: int
    kind: str
    body: bytes


class ReadOnlyServer:
    """Serves `answer` of the path as asked, query included; `port` is the one it listens on."""

    def __init__(
        self, host: str, port: int, name: str, answer: Callable[[str], Answer], headers: Mapping[str, str] | None = None
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(answer, headers or {}))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(answer: Callable[[str], Answer], headers: Mapping[str, str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            self._send(answer(self.path), headers)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """The library says 501 to a method without a function, and sends a page."""
            refused = 405 if code == 501 else code
            self.close_connection = True
            self._send(Answer(refused, "text/plain", f"{message or refused}\n".encode()), {"Allow": "GET"})

        def _send(self, found: Answer, headers: Mapping[str, str]) -> None:
            self.send_response(found.status)
            charset = "; charset=utf-8" if found.kind.startswith("text/") else ""
            self.send_header("Content-Type", found.kind + charset)
            self.send_header("Content-Length", str(len(found.body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(found.body)

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

    return Handler
