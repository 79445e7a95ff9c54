"""Serves the run page: `/` as it is now, `/status.json`, and read-only `/evidence/…` for its links."""

import mimetypes
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import orjson

from fp_contracts.fold import RunState
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore
from fp_verdict.page import render
from fp_verdict.reading import PageDesk
from fp_verdict.report import as_status

REFRESH_S = 5
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_WAITING = "<!doctype html><html lang=en><meta charset=utf-8><title>No run</title><p>No run yet: <code>fp run</code>."
Answer = tuple[int, str, bytes]


def answer(path: str, state: RunState | None, desk: PageDesk, store: EvidenceStore) -> Answer:
    """(status, content type, body) of one GET."""
    path = unquote(urlsplit(path).path)
    if path.startswith("/evidence/"):
        try:
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            return 200, kind, store.get(path[1:])
        except (EvidenceMissing, EvidenceKeyError):
            return 404, "text/plain", b"no such object\n"
    if path not in ("/", "/status.json"):
        return 404, "text/plain", b"try / or /status.json\n"
    if state is None:
        return (200, "text/html", _WAITING.encode()) if path == "/" else (200, "application/json", b"{}")
    report = desk.report(state)
    if path == "/":
        return 200, "text/html", render(report, "/", REFRESH_S).encode()
    return 200, "application/json", orjson.dumps(as_status(report), option=orjson.OPT_INDENT_2)


class PageServer:
    """The page in daemon threads; `port` is the one it listens on."""

    def __init__(
        self, host: str, port: int, state: Callable[[], RunState | None], desk: PageDesk, store: EvidenceStore
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    status, kind, body = answer(self.path, state(), desk, store)
                except Unavailable:
                    status, kind, body = 503, "text/plain", b"the evidence store does not answer\n"
                self.send_response(status)
                charset = "; charset=utf-8" if kind.startswith("text/") else ""
                self.send_header("Content-Type", kind + charset)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", _POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.5,), name="page", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
