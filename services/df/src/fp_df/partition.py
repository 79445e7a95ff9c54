"""One owned rtdl partition: snapshots in, decisions out; what a transaction and a checkpoint keep. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from fp_contracts import topics
from fp_contracts.downstream import AuditRecord, CaseTrigger, Decision, FeatureSnapshot, Offset
from fp_contracts.header import NONE_TS, Header, HeaderError, Kind, unpack
from fp_contracts.reasons import Quarantine
from fp_contracts.records import RecordError, read_derived
from fp_df import audit, domain
from fp_df.plan import INPUTS, RunPlan
from fp_df.records import RecordWriter
from fp_features import AccountState
from fp_runtime.bus import Record
from fp_runtime.errors import Poison
from fp_runtime.eventtime.merge import Cursor, Head, InputKey, PartitionMerge
from fp_runtime.outbox import Queued
from fp_runtime.quarantine import PoisonLimit, Quarantined

RANK_SNAPSHOT = 1


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

    def to_bytes(self) -> bytes:
        """The document of ops.progress."""
        seqs = [[topic, part, seq] for (topic, part), seq in sorted(self.seqs.items())]
        return orjson.dumps([seqs, self.chain_seq, self.chain_hash, self.horizon_us, self.next_offset, self.open_gaps])

    @classmethod
    def from_bytes(cls, n: int, raw: bytes) -> "Truth":
        """What `to_bytes` wrote."""
        seqs, *rest = orjson.loads(raw)
        return cls(n, {(topic, part): seq for topic, part, seq in seqs}, *rest)


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


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One decision as its table row; `seq` is its sequence on the rtdl partition."""

    n: int
    seq: int
    decision: Decision
    escalated: bool
    fingerprint: str


@dataclass(slots=True)
class Batch:
    """Effects of one partition since the last transaction: committed together, then published."""

    part: int
    expected_n: int
    rows: list[DecisionRow] = field(default_factory=list)
    links: list[AuditRecord] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)


