"""The OpenAPI document of the served model."""

from fp_runtime.openapi import Doc, document, json_answer, own_path, problems

PACKED = "application/x-fp-float64"


def _strings() -> Doc:
    return {"type": "array", "items": {"type": "string"}}


def describe(features: int) -> Doc:
    """The document of a server whose bundle takes rows of this many features."""
    row = {"type": "array", "items": {"type": "number"}, "minItems": features, "maxItems": features}
    rows = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": row}}}
    scored = {
        "type": "object",
        "required": ["bundle_id", "model_digest", "scores", "actions"],
        "properties": {
            "bundle_id": {"type": "string"},
            "model_digest": {"type": "string"},
            "scores": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
            "actions": _strings(),
        },
    }
    bundle = {"type": "object", "required": ["bundle_id"], "properties": {"bundle_id": {"type": "string"}}}
    invocations = {
        "operationId": "invocations",
        "summary": f"Scores of rows of {features} features, in schema order",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": rows},
                "text/csv": {"schema": {"type": "string"}},
                PACKED: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": json_answer("Scores and actions, in order of the rows", scored),
            **problems("413", "415", "422"),
        },
    }
    paths = {
        "/ping": {"get": {"operationId": "ping", "responses": {"200": json_answer("It serves this bundle", bundle)}}},
        "/invocations": {"post": invocations},
        **own_path(),
    }
    return document("Served model", paths)
