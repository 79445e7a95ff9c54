"""The OpenAPI document of the ingest endpoint."""

from typing import Any

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_contracts.reasons import LineClass

_PROBLEM = {
    "description": "Problem details (RFC 9457) with a stable code; nothing was claimed",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_INTEGER = {"type": "integer", "format": "int64"}


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": _INTEGER}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_CLASSES = {
    "type": "object",
    "required": ["classes"],
    "properties": {
        "classes": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [{"enum": [name.value for name in LineClass]}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        }
    },
}
_HEALTH = {"200": _json("Yes", {"type": "object"}), "503": _json("No", {"type": "object"})}
_REFUSALS = ("400", "401", "403", "409", "413", "421", "429", "500", "501", "503")

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Ingest gateway", "version": "1.0.0"},
    "paths": {
        "/v1/events": {
            "post": {
                "operationId": "sendEvents",
                "summary": f"Up to {BATCH_LIMIT} lines or {BODY_LIMIT} bytes of one lane; no line = a watermark round",
                "security": [{"producer": []}],
                "parameters": [
                    {"name": "Fp-Run", "in": "header", "required": False, "schema": {"type": "string"}},
                    _header("Fp-Lane", "Lane of the lines = ingress partition of their merchants"),
                    _header("Fp-Lane-Seq", "Number of the first line in its lane, from 1"),
                    _header("Fp-Frontier", "Lowest order_ts (µs) that may still come in the lane after this batch"),
                ],
                "requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
                "responses": {
                    "200": _json("The first class of every line: [class, receipt id or reason]", _CLASSES),
                    "202": _json("Not yet known to be published: send the same batch again", {"type": "object"}),
                    **dict.fromkeys(_REFUSALS, _PROBLEM),
                },
            }
        },
        "/livez": {"get": {"operationId": "livez", "responses": _HEALTH}},
        "/readyz": {"get": {"operationId": "readyz", "responses": _HEALTH}},
        "/openapi.json": {"get": {"operationId": "openapi", "responses": {"200": _json("This", {"type": "object"})}}},
    },
    "components": {
        "securitySchemes": {"producer": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Problem": {
                "type": "object",
                "required": ["type", "title", "status", "code", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            }
        },
    },
}
