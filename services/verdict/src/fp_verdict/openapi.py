"""The OpenAPI document of the run page."""

from fp_runtime.openapi import Doc, document, json_answer, own_path

_PHASE: Doc = {
    "type": "object",
    "required": ["phase", "state", "attempt", "checks", "blockers", "seconds", "spend_usd"],
    "properties": {"phase": {"type": "string"}, "state": {"type": "string"}, "blockers": {"type": "array"}},
}
_STATUS: Doc = {
    "type": "object",
    "description": "As `fp status --json`; empty while there is no run",
    "properties": {
        "platform_run_id": {"type": "string"},
        "verdict": {"type": ["string", "null"]},
        "spine_verdict": {"type": ["string", "null"]},
        "phases": {"type": "array", "items": _PHASE},
    },
}
_KEY: Doc = {"name": "key", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE: Doc = {"description": "The run page", "content": {"text/html": {"schema": {"type": "string"}}}}
_TEXT: Doc = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_DOWN: Doc = {"503": {"description": "The evidence store does not answer", **_TEXT}}
_OBJECT: Doc = {"description": "The object's bytes; its type goes by the key's ending", "content": {"*/*": {}}}

DOCUMENT = document(
    "Run page",
    {
        "/": {"get": {"operationId": "page", "responses": {"200": _PAGE, **_DOWN}}},
        "/status.json": {
            "get": {
                "operationId": "status",
                "responses": {"200": json_answer("The run as it is now", _STATUS), **_DOWN},
            }
        },
        "/evidence/{key}": {
            "get": {
                "operationId": "evidence",
                "parameters": [_KEY],
                "responses": {"200": _OBJECT, "404": {"description": "No such object", **_TEXT}, **_DOWN},
            }
        },
        **own_path(),
    },
)
