"""Reason codes: the closed vocabularies of refusals, degradations and decisions."""

from enum import StrEnum


class LineClass(StrEnum):
    """The one terminal class of an ingress line: sent = admitted + duplicate + quarantined."""

    ADMITTED = "ADMITTED"
    DUPLICATE = "DUPLICATE"
    QUARANTINED = "QUARANTINED"


class Quarantine(StrEnum):
    """Why a line or record was set aside, with its bytes kept (but for PAN_REFUSED: only their hash)."""

    NOT_JSON = "NOT_JSON"
    NOT_CANONICAL = "NOT_CANONICAL"
    SCHEMA_BROKEN = "SCHEMA_BROKEN"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    UNKNOWN_VERSION = "UNKNOWN_VERSION"
    PIN_MISMATCH = "PIN_MISMATCH"
    TRUTH_FIELD = "TRUTH_FIELD"
    PAN_REFUSED = "PAN_REFUSED"
    PAYLOAD_HASH_MISMATCH = "PAYLOAD_HASH_MISMATCH"
    PRINCIPAL_MISMATCH = "PRINCIPAL_MISMATCH"
    CLASS_NOT_ALLOWED = "CLASS_NOT_ALLOWED"
    WRONG_LANE = "WRONG_LANE"
    OVER_LIMIT = "OVER_LIMIT"
    TS_IN_FUTURE = "TS_IN_FUTURE"
    FLOW_REBIND = "FLOW_REBIND"
    UNDECODABLE = "UNDECODABLE"
    CONTRACT_BROKEN = "CONTRACT_BROKEN"


class JoinStatus(StrEnum):
    """Whether a snapshot had all its parts."""

    READY = "READY"
    DEGRADED = "DEGRADED"


class Degrade(StrEnum):
    """Why a snapshot or a decision is degraded: always explicit (law 8).

    MODEL_MISSING: none is active. MODEL_UNUSABLE: the active one cannot serve. MODEL_FALLBACK: its named fallback
    decides. MODEL_ERRORED: it has no score for this payment.
    """

    JOIN_TIMEOUT = "JOIN_TIMEOUT"
    WINDOW_END = "WINDOW_END"
    FLOW_REBIND = "FLOW_REBIND"
    MODEL_MISSING = "MODEL_MISSING"
    MODEL_UNUSABLE = "MODEL_UNUSABLE"
    MODEL_FALLBACK = "MODEL_FALLBACK"
    MODEL_ERRORED = "MODEL_ERRORED"
    RULE_ERRORED = "RULE_ERRORED"


SCHEMA_MISMATCH = "FEATURE_SCHEMA_MISMATCH"
"""The one reason of a decision that failed closed: its snapshot has another feature schema, no bundle is asked."""


class Unscored(StrEnum):
    """Why a challenger has no score in a decision; never a reason of the decision itself."""

    CHALLENGER_ERRORED = "CHALLENGER_ERRORED"
    CHALLENGER_UNUSABLE = "CHALLENGER_UNUSABLE"


class Action(StrEnum):
    """What a decision asks for."""

    ALLOW = "ALLOW"
    STEP_UP = "STEP_UP"
    REVIEW = "REVIEW"
    BLOCK = "BLOCK"


class Posture(StrEnum):
    """In what state the decision was made."""

    NORMAL = "NORMAL"
    DEGRADED_CONTEXT = "DEGRADED_CONTEXT"
    GUARDRAILS_ONLY = "GUARDRAILS_ONLY"
    FAIL_CLOSED = "FAIL_CLOSED"


class OutcomeStatus(StrEnum):
    """How an intent ended; denial is an outcome."""

    EXECUTED = "EXECUTED"
    DENIED = "DENIED"
    FAILED = "FAILED"
    UNCERTAIN = "UNCERTAIN"