class Partition:
    """Merge, account state and decisions of one partition. Heads up to the truth's n are re-fed, never re-decided."""

    def __init__(
        self, plan: RunPlan, part: int, truth: Truth, mark: StateMark | None, accounts: Mapping[str, bytes]
    ) -> None:
        self.part = part
        self._plan = plan
        self._truth = truth
        self._n = mark.n if mark else 0
        self._resume = mark.resume_offset if mark else plan.starts[part]
        self._merge = PartitionMerge(INPUTS, mark.cursors if mark else None)
        self._accounts = {name: AccountState.from_bytes(raw) for name, raw in accounts.items()}
        self._changed: set[str] = set()
        self._saved_n = self._n
        self._saved_resume = self._resume
        self._writer = RecordWriter(plan.pins, f"df:{part}", truth.seqs)
        self._chain_seq, self._chain_hash = truth.chain_seq, truth.chain_hash
        self._decided_n = truth.n
        self._next_offset = self._resume
        self._limit = PoisonLimit()
        self._batch = Batch(part, truth.n)
        self.counts: dict[str, int] = {}
        self.switched: dict[int, int] = {}
        """Position in the plan's switches -> merged n at which it took effect."""

    @property
    def start(self) -> int:
        """The offset from which this partition reads."""
        return self._resume

    def take(self, record: Record) -> None:
        """Take one record in. LaneStopped when too many are broken, LineBroken when a sequence contradicts itself."""
        self._next_offset = record.offset + 1
        try:
            self._sort(record)
        except Poison as poison:
            self._batch.quarantined.append(Quarantined(record, poison.reason))
            self._merge.passed(record.topic, record.offset)
            self._limit.poison()
        else:
            self._limit.good()

    def _sort(self, record: Record) -> None:
        try:
            header = unpack(record.header)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        if header.run_tag != self._plan.tag or header.kind in (Kind.DECISION, Kind.ACTION_OUTCOME, Kind.CANARY):
            self._merge.passed(record.topic, record.offset)
        elif header.kind is Kind.WATERMARK:
            self._merge.mark(header, record.topic, record.offset)
        elif header.kind is Kind.FEATURE_SNAPSHOT:
            self._offer(record, header)
        else:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{header.kind.name} on {record.topic}")

    def _offer(self, record: Record, header: Header) -> None:
        """A broken body still takes its place in the sequence, as a head without a snapshot."""
        value: tuple[FeatureSnapshot, bytes | None] | None = None
        fault = None
        try:
            value = (read_derived(record.value)[1], record.traceparent)
        except RecordError as error:
            fault = str(error)
        try:
            self._merge.offer(header, RANK_SNAPSHOT, "", record.topic, record.offset, value)
        except KeyError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"source {header.source} is no input") from error
        if fault is not None:
            raise Poison(Quarantine.CONTRACT_BROKEN, fault)

    def advance(self, limit: int, hold_us: int | None) -> None:
        """Decide up to `limit` released heads. `hold_us` = the merge stops there until a switch is announced."""
        for head in self._merge.take(limit, hold_us):
            self._step(head)

    def _step(self, head: Head) -> None:
        self._n += 1
        if head.value is None:
            return
        snapshot, traceparent = head.value
        key = snapshot.account_id
        account = AccountState() if key is None else self._accounts.setdefault(key, AccountState())
        payment = domain.apply_payment(account, snapshot, head.order_us)
        if key is not None:
            self._changed.add(key)
        if self._n <= self._decided_n:
            return
        policy = domain.policy_at(self._plan.switches, head.order_us)
        at = Offset(topic=topics.RTDL, partition=self.part, offset=head.offset)
        decision = domain.make_decision(self._plan.run, snapshot, at, payment, account, policy)
        self._record(decision, domain.trigger_of(self._plan.run, decision, policy), head.order_us, traceparent)

    def _record(self, decision: Decision, trigger: CaseTrigger | None, order_us: int, trace: bytes | None) -> None:
        write, batch = self._writer.write, self._batch
        key = decision.account_id or decision.flow_id
        chain = f"DECIDED:{self.part}"
        fingerprint = domain.fingerprint(decision)
        link = domain.decided_link(self._plan.run, chain, self._chain_seq + 1, self._chain_hash, decision, fingerprint)
        self._chain_seq, self._chain_hash = link.chain_seq, link.record_hash
        queued = write(Kind.DECISION, decision.decision_id, key, order_us, decision, trace)
        batch.rows.append(DecisionRow(self._n, queued.seq, decision, trigger is not None, fingerprint))
        batch.links.append(link)
        batch.queued += (queued, write(Kind.AUDIT_RECORD, link.audit_id, key, order_us, link, trace))
        if trigger is not None:
            batch.queued.append(write(Kind.CASE_TRIGGER, trigger.trigger_id, trigger.case_id, order_us, trigger, trace))
        self.counts[decision.action] = self.counts.get(decision.action, 0) + 1

    def drain(self) -> Batch | None:
        """The effects since the last call with the progress to commit; None when the truth did not move."""
        horizon = self._merge.horizon_us
        truth = Truth(
            max(self._n, self._decided_n), dict(self._writer.seqs), self._chain_seq, self._chain_hash, horizon,
            self._next_offset, sum(self._merge.open_gaps().values()),
        )  # fmt: skip
        if self._n < self._decided_n or truth == self._truth:
            return None
        batch, self._batch = self._batch, Batch(self.part, truth.n)
        batch.truth = self._truth = truth
        self._decided_n = truth.n
        self._note_switches(horizon)
        return batch

    def _note_switches(self, horizon_us: int) -> None:
        for position, switch in enumerate(self._plan.switches):
            if switch.effective_us != NONE_TS and switch.effective_us <= horizon_us:
                self.switched.setdefault(position, self._decided_n)

    def checkpoint(self) -> tuple[StateMark, int, dict[str, bytes]] | None:
        """(mark, n it follows, changed account states) of what was decided so far; None when nothing moved."""
        resume = self._merge.resume_offsets({topics.RTDL: self._saved_resume})[topics.RTDL]
        if self._n == self._saved_n and resume == self._saved_resume:
            return None
        mark = StateMark(self._n, self._merge.cursors(), resume)
        states = {name: self._accounts[name].to_bytes() for name in sorted(self._changed)}
        expected, self._saved_n, self._saved_resume = self._saved_n, self._n, resume
        self._changed.clear()
        return mark, expected, states

    def horizon_us(self) -> int:
        """Everything below it is decided and nothing below it can come."""
        return self._merge.horizon_us

    def waiting(self) -> int:
        """Snapshots read and not yet decided."""
        return self._merge.waiting()
