"""The action layer: executes each intent of each decision once, and records how it ended. Truth stage.

Decisions are worked off in log order per rtdl partition; an action's effect is made idempotent by its key, so a crash
between the call and the commit repeats the call and changes nothing at the actuator.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import ActionOutcome, Decision, Intent
from fp_contracts.header import HeaderError, Kind, unpack
from fp_contracts.ids import h32
from fp_contracts.reasons import Quarantine
from fp_contracts.records import RecordError, read_derived
from fp_contracts.timestamps import to_us
from fp_df import audit
from fp_df.audit import Link
from fp_df.plan import RunPlan
from fp_df.records import RecordWriter
from fp_runtime import outbox
from fp_runtime.bus import Consumer, Producer, Record
from fp_runtime.errors import Poison, Unavailable
from fp_runtime.eventtime.sequence import Seen, SourceTrack
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.outbox import Published, Queued
from fp_runtime.quarantine import PoisonLimit, Quarantined

POLL_S = 0.02
BATCH = 500


@dataclass(frozen=True, slots=True)
class Executed:
    """What the actuator answered: status EXECUTED, DENIED or FAILED, after how many attempts, and its words."""

    status: str
    attempts: int
    reason: str | None


class Actuator(Protocol):
    """Who carries intents out. Unavailable while it cannot be reached: then nothing is decided about the outcome."""

    def execute(self, decision: Decision, intent: Intent) -> Executed:
        """Carry out one intent; the same idempotency key is carried out once, whenever it is asked for again."""
        ...


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


class Desk:
    """One owned rtdl partition of the action layer."""

    def __init__(self, plan: RunPlan, part: int, progress: Progress | None) -> None:
        at = progress or Progress(next_offset=plan.starts[part])
        self.part = part
        self._run = plan.run
        self._tag = plan.tag
        self._source = f"df:{part}"
        self._track = SourceTrack(at.last_seq, gaps=at.gaps)
        self._writer = RecordWriter(plan.pins, f"al:{part}", at.seqs)
        self._saved = at
        self._n, self._next_offset = at.n, at.next_offset
        self._chain_seq, self._chain_hash = at.chain_seq, at.chain_hash
        self._effects = Effects(part, at.n)
        self._limit = PoisonLimit()
        self.counts: Counter[str] = Counter()

    @property
    def start(self) -> int:
        """The offset from which this partition reads."""
        return self._saved.next_offset

    def take(self, record: Record, actuator: Actuator) -> None:
        """Work one record off. Unavailable leaves it unworked: the batch is not committed."""
        try:
            decision = self._decision(record)
        except Poison as poison:
            self._effects.quarantined.append(Quarantined(record, poison.reason))
            self._limit.poison()
        else:
            self._limit.good()
            if decision is not None:
                self._work(*decision, record.traceparent, actuator)
        self._next_offset = record.offset + 1

    def _decision(self, record: Record) -> tuple[Decision, int] | None:
        """The new decision in a record and its order (µs); None for anything else. Raises Poison."""
        try:
            header = unpack(record.header)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        if header.run_tag != self._tag or header.kind is not Kind.DECISION:
            return None
        if header.source != self._source:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"decision from {header.source}")
        if self._track.accept(header.seq, header.payload_hash, header.order_us) is Seen.DUPLICATE:
            return None
        try:
            envelope, decision = read_derived(record.value)
        except RecordError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, str(error)) from error
        if not isinstance(decision, Decision):
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{envelope.event_type[:60]} in a decision's place")
        return decision, to_us(envelope.ts_utc)

    def _work(self, decision: Decision, order_us: int, trace: bytes | None, actuator: Actuator) -> None:
        self._n += 1
        for intent in decision.intents:
            hit(Failpoint.AL_BEFORE_CALL)
            executed = actuator.execute(decision, intent)
            hit(Failpoint.AL_AFTER_CALL)
            self._record(decision, intent, executed, order_us, trace)

    def _record(
        self, decision: Decision, intent: Intent, executed: Executed, order_us: int, trace: bytes | None
    ) -> None:
        outcome = ActionOutcome(
            action_id=intent.action_id,
            decision_id=decision.decision_id,
            account_id=decision.account_id,
            flow_id=decision.flow_id,
            source_event_id=decision.source_event.event_id,
            kind=intent.kind,
            idempotency_key=intent.idempotency_key,
            origin=intent.origin,
            status=executed.status,  # type: ignore[arg-type]
            attempts=executed.attempts,
            reason=executed.reason,
        )
        link, payload = self._link(decision, outcome)
        key = decision.account_id or decision.flow_id
        effects, write = self._effects, self._writer.write
        effects.outcomes.append(outcome)
        effects.links.append(link)
        event_id = h32("outcome", outcome.action_id)
        effects.queued += (
            write(Kind.ACTION_OUTCOME, event_id, key, order_us, _json(outcome), trace),
            write(Kind.AUDIT_RECORD, link.audit_id, key, order_us, payload, trace),
        )
        self.counts[executed.status] += 1

    def _link(self, decision: Decision, outcome: ActionOutcome) -> tuple[Link, str]:
        """The OUTCOME audit record: attempts are left out of what it hashes, a retry is no other fact (law 9)."""
        content = f"{outcome.action_id}|{outcome.kind}|{outcome.status}|{outcome.reason or ''}"
        fields = {
            "kind": "OUTCOME",
            "decision_id": decision.decision_id,
            "action_id": outcome.action_id,
            "source_event": decision.source_event.model_dump(mode="json"),
            "snapshot_hash": None,
            "policy_rev": None,
            "bundle_ref": None,
            "content_fingerprint": hashlib.sha256(content.encode()).hexdigest(),
        }
        chain = f"OUTCOME:{self.part}"
        link, payload = audit.link(self._run, chain, self._chain_seq + 1, self._chain_hash, fields)
        self._chain_seq, self._chain_hash = link.chain_seq, link.record_hash
        return link, payload

    def drain(self) -> Effects | None:
        """The effects since the last call with the progress to commit; None when nothing was read."""
        if self._next_offset == self._saved.next_offset:
            return None
        track = self._track
        progress = Progress(
            self._n, self._next_offset, track.last, tuple(sorted(track.gaps)), dict(self._writer.seqs),
            self._chain_seq, self._chain_hash,
        )  # fmt: skip
        effects, self._effects = self._effects, Effects(self.part, progress.n)
        effects.progress = self._saved = progress
        return effects


def _json(outcome: ActionOutcome) -> str:
    return trusted_bytes(outcome.model_dump(mode="json")).decode()


class Store(Protocol):
    """Where the action layer's truth lives. Every method raises Unavailable; `commit` also Fenced."""

    def own(self, parts: Sequence[int]) -> None:
        """Become the one owner of these partitions."""
        ...

    def load(self, part: int) -> Progress | None:
        """Progress of a partition, None before the first commit."""
        ...

    def unpublished(self, part: int) -> list[Queued]:
        """Committed records of a partition without a publish fact, in order."""
        ...

    def commit(self, effects: Sequence[Effects]) -> None:
        """All effects and progress in one transaction."""
        ...

    def record_facts(self, published: Sequence[Published]) -> None:
        """Where committed records were acknowledged."""
        ...


