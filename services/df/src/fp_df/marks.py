"""What a transaction of df keeps: truth progress, the mark of a state checkpoint, rows and records of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from fp_contracts.header import NONE_TS
from fp_df import audit
from fp_df.domain import Decided
from fp_df.serving import Served
from fp_runtime.eventtime.merge import Cursor, InputKey
from fp_runtime.outbox import Queued
from fp_runtime.quarantine import Quarantined

_as = tuple.__new__  # a named tuple without its Python-level constructor, once per payment


@dataclass(frozen=True, slots=True)
class Truth:
    """What the truth progress of a partition holds beside n: out sequences and the head of its audit chain."""

    n: int = 0
    seqs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    chain_seq: int = 0
    chain_hash: str = audit.GENESIS
    horizon_us: int = NONE_TS
    next_offset: int = 0
    open_gaps: int = 0
    switched: Mapping[int, int] = field(default_factory=dict)
    """Place in the plan's switches -> merged n at which it took effect: the heads below its event time."""
    serving: Mapping[int, Served] = field(default_factory=dict)
    """Place of a bundle's switch (0 = the run's beginning) -> what decides from there on, once and for all."""

    def to_bytes(self) -> bytes:
        """The document of ops.progress."""
        seqs = [[topic, part, seq] for (topic, part), seq in sorted(self.seqs.items())]
        switched = sorted(self.switched.items())
        serving = [[place, served.document()] for place, served in sorted(self.serving.items())]
        return orjson.dumps(
            [seqs, self.chain_seq, self.chain_hash, self.horizon_us, self.next_offset, self.open_gaps, switched,
             *([serving] if serving else ())]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, n: int, raw: bytes) -> "Truth":
        """What `to_bytes` wrote."""
        seqs, chain_seq, chain_hash, horizon_us, next_offset, gaps, switched, *more = orjson.loads(raw)
        places = {(topic, part): seq for topic, part, seq in seqs}
        serving = {place: Served.of_document(document) for place, document in (more[0] if more else ())}
        return cls(n, places, chain_seq, chain_hash, horizon_us, next_offset, gaps, dict(switched), serving)


@dataclass(frozen=True, slots=True)
class StateMark:
    """From where the account state of a checkpoint is re-fed: merged position, cursors, first offset to read."""

    n: int
    cursors: Mapping[InputKey, Cursor]
    resume_offset: int

    def to_bytes(self) -> bytes:
        """The document of ops.progress."""
        return orjson.dumps([[[*key, *cursor] for key, cursor in self.cursors.items()], self.resume_offset])

    @classmethod
    def from_bytes(cls, n: int, raw: bytes) -> "StateMark":
        """What `to_bytes` wrote."""
        cursors, resume = orjson.loads(raw)
        return cls(n, {InputKey(topic, source): Cursor(seq, at) for topic, source, seq, at in cursors}, resume)


class DecisionRow(NamedTuple):
    """One decision as its table row; `seq` is its sequence on the rtdl partition."""

    decision_id: str
    n: int
    seq: int
    event_id: str
    flow_id: str
    account_id: str | None
    action: str
    posture: str
    policy_rev: str
    intents: int
    escalated: bool
    fingerprint: str


def row_of(n: int, seq: int, decided: Decided, fingerprint: str) -> DecisionRow:
    """The row of one decision."""
    decision_id, snapshot, _, action, _, posture, policy_rev, action_id, escalated, _, _ = decided
    row = (
        decision_id, n, seq, snapshot.event_id, snapshot.flow_id, snapshot.account_id, action, posture, policy_rev,
        int(action_id is not None), escalated, fingerprint,
    )  # fmt: skip
    return _as(DecisionRow, row)


@dataclass(slots=True)
class Batch:
    """Effects of one partition since the last transaction: committed together, then published."""

    part: int
    expected_n: int
    rows: list[DecisionRow] = field(default_factory=list)
    links: list[audit.Link] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)
