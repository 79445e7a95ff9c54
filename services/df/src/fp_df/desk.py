"""One rtdl partition of the action layer: decisions in, outcomes and audit links out. No I/O."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import ActionOutcome, Decision, Intent
from fp_contracts.header import HeaderError, Kind, kind_of, unpack
from fp_contracts.ids import h32
from fp_contracts.reasons import Quarantine
from fp_contracts.records import RecordError, read_derived
from fp_contracts.timestamps import to_us
from fp_df import audit
from fp_df.actmarks import Asked, Effects, Executed, Progress
from fp_df.audit import Link
from fp_df.plan import RunPlan
from fp_df.records import RecordWriter
from fp_df.unasked import asks_for_nothing
from fp_runtime.bus import Record
from fp_runtime.errors import Poison
from fp_runtime.eventtime.sequence import Seen, SourceTrack
from fp_runtime.quarantine import PoisonLimit, Quarantined

_PASSED_BY = frozenset({Kind.FEATURE_SNAPSHOT, Kind.ACTION_OUTCOME, Kind.WATERMARK})


class Desk:
    """One owned rtdl partition of the action layer."""

    def __init__(self, plan: RunPlan, part: int, progress: Progress | None) -> None:
        at = progress or Progress(next_offset=plan.starts[part])
        self.part = part
        self._run = plan.run
        self._tag = plan.tag
        self._pins = plan.pins
        self._source = f"df:{part}"
        self._track = SourceTrack(at.last_seq, gaps=at.gaps)
        self._writer = RecordWriter(plan.pins, f"al:{part}", plan.partitions, at.seqs)
        self._saved = at
        self._n, self._next_offset = at.n, at.next_offset
        self._chain_seq, self._chain_hash = at.chain_seq, at.chain_hash
        self._effects = Effects(part, at.n)
        self._asked: list[Asked] = []
        self._limit = PoisonLimit()
        self.counts: Counter[str] = Counter()

    @property
    def start(self) -> int:
        """The offset from which this partition reads."""
        return self._saved.next_offset

    def take(self, record: Record) -> None:
        """Take one record in. LaneStopped when too many are broken, LineBroken when a sequence contradicts itself."""
        try:
            self._sort(record)
        except Poison as poison:
            self._effects.quarantined.append(Quarantined(record, poison.reason))
            self._limit.poison()
        else:
            self._limit.good()
        self._next_offset = record.offset + 1

    def _sort(self, record: Record) -> None:
        if kind_of(record.header) in _PASSED_BY:
            return  # half of the topic: not even their header is taken apart
        try:
            header = unpack(record.header)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        if header.run_tag != self._tag or header.kind is not Kind.DECISION:
            return
        if header.source != self._source:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"decision from {header.source}")
        if self._track.accept(header.seq, header.payload_hash, header.order_us) is Seen.DUPLICATE:
            return
        if not asks_for_nothing(record.value, self._pins):
            self._read(record)
        self._n += 1

    def _read(self, record: Record) -> None:
        try:
            envelope, decision = read_derived(record.value)
        except RecordError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, str(error)) from error
        if not isinstance(decision, Decision):
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{envelope.event_type[:60]} in a decision's place")
        order_us = to_us(envelope.ts_utc)
        self._asked += [Asked(decision, intent, order_us, record.traceparent) for intent in decision.intents]

    def asked(self) -> list[Asked]:
        """What is to be carried out before the next `drain`, in log order."""
        return list(self._asked)

    def ended(self, executed: Sequence[Executed]) -> None:
        """How all that was asked ended, in its order."""
        for asked, one in zip(self._asked, executed, strict=True):
            self._record(*asked[:2], one, *asked[2:])
        self._asked.clear()

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

    def has_effects(self) -> bool:
        """Whether anything but progress waits for `drain`."""
        return bool(self._effects.outcomes or self._effects.quarantined)

    def drain(self) -> Effects | None:
        """The effects since the last call with the progress to commit; None when nothing was read.

        ValueError while something that was asked for has not ended: its decision would be passed for good.
        """
        if self._asked:
            raise ValueError(f"{len(self._asked)} intents of partition {self.part} have not ended")
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