class Actor:
    """The loop of one member of the action layer."""

    def __init__(
        self, plan: RunPlan, parts: Sequence[int], store: Store, consumer: Consumer, producer: Producer,
        actuator: Actuator,
    ) -> None:  # fmt: skip
        self._store = store
        self._consumer = consumer
        self._producer = producer
        self._actuator = actuator
        store.own(parts)
        for part in parts:
            self._publish(store.unpublished(part))
        self.desks = {part: Desk(plan, part, store.load(part)) for part in parts}
        consumer.assign({(topics.RTDL, part): desk.start for part, desk in self.desks.items()})

    def turn(self) -> int:
        """One turn; the number of records read."""
        records = self._consumer.poll(BATCH, POLL_S)
        for record in records:
            self.desks[record.partition].take(record, self._actuator)
        drained = [effects for desk in self.desks.values() if (effects := desk.drain()) is not None]
        if drained:
            self._store.commit(drained)
            hit(Failpoint.AL_AFTER_COMMIT)
            self._publish([queued for effects in drained for queued in effects.queued])
            self._consumer.commit({(topics.RTDL, e.part): e.progress.next_offset for e in drained})
        return len(records)

    def _publish(self, queued: Sequence[Queued]) -> None:
        if not queued:
            return
        deliveries = self._producer.publish([item.out for item in queued])
        published = outbox.acknowledged(queued, deliveries)
        self._store.record_facts(published)
        if len(published) != len(queued):
            raise Unavailable(f"{len(queued) - len(published)} of {len(queued)} records not acknowledged")

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat; read from the control thread."""
        total: Counter[str] = Counter()
        for desk in self.desks.values():
            total.update(desk.counts)
        return {f"outcome_{status.lower()}": n for status, n in total.items()}
