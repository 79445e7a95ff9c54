"""Parts that the OpenAPI documents of the HTTP surfaces share: problems (RFC 9457), health, itself."""

from collections.abc import Iterable
from typing import Any

Doc = dict[str, Any]
OBJECT: Doc = {"type": "object"}
_PROBLEM_FIELDS = {"type": "string", "title": "string", "status": "integer", "code": "string", "detail": "string"}
_PROBLEM_SCHEMA: Doc = {
    "type": "object",
    "required": list(_PROBLEM_FIELDS),
    "properties": {name: {"type": kind} for name, kind in _PROBLEM_FIELDS.items()},
}
PROBLEM: Doc = {
    "description": "Problem details (RFC 9457) with a stable code; nothing was done",
    "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}},
}
BEARER: Doc = {"securitySchemes": {"producer": {"type": "http", "scheme": "bearer"}}}


def json_answer(description: str, schema: Doc) -> Doc:
    """A response with a JSON body."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def classes_answer(description: str, classes: Iterable[str]) -> Doc:
    """The first class of every line, as [class, id or reason]."""
    # Not prefixItems: schemathesis 4.32 rewrites it to a form that it then refuses.
    pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    pair["contains"] = {"enum": sorted(classes)}
    found = {"classes": {"type": "array", "items": pair}}
    return json_answer(description, {"type": "object", "required": ["classes"], "properties": found})


def problems(*statuses: str) -> Doc:
    """These statuses answered with a problem."""
    return dict.fromkeys(statuses, PROBLEM)


def header(name: str, text: str, schema: Doc) -> Doc:
    """An optional request header."""
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


def query(name: str, text: str, schema: Doc) -> Doc:
    """An optional parameter behind the path."""
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def health_paths() -> Doc:
    """`/livez` and `/readyz` of fp_runtime.health, and `/openapi.json`."""
    answers = {"200": json_answer("Yes", OBJECT), "503": json_answer("No", OBJECT)}
    return {
        "/livez": {"get": {"operationId": "livez", "responses": answers}},
        "/readyz": {"get": {"operationId": "readyz", "responses": answers}},
        **own_path(),
    }


def own_path() -> Doc:
    """`/openapi.json`."""
    return {"/openapi.json": {"get": {"operationId": "openapi", "responses": {"200": json_answer("This", OBJECT)}}}}


def document(title: str, paths: Doc, components: Doc | None = None) -> Doc:
    """The whole document."""
    info = {"title": title, "version": "1.0.0"}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components or {}}
