"""What the action layer works with and keeps: what is asked for, how it ended, progress, effects of a transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from fp_contracts.downstream import ActionOutcome, Decision, Intent
from fp_df import audit
from fp_df.audit import Link
from fp_runtime.outbox import Queued
from fp_runtime.quarantine import Quarantined


class Asked(NamedTuple):
    """One intent to carry out, with its decision's order (µs) and trace."""

    decision: Decision
    intent: Intent
    order_us: int
    trace: bytes | None


@dataclass(frozen=True, slots=True)
class Executed:
    """What the actuator answered: status EXECUTED, DENIED or FAILED, after how many attempts, and its words."""

    status: str
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a partition stands: n decisions worked off, next offset, what was seen of df's sequence, chain head."""

    n: int = 0
    next_offset: int = 0
    last_seq: int = 0
    gaps: tuple[int, ...] = ()
    """Sequences below `last_seq` that are still to come."""
    seqs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    chain_seq: int = 0
    chain_hash: str = audit.GENESIS

    def to_bytes(self) -> bytes:
        """The document of ops.progress."""
        seqs = [[topic, part, seq] for (topic, part), seq in sorted(self.seqs.items())]
        return orjson.dumps([self.next_offset, self.last_seq, self.gaps, seqs, self.chain_seq, self.chain_hash])

    @classmethod
    def from_bytes(cls, n: int, raw: bytes) -> "Progress":
        """What `to_bytes` wrote."""
        next_offset, last_seq, gaps, seqs, chain_seq, chain_hash = orjson.loads(raw)
        places = {(topic, part): seq for topic, part, seq in seqs}
        return cls(n, next_offset, last_seq, tuple(gaps), places, chain_seq, chain_hash)


@dataclass(slots=True)
class Effects:
    """What one partition's decisions brought about since the last transaction."""

    part: int
    expected_n: int
    outcomes: list[ActionOutcome] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
