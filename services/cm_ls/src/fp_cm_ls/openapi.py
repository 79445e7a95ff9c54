"""The OpenAPI document of the adjudication endpoint."""

from fp_cm_ls.reading import LISTED, MOST_LISTED
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
    query,
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
_CASES: Doc = {
    "type": "object",
    "required": ["cases", "next"],
    "properties": {
        "cases": {"type": "array", "items": _CASE, "maxItems": MOST_LISTED},
        "next": {"type": ["string", "null"], "description": "`after` of the next page; null at the end"},
    },
}
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
        **problems("400", "401", "403", "408", "409", "413", "429", "503"),
    },
}
_AFTER = query("after", "The page begins behind this case id", {"type": "string", "pattern": "^[ -~]*$"})
_LIMIT = query(
    "limit",
    "How many cases the page may have",
    {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": LISTED},
)
_LIST: Doc = {
    "operationId": "cases",
    "summary": "Cases by id, page by page: each that was there at the first page comes once",
    "security": _READS_CASES,
    "parameters": [_RUN, _AFTER, _LIMIT],
    "responses": {"200": json_answer("One page", _CASES), **problems("400", "401", "403", "429", "503")},
}
_ONE: Doc = {
    "operationId": "case",
    "security": _READS_CASES,
    "parameters": [_RUN, {"name": "case_id", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {
        "200": json_answer("The case with its timeline", _CASE),
        **problems("401", "403", "404", "429", "503"),
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
