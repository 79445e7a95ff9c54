"""The envelope every record body wears (contracts.md §2). Closed for producers, tolerant for consumers."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fp_contracts.canonical import digest_of
from fp_contracts.ids import HEX32, HEX64, RUN_ID

BODY_LIMIT = 1_048_576
EVENT_LIMIT = 65_536
BATCH_LIMIT = 1_000
SCHEMA_VERSION = "v1"

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# What comes from outside. PostgreSQL keeps no NUL in text: one that came in would end, again and again, every service
# that stores it. Derived records repeat what was let in, so they need no rule of their own.
NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
TextId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_NUL)]
RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID.pattern}$")]
Hex32 = Annotated[str, StringConstraints(pattern=f"^{HEX32.pattern}$")]
Hex64 = Annotated[str, StringConstraints(pattern=f"^{HEX64.pattern}$")]
Timestamp = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$")
]
CURRENCY = re.compile(r"[A-Z]{3}")
Currency = Annotated[str, StringConstraints(pattern=f"^{CURRENCY.pattern}$")]
Minor = Annotated[int, Field(ge=-(2**53), le=2**53)]
TimeUs = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Closed(BaseModel):
    """A model of the contract: frozen, strict types, unknown fields refused (consumers pass extra="ignore")."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Envelope(Closed):
    """What surrounds a payload. `payload` is validated apart, by the registry entry of `event_type`."""

    event_id: TextId
    event_type: str
    schema_version: Literal["v1"]
    ts_utc: Timestamp
    platform_run_id: RunId
    scenario_run_id: Hex32
    manifest_fingerprint: Hex64
    run_config_digest: Hex64
    producer: TextId
    traceparent: Text | None = None
    payload: dict[str, Any]


def payload_hash(envelope: dict[str, Any]) -> bytes:
    """sha256 (32 bytes) over what a retry must repeat: type, version, time, scenario, world, payload (decisions.md).

    Not the producer and not the traceparent: a retry by another path stays a DUPLICATE.
    """
    return bytes.fromhex(digest_of({name: envelope[name] for name in HASHED_FIELDS}))


HASHED_FIELDS = ("event_type", "schema_version", "ts_utc", "scenario_run_id", "manifest_fingerprint", "payload")
