"""One owned rtdl partition: snapshots in, decisions out; what a transaction and a checkpoint keep. No I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.header import NONE_TS, PLAIN_HEAD, PLAIN_TAIL, Header, HeaderError, Kind, plain_ends, unpack
from fp_contracts.reasons import Quarantine
from fp_contracts.records import RecordError
from fp_df import domain, payloads
from fp_df.domain import Decided, Scored
from fp_df.marks import Batch, StateMark, Truth, row_of
from fp_df.plan import RunPlan
from fp_df.policy import Policy
from fp_df.records import RecordWriter
from fp_df.serving import NOTHING, Served, advice
from fp_df.shadow import Shadow
from fp_df.snapshot import Snapshot, read_snapshot
from fp_features import CORE_V1, AccountState
from fp_runtime.bus import Record
from fp_runtime.errors import Poison
from fp_runtime.eventtime.merge import Head, PartitionMerge
from fp_runtime.quarantine import PoisonLimit, Quarantined

RANK_SNAPSHOT = 1
_NOT_FOR_US = frozenset({Kind.DECISION, Kind.ACTION_OUTCOME, Kind.ACTION_INTENT, Kind.CANARY})


def _no_bundle(_: int) -> Served:
    return NOTHING


@dataclass(slots=True)
class Case:
    """One payment in its order, to be decided. Where `served` names a bundle or challenger, scores are put in first."""

    n: int
    snapshot: Snapshot
    vector: tuple[float, ...]
    policy: Policy
    order_us: int
    offset: int
    trace: bytes | None
    served: Served
    scored: Scored | None = None
    shadow: Shadow | None = None


class Partition:
    """Merge, account state and decisions of one partition. Heads up to the truth's n are re-fed, never re-decided.

    `served` tells what decides from a settled switch on, or from the beginning (NONE_TS).
    """

    def __init__(
        self, plan: RunPlan, part: int, truth: Truth, mark: StateMark | None, accounts: Mapping[str, bytes],
        served: Callable[[int], Served] = _no_bundle,
    ) -> None:  # fmt: skip
        self.part = part
        self._plan, self._run = plan, plan.run
        self._truth = truth
        self._n = mark.n if mark else 0
        self._resume = mark.resume_offset if mark else plan.starts[part]
        self._merge = PartitionMerge(plan.inputs(), mark.cursors if mark else None)
        self._accounts = {name: AccountState.from_bytes(raw) for name, raw in accounts.items()}
        self._changed: set[str] = set()
        self._saved_n, self._saved_resume = self._n, self._resume
        self._writer = RecordWriter(plan.pins, f"df:{part}", plan.partitions, truth.seqs)
        self._own = plain_ends(Kind.DECISION, plan.tag, self._writer.source.encode())
        self._chain = f"DECIDED:{part}"
        self._chain_seq, self._chain_hash = truth.chain_seq, truth.chain_hash
        self._decided_n = truth.n
        self._next_offset = self._resume
        self._limit = PoisonLimit()
        self._batch = Batch(part, truth.n)
        self._passed = dict(truth.switched)
        self._due = sorted(
            (at, place) for place, at in enumerate(plan.switch_times()) if place and place not in self._passed
        )
        self._served = served
        self._serving = dict(truth.serving)
        if not self._serving and (first := served(NONE_TS)) != NOTHING:
            self._serving[0] = first
        self._now = self._serving[max(self._serving)] if self._serving else NOTHING
        self.cases: list[Case] = []
        """Payments taken in order and not yet decided: `drain` decides them."""
        self._hold_us: int | None = None
        self.counts: dict[str, int] = {}
        self.foreign = 0
        """Records of other runs, passed over."""
        self.switched: Mapping[int, int] = truth.switched
        """As `Truth.switched`, of what was drained; replaced as a whole, so another thread may read it."""
        self.serving: Mapping[int, Served] = truth.serving
        """As `Truth.serving`; it always knows the bundles' places of `switched`."""

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
        raw = record.header
        if (raw[PLAIN_HEAD], raw[PLAIN_TAIL]) == self._own:  # our own decisions are half of what is read
            self._merge.passed(record.topic, record.offset)
            return
        try:
            header = unpack(raw)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        if header.run_tag != self._plan.tag:
            self.foreign += 1
            self._merge.passed(record.topic, record.offset)
        elif header.kind is Kind.FEATURE_SNAPSHOT:
            self._offer(record, header)
        elif header.kind is Kind.WATERMARK:
            self._merge.mark(header, record.topic, record.offset)
        elif header.kind in _NOT_FOR_US:
            self._merge.passed(record.topic, record.offset)
        else:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{header.kind.name} on {record.topic}")

    def _offer(self, record: Record, header: Header) -> None:
        """A broken body still takes its place in the sequence, as a head without a snapshot."""
        value: tuple[Snapshot, bytes | None] | None = None
        fault = None
        try:
            value = (read_snapshot(record.value), record.traceparent)
        except RecordError as error:
            fault = str(error)
        try:
            self._merge.offer(header, RANK_SNAPSHOT, "", record.topic, record.offset, value)
        except KeyError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"source {header.source} is no input") from error
        if fault is not None:
            raise Poison(Quarantine.CONTRACT_BROKEN, fault)

    def advance(self, limit: int, hold_us: int | None) -> int:
        """Take up to `limit` released heads in order; how many. `hold_us` = the merge stops there for a switch."""
        self._hold_us = hold_us
        heads = self._merge.take(limit, hold_us)
        for head in heads:
            self._step(head)
        return len(heads)

    def _step(self, head: Head) -> None:
        if self._due and self._due[0][0] <= head.order_us:
            self._pass_switches(head.order_us)
        self._n += 1
        if head.value is None:
            return
        snapshot, traceparent = head.value
        vector = domain.full_vector(snapshot, self._account(snapshot.account_id), head.order_us)
        if self._n <= self._decided_n:
            return
        policy = domain.policy_at(self._plan.switches, head.order_us)
        served = self._now if snapshot.schema_digest == CORE_V1.schema_digest else NOTHING
        self.cases.append(Case(self._n, snapshot, vector, policy, head.order_us, head.offset, traceparent, served))

    def _account(self, name: str | None) -> AccountState:
        if name is None:
            return AccountState()
        self._changed.add(name)
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = AccountState()
        return account

    def _decide(self) -> None:
        for case in self.cases:
            said = advice(case.served, case.scored)
            self._record(case, domain.make_decision(self._run, case.snapshot, case.vector, case.policy, said))
        self.cases.clear()

    def _record(self, case: Case, decided: Decided) -> None:
        write, batch, run, snapshot = self._writer.write, self._batch, self._run, decided.snapshot
        order_us, trace = case.order_us, case.trace
        key = snapshot.account_id or snapshot.flow_id
        rendered = payloads.render(decided, self.part, case.offset, case.shadow)
        self._chain_seq += 1
        link, payload = payloads.decided_link(run, self._chain, self._chain_seq, self._chain_hash, decided, rendered)
        self._chain_hash = link.record_hash
        queued = write(Kind.DECISION, decided.decision_id, key, order_us, rendered.payload, trace)
        batch.rows.append(row_of(case.n, queued.seq, decided, rendered.fingerprint))
        batch.links.append(link)
        batch.queued += (queued, write(Kind.AUDIT_RECORD, link.audit_id, key, order_us, payload, trace))
        if decided.escalated:
            trigger = domain.trigger_of(run, decided)
            text = trusted_bytes(trigger).decode()
            batch.queued.append(
                write(Kind.CASE_TRIGGER, trigger["trigger_id"], trigger["case_id"], order_us, text, trace)
            )
        action = str(decided.action)
        self.counts[action] = self.counts.get(action, 0) + 1

    def has_effects(self) -> bool:
        """Whether anything but progress waits for `drain`."""
        return bool(self.cases or self._batch.quarantined)

    def all_rose(self) -> bool:
        """Whether the frontier of every input rose since `drain`: all that was sent with these payments is here."""
        return self._merge.all_rose()

    def drain(self) -> Batch | None:
        """Decide what was taken; the effects with the progress to commit, None when the truth did not move."""
        self._decide()
        self._merge.note_frontiers()
        horizon = self._merge.horizon_us
        # Held at a switch: what lies before it has taken effect, whether a head came to show it or not.
        self._pass_switches(horizon if self._hold_us is None else min(horizon, self._hold_us - 1))
        truth = Truth(
            max(self._n, self._decided_n), dict(self._writer.seqs), self._chain_seq, self._chain_hash, horizon,
            self._next_offset, sum(self._merge.open_gaps().values()), dict(self._passed), dict(self._serving),
        )  # fmt: skip
        if self._n < self._decided_n or (truth == self._truth and not self._batch.rows and not self._batch.quarantined):
            return None
        batch, self._batch = self._batch, Batch(self.part, truth.n)
        batch.truth = self._truth = truth
        self._decided_n = truth.n
        self.serving = truth.serving
        self.switched = truth.switched
        return batch

    def _pass_switches(self, order_us: int) -> None:
        """All heads so far lie below `order_us`: switches up to there took effect after them, however they batch."""
        while self._due and self._due[0][0] <= order_us:
            at, place = self._due.pop(0)
            self._passed[place] = self._n
            if place >= len(self._plan.switches):
                self._now = self._serving[place] = self._served(at)

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

    @property
    def in_use(self) -> Served:
        """What decides at the last drained position."""
        return self.serving[max(self.serving)] if self.serving else NOTHING

    def uses(self) -> list[dict[str, str | int]]:
        """What decided up to the last drained position: each revision, its bundle, and the position it is from."""
        found: list[dict[str, str | int]] = []
        for place, served in sorted({0: NOTHING, **self.serving}.items()):
            if not found or served.revision != found[-1]["revision"]:
                bundle = served.ref or "guardrails"
                found.append({"revision": served.revision, "bundle": bundle, "merged_n": self.switched.get(place, 0)})
        return found

    def horizon_us(self) -> int:
        """Everything below it is decided and nothing below it can come."""
        return self._merge.horizon_us

    def waiting(self) -> int:
        """Snapshots read and not yet decided."""
        return self._merge.waiting()
