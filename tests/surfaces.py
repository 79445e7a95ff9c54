"""HTTP surfaces on a real socket, and what schemathesis asks of each: bounded, the same examples each time."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import schemathesis
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig

from fp_runtime.deadline import until
from fp_runtime.listener import Listener

CONFIG: dict[str, Any] = {
    "seed": 7,
    "generation": {"max-examples": 12, "deterministic": True, "database": "none"},
    "checks": {"not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 501, 503]}},
}
# Lines, CSV and floats are strings to a schema: it knows neither what is wrong in them nor that no line is a round.
OPAQUE = {name: {"enabled": False} for name in ("positive_data_acceptance", "negative_data_rejection")}


@schemathesis.serializer("application/x-ndjson", "application/x-fp-float64")
def raw(_: schemathesis.SerializationContext, value: object) -> bytes:
    """Bytes as they are, anything else as text: not always whole lines or a whole number of rows."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def surface(document: dict[str, Any], opaque: bool = False) -> Any:
    """The operations of a surface, for `.parametrize()`; `opaque`: bodies are more than their schema can say."""
    checks = CONFIG["checks"] | (OPAQUE if opaque else {})
    return openapi.from_dict(document, config=SchemathesisConfig.from_dict(CONFIG | {"checks": checks}))


def validate(case: schemathesis.Case, url: str, headers: dict[str, str] | None = None) -> None:
    """Send one request; the answer is as documented, and no 5xx but 501 (not open) or 503 (not now)."""
    case.call_and_validate(base_url=url, headers=headers, timeout=20)


@contextmanager
def served(app: object) -> Iterator[str]:
    """The application on a free port of loopback, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url, listener = f"http://127.0.0.1:{port}", Listener(app, "127.0.0.1", port)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, 20, "the surface answers")
    yield url
    listener.check()
    listener.close()
