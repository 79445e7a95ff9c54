"""The OpenAPI document of the embedded actuator."""

from fp_runtime.openapi import OBJECT, Doc, document, json_answer, own_path, problems

_ACTION: Doc = {
    "type": "object",
    "required": ["idempotency_key", "kind", "flow_id"],
    "properties": {
        "idempotency_key": {"type": "string", "minLength": 1},
        "kind": {"type": "string"},
        "flow_id": {"type": "string"},
    },
}
_ACTIONS: Doc = {
    "type": "object",
    "required": ["actions"],
    "properties": {"actions": {"type": "array", "items": _ACTION}},
}
_RESULT: Doc = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": [200, 409, 422]}, "first": {"type": "boolean"}, "code": {"type": "string"}},
}
_RESULTS: Doc = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array", "items": _RESULT}},
}
_TOTALS: Doc = {
    "type": "object",
    "required": ["effects", "repeats"],
    "properties": {"effects": {"type": "integer"}, "repeats": {"type": "integer"}},
}

DOCUMENT = document(
    "Embedded actuator",
    {
        "/v1/actions": {
            "post": {
                "operationId": "act",
                "summary": "Carry out each action once per key; a result per action, in order",
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ACTIONS}}},
                "responses": {"200": json_answer("A result per action", _RESULTS), **problems("422")},
            }
        },
        "/v1/effects": {"get": {"operationId": "effects", "responses": {"200": json_answer("Totals", _TOTALS)}}},
        "/livez": {"get": {"operationId": "livez", "responses": {"200": json_answer("Yes", OBJECT)}}},
        **own_path(),
    },
)
