"""One lane's HTTP side: one keep-alive connection, one request at a time, every reply kind named (dataflow.md §3)."""

import http.client
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import orjson

from fp_runtime.errors import UserError


class Reply(Enum):
    """What a reply asks for. AGAIN: the same batch under the same numbers."""

    CLASSED = "CLASSED"
    AGAIN = "AGAIN"
    SPLIT = "SPLIT"
    NEW_TOKEN = "NEW_TOKEN"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply; `classes` has one entry per line when CLASSED; `detail` says why otherwise."""

    reply: Reply
    classes: Sequence[Sequence[str]] = ()
    detail: str = ""
    unknown: bool = False


class Tokens(Protocol):
    """Where credentials come from; any thread."""

    def current(self) -> str:
        """A token that holds now."""
        ...

    def refused(self, token: str) -> None:
        """This one was not accepted: the next is another."""
        ...


class Sender:
    """Posts lines to one URL. No reply, a broken connection or a 5xx is AGAIN: nothing is ever given up here."""

    def __init__(self, url: str, path: str, run: str, tokens: Tokens, timeout_s: float) -> None:
        self._connect = _connector(url, timeout_s)
        self._path = path
        self._run = run
        self._tokens = tokens
        self._connection: http.client.HTTPConnection | None = None

    def post(self, lane: int, first_seq: int, lines: Sequence[bytes], frontier_us: int) -> Answer:
        """Send lines (or none: a watermark round) with the frontier that holds behind them."""
        token = self._tokens.current()
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/x-ndjson",
            "Fp-Run": self._run,
            "Fp-Lane": str(lane),
            "Fp-Lane-Seq": str(first_seq),
            "Fp-Frontier": str(frontier_us),
        }
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", self._path, b"\n".join(lines), headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(Reply.AGAIN, detail=f"no reply: {error}")
        answer = _read(response.status, body, len(lines))
        if answer.reply is Reply.NEW_TOKEN:
            self._tokens.refused(token)
        return answer

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connector(url: str, timeout_s: float) -> Callable[[], http.client.HTTPConnection]:
    """Makes connections to the server of a URL; one of https proves by its certificate who it is."""
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    match parts.scheme:
        case "http":
            return partial(http.client.HTTPConnection, host, parts.port or 80, timeout=timeout_s)
        case "https":
            context = ssl.create_default_context()
            return partial(http.client.HTTPSConnection, host, parts.port or 443, timeout=timeout_s, context=context)
        case _:
            # A bearer token goes with every request: it is sent to nobody by a guess.
            raise UserError(f"address {url!r}", "its scheme is neither http nor https", "give http://… or https://…")


def _read(status: int, body: bytes, lines: int) -> Answer:
    match status:
        case 200:
            return _classed(body, lines)
        case 202:
            return Answer(Reply.AGAIN, detail="not known yet whether it was published", unknown=True)
        case 401 | 403:
            return Answer(Reply.NEW_TOKEN, detail=_detail(body))
        case 413:
            return Answer(Reply.SPLIT, detail=_detail(body))
        case 408 | 425 | 429:
            return Answer(Reply.AGAIN, detail=_detail(body))
        case _ if status >= 500:
            return Answer(Reply.AGAIN, detail=f"{status} {_detail(body)}")
        case _:
            return Answer(Reply.REFUSED, detail=f"{status} {_detail(body)}")


def _classed(body: bytes, lines: int) -> Answer:
    """The classes, one (class, detail) per line; a reply that is none of ours says nothing about the lines."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        reply = None
    classes = reply.get("classes") if isinstance(reply, dict) else None
    if not isinstance(classes, list) or not all(isinstance(line, list) and len(line) == 2 for line in classes):
        return Answer(Reply.AGAIN, detail=f"unreadable reply: {body[:60]!r}")
    if len(classes) != lines:
        return Answer(Reply.AGAIN, detail=f"{len(classes)} classes for {lines} lines")
    return Answer(Reply.CLASSED, classes)


def _detail(body: bytes) -> str:
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:120].decode(errors="replace")
    return f"{problem.get('code')}: {problem.get('detail')}" if isinstance(problem, dict) else str(problem)[:120]
