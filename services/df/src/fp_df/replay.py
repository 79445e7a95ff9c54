"""R1: each recorded decision again from its recorded inputs, bit for bit (dataflow.md §8). Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson

from fp_contracts.bundle import BundleRef
from fp_contracts.canonical import trusted_bytes
from fp_contracts.derive import vector_bytes
from fp_contracts.reasons import SCHEMA_MISMATCH, Action, Degrade, Unscored
from fp_contracts.timestamps import to_us
from fp_df import domain, payloads
from fp_df.domain import Scored, Switch
from fp_df.marks import Truth
from fp_df.plan import RunPlan
from fp_df.policy import Policy
from fp_df.serving import NOTHING, Served, advice
from fp_df.shadow import Shadow, recorded_shadow, shadow_of
from fp_df.snapshot import Snapshot, origin_of
from fp_features import CORE_V1, Payment, unpack
from fp_runtime.errors import Unavailable

_OF_SNAPSHOT = frozenset({Degrade.JOIN_TIMEOUT, Degrade.WINDOW_END, Degrade.FLOW_REBIND})
_BATCH = 500


class Scores(Protocol):
    """What scores again: the same bits as when it was decided."""

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """What a bundle says of each vector. Unavailable when it cannot be opened."""
        ...


class _Case(NamedTuple):
    """A recorded decision with the inputs it gives, waiting for its score."""

    recorded: Mapping[str, Any]
    decision_id: str
    part: int
    offset: int
    snapshot: Snapshot
    vector: tuple[float, ...]
    order_us: int
    served: Served
    told: Shadow | None


def _guardrails(_part: int, _order_us: int) -> Served:
    return NOTHING


def served_of(plan: RunPlan, truths: Mapping[int, Truth]) -> Callable[[int, int], Served]:
    """(partition, order_us) to what decided there, as each partition's progress has journaled it."""
    times = plan.switch_times()

    def served(part: int, order_us: int) -> Served:
        journal = truths[part].serving
        passed = [place for place in journal if place == 0 or times[place] <= order_us]
        return journal[max(passed)] if passed else NOTHING

    return served


@dataclass(slots=True)
class Replay:
    """What was re-evaluated, and what came out otherwise; fingerprints and intents as recorded."""

    run: str
    switches: Sequence[Switch]
    served: Callable[[int, int], Served] = _guardrails
    models: Scores | None = None
    replayed: int = 0
    unequal: int = 0
    unchecked: int = 0
    """Scores of challengers that cannot be opened any more."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """decision_id -> what R3 compares of it, recomputed."""
    actions: set[str] = field(default_factory=set)
    _waiting: list[_Case] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        """One decision as its exact published bytes: policy and bundle in force, score, action, reasons, ids, all.

        Those that a bundle scored are compared a batch at a time, the last by `close`.
        """
        envelope = orjson.loads(body)
        recorded = envelope["payload"]
        self.replayed += 1
        self.actions.update(intent["action_id"] for intent in recorded["intents"])
        try:
            case = self._case(recorded, to_us(envelope["ts_utc"]))
            if case.served.bundle is None and case.served.challenger is None:
                self._compare(case, None, None)
            else:
                self._waiting.append(case)
        except (LookupError, TypeError, ValueError):
            self.unequal += 1
        if len(self._waiting) == _BATCH:
            self.close()

    def close(self) -> None:
        """Score and compare what waits. Unavailable when the bundle that decided cannot be opened."""
        waiting, self._waiting = self._waiting, []
        scored = self._scored({at: case.served.bundle for at, case in enumerate(waiting)}, waiting)
        shadows = self._shadows(waiting)
        for at, case in enumerate(waiting):
            self._compare(case, scored.get(at), shadows[at])

    def _scored(self, bundles: Mapping[int, BundleRef | None], cases: Sequence[_Case]) -> dict[int, Scored]:
        """Scores by place in `cases`, of those that name a bundle: one call per bundle."""
        places: dict[str, list[int]] = {}
        for at, bundle in bundles.items():
            if bundle is not None:
                places.setdefault(bundle.bundle_id, []).append(at)
        found: dict[int, Scored] = {}
        for group in places.values():
            bundle = bundles[group[0]]
            assert bundle is not None
            assert self.models is not None
            found |= zip(group, self.models.score(bundle, [cases[at].vector for at in group]), strict=True)
        return found

    def _shadows(self, cases: Sequence[_Case]) -> list[Shadow | None]:
        """What each record must say of the challenger. That it could not serve then is an input, as recorded."""
        asked = {at: case.served.challenger.bundle for at, case in enumerate(cases)
                 if case.served.challenger is not None and not _told_unusable(case)}  # fmt: skip
        try:
            scored = self._scored(asked, cases)
        except Unavailable:
            self.unchecked += len(asked)  # it decides nothing: what it said stands as recorded
            return [case.told if at in asked else _unusable(case) for at, case in enumerate(cases)]
        return [shadow_of(asked[at], scored[at]) if at in asked else _unusable(case) for at, case in enumerate(cases)]

    def _case(self, recorded: Mapping[str, Any], order_us: int) -> _Case:
        snapshot, vector = _inputs(recorded), unpack(vector_bytes(recorded["feature_vector"]))
        part, offset = recorded["snapshot_offset"]["partition"], recorded["snapshot_offset"]["offset"]
        served = NOTHING
        if snapshot.schema_digest == CORE_V1.schema_digest:
            if len(vector) != len(CORE_V1.names):
                raise ValueError(f"{len(vector)} features are no vector")
            served = self.served(part, order_us)
        told = None if served.challenger is None else recorded_shadow(recorded["shadow"][0])
        return _Case(recorded, recorded["decision_id"], part, offset, snapshot, vector, order_us, served, told)

    def _compare(self, case: _Case, scored: Scored | None, shadow: Shadow | None) -> None:
        recorded, policy = case.recorded, domain.policy_at(self.switches, case.order_us)
        decided = domain.make_decision(self.run, case.snapshot, case.vector, policy, advice(case.served, scored))
        again = payloads.render(decided, case.part, case.offset, shadow)
        self.fingerprints[case.decision_id] = again.fingerprint
        self.unequal += again.payload.encode() != trusted_bytes(recorded)


def without_model(recorded: Mapping[str, Any], policy: Policy) -> Action:
    """What the guardrails alone ask for on the recorded inputs of a decision: no feature rests on what was decided."""
    snapshot, vector = _inputs(recorded), unpack(vector_bytes(recorded["feature_vector"]))
    return domain.judge(snapshot.schema_digest, snapshot.degrade_reasons, vector, policy)[0]


def _told_unusable(case: _Case) -> bool:
    """Whether the challenger could not serve: by the journal, or by the record itself after a restart without it."""
    assert case.served.challenger is not None
    assert case.told is not None
    return bool(case.served.challenger.fault) or case.told.reason == Unscored.CHALLENGER_UNUSABLE


def _unusable(case: _Case) -> Shadow | None:
    return None if case.served.challenger is None else shadow_of(case.served.challenger.bundle, None)


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
