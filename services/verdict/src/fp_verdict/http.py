"""Serves the run page: `/` as it is now, `/status.json`, and read-only `/evidence/…` for its links."""

import mimetypes
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import orjson

from fp_contracts.fold import RunState
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore
from fp_runtime.readonly_http import Answer, ReadOnlyServer
from fp_verdict.openapi import DOCUMENT
from fp_verdict.page import render
from fp_verdict.reading import PageDesk
from fp_verdict.report import as_status

REFRESH_S = 5
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_WAITING = "<!doctype html><html lang=en><meta charset=utf-8><title>No run</title><p>No run yet: <code>fp run</code>."


def answer(path: str, state: RunState | None, desk: PageDesk, store: EvidenceStore) -> Answer:
    """The answer to one GET."""
    path = unquote(urlsplit(path).path)
    if path.startswith("/evidence/"):
        try:
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            return Answer(200, kind, store.get(path[1:]))
        except (EvidenceMissing, EvidenceKeyError):
            return Answer(404, "text/plain", b"no such object\n")
    if path == "/openapi.json":
        return Answer(200, "application/json", orjson.dumps(DOCUMENT))
    if path not in ("/", "/status.json"):
        return Answer(404, "text/plain", b"try / or /status.json\n")
    if state is None:
        return Answer(200, "text/html", _WAITING.encode()) if path == "/" else Answer(200, "application/json", b"{}")
    report = desk.report(state)
    if path == "/":
        return Answer(200, "text/html", render(report, "/", REFRESH_S).encode())
    return Answer(200, "application/json", orjson.dumps(as_status(report), option=orjson.OPT_INDENT_2))


def serve(
    host: str, port: int, state: Callable[[], RunState | None], desk: PageDesk, store: EvidenceStore
) -> ReadOnlyServer:
    """The page in daemon threads."""

    def get(path: str) -> Answer:
        try:
            return answer(path, state(), desk, store)
        except Unavailable:
            return Answer(503, "text/plain", b"the evidence store does not answer\n")

    return ReadOnlyServer(host, port, "page", get, _HEADERS)
