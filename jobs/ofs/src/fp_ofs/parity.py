"""Online/offline parity: what was served against what the archive gives again, bit for bit. Pure.

Compared are, per payment: the hash of the whole snapshot (every field that replays) and its vector against rtdl's
record; the whole vector and the snapshot's hash against df's decision; and that each is there exactly once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fp_contracts.derive import vector_bytes
from fp_features import FeatureSet, unpack
from fp_ofs.features import values
from fp_ofs.payments import FLOAT_BYTES, expected_hash
from fp_ofs.records import ServedDecision, ServedSnapshot

SHOWN = 20
STATEMENT = (
    "Every payment of the basis was joined and featured again from ingress and label records alone. Its snapshot_hash "
    "and packed snapshot vector equal rtdl's feature_snapshot, and its whole packed float64 vector and snapshot_hash "
    "equal those in df's decision, bit for bit; each payment has one snapshot and one decision, and no more exist."
)


@dataclass(slots=True)
class Served:
    """What the bus holds of the served side, by event id; `twice` names what came twice with other content."""

    snapshots: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    decisions: dict[str, ServedDecision] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)

    def take(self, value: ServedSnapshot | ServedDecision) -> None:
        """Take one record; a repeat must say the same."""
        if isinstance(value, ServedSnapshot):
            said = value.snapshot_hash, vector_bytes(value.payload["feature_vector"])
            self._put(self.snapshots, value.event_id, said)
        else:
            self._put(self.decisions, value.event_id, value)

    def _put(self, table: dict[str, Any], event_id: str, said: Any) -> None:
        if table.setdefault(event_id, said) != said:
            self.twice.add(event_id)


@dataclass(frozen=True, slots=True)
class Parity:
    """Counts, and the first differing rows. It holds only when nothing differs and something was compared."""

    payments: int
    equal: int
    missing_snapshots: int
    missing_decisions: int
    extra: int
    twice: int
    rows: tuple[Mapping[str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether parity is 100 %."""
        return self.payments > 0 and self.equal == self.payments and not self.extra and not self.twice

    def document(self) -> dict[str, Any]:
        """The report: what was compared, how much was equal, and the first differing rows."""
        return {
            "statement": STATEMENT,
            "payments": self.payments,
            "equal": self.equal,
            "parity_ppm": self.equal * 1_000_000 // self.payments if self.payments else 0,
            "missing_snapshots": self.missing_snapshots,
            "missing_decisions": self.missing_decisions,
            "extra": self.extra,
            "twice": self.twice,
            "ok": self.ok,
            "differing": [dict(row) for row in self.rows],
        }


def compare(payments: pa.Table, served: Served, features: FeatureSet) -> Parity:
    """Every payment of FACTS + `vector` against the served side."""
    width = FLOAT_BYTES * len(features.snapshot_names)
    differing: list[Mapping[str, str]] = []
    equal = count = no_snapshot = no_decision = 0
    for batch in payments.to_batches(10_000):
        for fact in batch.to_pylist():
            count += 1
            event_id, vector = fact["event_id"], fact["vector"]
            snapshot, decision = served.snapshots.get(event_id), served.decisions.get(event_id)
            no_snapshot += snapshot is None
            no_decision += decision is None
            digest = expected_hash(fact, vector[:width], features.schema_digest)
            if snapshot == (digest, vector[:width]) and _decided(decision) == (digest, vector):
                equal += 1
            elif len(differing) < SHOWN:
                differing.append(_difference(event_id, digest, vector, snapshot, decision, features.names))
    extra = (set(served.snapshots) | set(served.decisions)) - set(values(payments, "event_id"))
    differing += [{"event_id": name, "what": "served, but no payment of the basis"} for name in sorted(extra)[:SHOWN]]
    differing += [{"event_id": name, "what": "served twice with other content"} for name in sorted(served.twice)]
    return Parity(
        count, equal, no_snapshot, no_decision, len(extra), len(served.twice), tuple(differing[:SHOWN])
    )  # fmt: skip


def _decided(decision: ServedDecision | None) -> tuple[str, bytes] | None:
    return None if decision is None else (decision.snapshot_hash, decision.vector)


def _difference(
    event_id: str, digest: str, vector: bytes, snapshot: tuple[str, bytes] | None, decision: ServedDecision | None,
    names: Sequence[str],
) -> dict[str, str]:  # fmt: skip
    found = {"event_id": event_id}
    if snapshot is None or decision is None:
        return {**found, "what": f"no {'snapshot' if snapshot is None else 'decision'}"}
    for what, ours, theirs in (
        ("snapshot vector", vector[: len(snapshot[1])], snapshot[1]),
        ("decision vector", vector, decision.vector),
    ):
        if ours != theirs:
            return {**found, "what": what, **_first(names, ours, theirs)}
    both = {"offline": digest, "snapshot": snapshot[0], "decision": decision.snapshot_hash}
    return {**found, "what": "snapshot_hash: a field that is no feature", **both}


def _first(names: Sequence[str], ours: bytes, theirs: bytes) -> dict[str, str]:
    """The first feature whose bits differ, with both values as text that reads back exactly."""
    if len(ours) != len(theirs):
        return {"feature": "", "offline": f"{len(ours)} bytes", "served": f"{len(theirs)} bytes"}
    pairs: Iterable[tuple[str, float, float]] = zip(names, unpack(ours), unpack(theirs), strict=False)
    for at, (name, offline, online) in enumerate(pairs):
        if ours[at * FLOAT_BYTES : (at + 1) * FLOAT_BYTES] != theirs[at * FLOAT_BYTES : (at + 1) * FLOAT_BYTES]:
            return {"feature": name, "offline": repr(offline), "served": repr(online)}
    return {}
