"""Payloads on the four ingress topics (contracts.md §3). Ids are strings, money is minor units."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from pydantic import Field

from fp_contracts import topics
from fp_contracts.envelope import Closed, Currency, Minor, Text, TextId
from fp_contracts.header import Kind


class TrafficKind(StrEnum):
    """What a traffic event says of a payment; decisions are made on AUTH_REQUEST only."""

    AUTH_REQUEST = "AUTH_REQUEST"
    AUTH_RESPONSE = "AUTH_RESPONSE"
    STEP_UP_RESULT = "STEP_UP_RESULT"
    CLEARING = "CLEARING"
    REFUND = "REFUND"
    REVERSAL = "REVERSAL"
    CHARGEBACK = "CHARGEBACK"


class Channel(StrEnum):
    """Where the card was used."""

    CARD_PRESENT = "CARD_PRESENT"
    ECOM = "ECOM"
    MOTO = "MOTO"
    ATM = "ATM"
    TRANSFER = "TRANSFER"


class ArrivalEvent(Closed):
    """A payment arrived at a merchant: the where."""

    merchant_id: TextId
    arrival_seq: int = Field(ge=1)
    channel: Channel = Field(strict=False)
    tz: Text
    is_virtual: bool
    terminal_id: TextId | None = None
    country: Text | None = None
    mcc: Text | None = None


class ArrivalEntities(Closed):
    """Who and what took part in an arrival; joins the arrival on (merchant_id, arrival_seq)."""

    merchant_id: TextId
    arrival_seq: int = Field(ge=1)
    party_id: TextId
    account_id: TextId
    instrument_id: TextId
    device_id: TextId | None = None
    ip_id: TextId | None = None
    session_id: TextId | None = None


class FlowAnchor(Closed):
    """Binds a payment flow to an arrival: the only record that may bind a flow."""

    flow_id: TextId
    merchant_id: TextId
    arrival_seq: int = Field(ge=1)
    account_id: TextId
    instrument_id: TextId
    amount_minor: Minor
    currency: Currency


class Traffic(Closed):
    """One step of a payment flow; AUTH_REQUEST asks for a decision."""

    flow_id: TextId
    merchant_id: TextId
    event_seq: int = Field(ge=1)
    kind: TrafficKind = Field(strict=False)
    amount_minor: Minor
    currency: Currency
    auth_result: Text | None = None


@dataclass(frozen=True, slots=True)
class IngressType:
    """One admitted event type: its class (scope of a credential), topic, merge rank and payload model."""

    event_type: str
    event_class: str
    topic: str
    rank: int
    model: type[Closed]


# Rank orders heads of equal order_ts (dataflow.md §2): labels 0, then these, then deadlines.
RANK_LABEL, RANK_DEADLINE = 0, 9
INGRESS_TYPES: Mapping[str, IngressType] = MappingProxyType(
    {
        kind.event_type: kind
        for kind in (
            IngressType("arrival_event", "context_arrival", topics.ARRIVAL_EVENTS, 1, ArrivalEvent),
            IngressType("arrival_entities", "context_arrival_entities", topics.ARRIVAL_ENTITIES, 2, ArrivalEntities),
            IngressType("flow_anchor", "context_flow_fraud", topics.FLOW_ANCHOR, 3, FlowAnchor),
            IngressType("traffic", "traffic_fraud", topics.TRAFFIC, 4, Traffic),
        )
    }
)
EVENT_CLASSES = tuple(kind.event_class for kind in INGRESS_TYPES.values())
# The other scopes of a credential: what cm_ls serves, each by its own. No event class opens it.
ADJUDICATION, CASE_READ = "adjudication", "case_read"

# Law 10: these columns never cross the boundary.
TRUTH_FIELDS = frozenset(
    {"is_fraud", "fraud", "fraud_scenario", "fraud_label", "label", "campaign_id", "campaign", "truth", "tx_fraud"}
)


def kind_of(event_type: str, traffic_kind: str | None) -> Kind:
    """The packed-header kind of an ingress event."""
    match event_type:
        case "arrival_event":
            return Kind.ARRIVAL_EVENT
        case "arrival_entities":
            return Kind.ARRIVAL_ENTITIES
        case "flow_anchor":
            return Kind.FLOW_ANCHOR
        case _:
            return Kind.AUTH_REQUEST if traffic_kind == "AUTH_REQUEST" else Kind.TRAFFIC_OTHER
