"""The pure rules that the simulated stages and the naive expectation share: joins, features, decisions."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.header import Kind

from .world import JOIN_WAIT, PARTS, Event

Origin = tuple[str, int, int]
BLOCK_AMOUNT, ESCALATE_AMOUNT = 60, 75


class Snapshot(NamedTuple):
    """What rtdl emits: `replays` is compared between runs, `offsets` only between re-runs of one log."""

    payment: int
    key: str
    release: int
    replays: dict[str, Any]
    offsets: dict[str, Any]

    def body(self) -> bytes:
        return trusted_bytes({"replays": self.replays, "offsets": self.offsets})


@dataclass
class Join:
    """State of one ingress partition. Features are rolling hashes: any other order of events gives another value."""

    clock: int = -(2**62)
    n: int = 0
    merchants: dict[str, int] = field(default_factory=dict)
    risk: dict[str, int] = field(default_factory=dict)
    parts: dict[int, dict[str, Origin]] = field(default_factory=dict)
    pending: dict[int, tuple[Event, Origin]] = field(default_factory=dict)

    def copy(self) -> "Join":
        """An independent copy, for checkpoints."""
        parts = {payment: dict(found) for payment, found in self.parts.items()}
        return Join(self.clock, self.n, dict(self.merchants), dict(self.risk), parts, dict(self.pending))

    def merge(self, order: int, event: Event, origin: Origin) -> Snapshot | None:
        """Take the next head in; the snapshot that it completes."""
        self.clock = max(self.clock, order)
        self.n += 1
        if event.kind is Kind.LABEL_ASSERTION:
            self.risk[event.merchant] = _roll(self.risk.get(event.merchant, 0), event.payment)
            return None
        if event.topic in PARTS:
            self.parts.setdefault(event.payment, {})[event.topic] = origin
        elif event.kind is Kind.AUTH_REQUEST:
            self.merchants[event.merchant] = _roll(self.merchants.get(event.merchant, 0), event.payment, event.amount)
            self.pending[event.payment] = event, origin
        if event.payment in self.pending and len(self.parts.get(event.payment, ())) == len(PARTS):
            return self._release(event.payment, "READY")
        return None

    def expire(self, at: int, payment: int) -> Snapshot:
        """The deadline of a pending payment fires."""
        self.clock = max(self.clock, at)
        return self._release(payment, "DEGRADED")

    def _release(self, payment: int, status: str) -> Snapshot:
        event, origin = self.pending.pop(payment)
        parts = self.parts.get(payment, {})
        key = event.account if topics.FLOW_ANCHOR in parts else f"flow-{payment}"
        replays = {
            "event": event.event_id,
            "key": key,
            "amount": event.amount,
            "release": self.clock,
            "n": self.n,
            "status": status,
            "parts": sorted(parts),
            "merchant": self.merchants[event.merchant],
            "risk": self.risk.get(event.merchant, 0),
        }
        return Snapshot(payment, key, self.clock, replays, {"origin": origin, "context": dict(parts)})


def deadline_of(event: Event, window_end: int) -> int:
    """When a pending request is released without its missing parts."""
    return min(event.ts + JOIN_WAIT, window_end - 1)


@dataclass
class Accounts:
    """State of one rtdl partition; blocks change what later decisions see."""

    seen: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Accounts":
        """An independent copy, for checkpoints."""
        return Accounts(dict(self.seen), dict(self.blocks))

    def decide(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """The decision, without changing the state."""
        key, amount = snapshot["key"], snapshot["amount"]
        block = amount + 5 * self.blocks.get(key, 0) >= BLOCK_AMOUNT
        return {
            "event": snapshot["event"],
            "key": key,
            "action": "BLOCK" if block else "ALLOW",
            "escalated": block and amount >= ESCALATE_AMOUNT,
            "account": self.seen.get(key, 0),
            "snapshot": hashlib.sha256(trusted_bytes(snapshot)).hexdigest()[:16],
        }

    def apply(self, snapshot: dict[str, Any], decision: dict[str, Any]) -> None:
        """What a snapshot and its decision change."""
        key = snapshot["key"]
        self.seen[key] = _roll(self.seen.get(key, 0), snapshot["n"], snapshot["release"])
        self.blocks[key] = self.blocks.get(key, 0) + (decision["action"] == "BLOCK")


def _roll(state: int, *values: int) -> int:
    for value in values:
        state = (state * 1_000_003 + value + 1) % 2**61
    return state
