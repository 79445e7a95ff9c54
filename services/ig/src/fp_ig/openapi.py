"""The OpenAPI document of the ingest endpoint."""

from fp_contracts.envelope import BATCH_LIMIT, BODY_LIMIT
from fp_contracts.reasons import LineClass
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

_INTEGER: Doc = {"type": "integer", "format": "int64"}
_EVENTS: Doc = {
    "operationId": "sendEvents",
    "summary": f"Up to {BATCH_LIMIT} lines or {BODY_LIMIT} bytes of one lane; no line = a watermark round",
    "security": [{"producer": []}],
    "parameters": [
        header("Fp-Run", "Run of the credential", {"type": "string"}),
        header("Fp-Lane", "Lane of the lines = ingress partition of their merchants", _INTEGER),
        header("Fp-Lane-Seq", "Number of the first line in its lane, from 1", _INTEGER),
        header("Fp-Frontier", "Lowest order_ts (µs) that may still come in the lane after this batch", _INTEGER),
    ],
    "requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
    "responses": {
        "200": classes_answer("Class and receipt id or reason of every line", LineClass),
        "202": json_answer("Not yet known to be published: send the same batch again", OBJECT),
        **problems("400", "401", "403", "408", "409", "413", "421", "429", "500", "501", "503"),
    },
}

DOCUMENT = document("Ingest gateway", {"/v1/events": {"post": _EVENTS}, **health_paths()}, BEARER)
