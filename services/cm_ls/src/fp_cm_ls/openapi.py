"""The OpenAPI document of the adjudication endpoint."""

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_contracts.ingress import ADJUDICATION, CASE_READ
from fp_runtime.openapi import (
    BEARER,
    OBJECT,
    Doc,
    classes_answer,
    document,
    header,
    health_paths,
    json_answer,
    problems,
)

_RUN = header("Fp-Run", "Run of the credential", {"type": "string"})
# The class that a credential must grant; OpenAPI 3.1 names roles here.
_ADJUDICATES: list[Doc] = [{"producer": [ADJUDICATION]}]
_READS_CASES: list[Doc] = [{"producer": [CASE_READ]}]
_NUMBER: Doc = {"type": "integer", "format": "int64", "minimum": 0}
_CLASSES = ("ACCEPTED", "DUPLICATE", "REJECTED")
_CASE: Doc = {
    "type": "object",
    "required": ["case_id", "status", "triggers", "amount_minor", "outcomes", "labels"],
    "properties": {
        "case_id": {"type": "string"},
        "account_id": {"type": ["string", "null"]},
        "opened_us": {"type": "integer"},
        "status": {"type": "string"},
        "triggers": {"type": "integer"},
        "amount_minor": {"type": "integer"},
        "outcomes": OBJECT,
        "timeline": {"type": "array", "items": OBJECT},
    },
}
_CASES: Doc = {"type": "object", "required": ["cases"], "properties": {"cases": {"type": "array", "items": _CASE}}}
_ADJUDICATIONS: Doc = {
    "operationId": "adjudicate",
    "summary": f"Up to {BATCH_LIMIT} label assertions or {BODY_LIMIT} bytes; no line = a watermark round",
    "security": _ADJUDICATES,
    "parameters": [
        _RUN,
        header("Fp-Lane-Seq", "Number of the first line in the adjudication lane, from 1", _NUMBER),
        header("Fp-Frontier", "Lowest observed time (µs) that may still come after this batch", _NUMBER),
    ],
    "requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
    "responses": {
        "200": classes_answer("Class and assertion id or reason of every line", _CLASSES),
        "202": json_answer("Not yet known: send the same batch again", OBJECT),
        **problems("400", "401", "403", "408", "409", "413", "503"),
    },
}
_LIST: Doc = {
    "operationId": "cases",
    "security": _READS_CASES,
    "parameters": [_RUN],
    "responses": {"200": json_answer("Open cases first; at most 500", _CASES), **problems("401", "403", "503")},
}
_ONE: Doc = {
    "operationId": "case",
    "security": _READS_CASES,
    "parameters": [_RUN, {"name": "case_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {
        "200": json_answer("The case with its timeline", _CASE),
        **problems("401", "403", "404", "503"),
    },
}

DOCUMENT = document(
    "Cases and labels",
    {
        "/v1/adjudications": {"post": _ADJUDICATIONS},
        "/v1/cases": {"get": _LIST},
        "/v1/cases/{case_id}": {"get": _ONE},
        **health_paths(),
    },
    BEARER,
)
