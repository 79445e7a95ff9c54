"""R1: each recorded decision again from its recorded inputs, bit for bit (dataflow.md §8). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fp_contracts.canonical import trusted_bytes
from fp_contracts.derive import vector_bytes
from fp_contracts.reasons import Degrade
from fp_contracts.timestamps import to_us
from fp_df import domain, payloads
from fp_df.domain import SCHEMA_MISMATCH, Switch
from fp_df.snapshot import Snapshot, origin_of
from fp_features import CORE_V1, Payment, unpack

_OF_SNAPSHOT = frozenset(Degrade) - {Degrade.MODEL_MISSING, Degrade.RULE_ERRORED}


@dataclass(slots=True)
class Replay:
    """What was re-evaluated, and what came out otherwise; fingerprints and intents as recorded."""

    run: str
    switches: Sequence[Switch]
    replayed: int = 0
    unequal: int = 0
    fingerprints: dict[str, str] = field(default_factory=dict)
    """decision_id -> what R3 compares of it, recomputed."""
    actions: set[str] = field(default_factory=set)

    def take(self, body: bytes) -> None:
        """One decision as its exact published bytes: policy in force, action, reasons, intents, ids, all of it."""
        envelope = orjson.loads(body)
        recorded = envelope["payload"]
        self.replayed += 1
        self.actions.update(intent["action_id"] for intent in recorded["intents"])
        try:
            again = self._again(recorded, to_us(envelope["ts_utc"]))
        except (KeyError, TypeError, ValueError):
            self.unequal += 1
            return
        self.fingerprints[recorded["decision_id"]] = again.fingerprint
        self.unequal += again.payload.encode() != trusted_bytes(recorded)

    def _again(self, recorded: Mapping[str, Any], order_us: int) -> payloads.Rendered:
        vector = unpack(vector_bytes(recorded["feature_vector"]))
        policy = domain.policy_at(self.switches, order_us)
        decided = domain.make_decision(self.run, _inputs(recorded), vector, policy)
        at = recorded["snapshot_offset"]
        return payloads.render(decided, at["partition"], at["offset"])


def _inputs(recorded: Mapping[str, Any]) -> Snapshot:
    """What a decision says of its snapshot. Instrument and device went into the vector and are not needed again."""
    source, reasons = recorded["source_event"], recorded["reason_codes"]
    # A decision that failed closed says so; no other is made under another schema.
    digest = "" if reasons == [SCHEMA_MISMATCH] else CORE_V1.schema_digest
    payment = Payment(recorded["event_us"], recorded["amount_minor"], None, recorded["merchant_id"])
    return Snapshot(
        source["event_id"], origin_of(source["origin"]), recorded["flow_id"], recorded["account_id"], payment,
        recorded["currency"], tuple(code for code in reasons if code in _OF_SNAPSHOT), digest, (),
        recorded["snapshot_hash"],
    )  # fmt: skip
