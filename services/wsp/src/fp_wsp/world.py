"""A sealed world: payments in event-time order, their truth apart, and the manifest that names both by hash."""

from typing import Literal, NamedTuple

from pydantic import Field

from fp_contracts.canonical import digest_of
from fp_contracts.envelope import Closed, Currency, Hex32, Hex64, TimeUs
from fp_contracts.ids import h32

MANIFEST_NAME = "manifest.json"
FINGERPRINT_FIELD = "manifest_fingerprint"

ARRIVAL_EVENT, ARRIVAL_ENTITIES, FLOW_ANCHOR = "arrival_event", "arrival_entities", "flow_anchor"
AUTH_REQUEST, AUTH_RESPONSE = "AUTH_REQUEST", "AUTH_RESPONSE"

FIRST_PART_LEAD_US = 400_000
LAST_PART_LAG_US = 600_000


class Payment(NamedTuple):
    """One row of the stream view. Money in minor units; the fields stand in the order of the parquet columns."""

    ts_us: int
    payment_id: str
    merchant_id: str
    arrival_seq: int
    account_id: str
    instrument_id: str
    device_id: str | None
    terminal_id: str | None
    amount_minor: int
    currency: str
    channel: str
    mcc: str | None
    country: str | None
    category: str | None
    auth_result: str | None


class TruthRow(NamedTuple):
    """One row of the truth view: what an outside adjudicator knows of one payment."""

    ts_us: int
    payment_id: str
    event_id: str
    merchant_id: str
    account_id: str
    is_fraud: bool
    campaign: str | None


class WorldFile(Closed):
    """One parquet file of a world, under the world's folder. Size in bytes."""

    key: str
    sha256: Hex64
    size: int = Field(ge=0)
    rows: int = Field(ge=0)


class WorldManifest(Closed):
    """What a world is. Its fingerprint is sha256 of the canonical JSON of exactly these fields; no clock in it."""

    schema_version: Literal["world.v1"] = "world.v1"
    name: str
    description: str
    licence: str
    world_id: Hex32
    source_sha256: Hex64
    mapping_digest: Hex64
    rows: int = Field(ge=1)
    frauds: int = Field(ge=0)
    merchants: int = Field(ge=1)
    accounts: int = Field(ge=1)
    first_us: TimeUs
    last_us: TimeUs
    currencies: tuple[Currency, ...]
    order: tuple[str, ...] = ("ts_us", "payment_id")
    label_policy: str
    tokenised: dict[str, int]
    dropped_duplicates: int = Field(ge=0)
    stream: tuple[WorldFile, ...]
    truth: tuple[WorldFile, ...]

    @property
    def fingerprint(self) -> str:
        """manifest_fingerprint (hex64): names the world everywhere."""
        return digest_of(self.model_dump(mode="json"))


def world_id(source_sha256: str, mapping_digest: str) -> str:
    """What every event id of a world derives from: the source's bytes and how they were read."""
    return h32("world", source_sha256, mapping_digest)


def event_id(of_world: str, payment_id: str, part: str) -> str:
    """H32(world, payment, part): the same in every run of the world (decisions.md)."""
    return h32("event", of_world, payment_id, part)


def flow_id(of_world: str, payment_id: str) -> str:
    """One payment is one flow."""
    return h32("flow", of_world, payment_id)


def whole_window(manifest: WorldManifest) -> tuple[int, int]:
    """[start, end) in µs of event time that holds every event of the world."""
    return manifest.first_us - FIRST_PART_LEAD_US, manifest.last_us + LAST_PART_LAG_US + 1
