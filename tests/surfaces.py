"""What schemathesis asks of every HTTP surface: bounded, the same examples each time, nothing remembered."""

from typing import Any

import schemathesis
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig

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
