"""The label store's writer: adjudication batches to assertions, one transaction each, answered when published.

Labels of one partition take their sequence from one locked row. Every batch, label or none, is followed by a watermark
on every label partition: frontier = what the adjudicator promised + the effect delay (dataflow.md §3, §6).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fp_cm_ls.labels import Rejected, order_of, read_assertion
from fp_cm_ls.plan import LABEL_SOURCE, RunPlan
from fp_contracts import derive, topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import LabelAssertion
from fp_contracts.header import Header, Kind, Mark, pack
from fp_contracts.partition import partition_of
from fp_contracts.timestamps import to_text
from fp_runtime.bus import Out, Producer
from fp_runtime.errors import Unavailable
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.outbox import Queued


class LaneBroken(Exception):
    """A batch that does not follow the lane's numbers (gap, or other bytes under a known one): nothing was taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class LaneState:
    """Where the adjudication lane stands; `seqs` and `floors_us` by label partition."""

    last_lane_seq: int
    frontier_us: int
    seqs: tuple[int, ...]
    floors_us: tuple[int, ...]

    @classmethod
    def beginning(cls, parts: int) -> "LaneState":
        """Before the first line, with so many label partitions."""
        return cls(0, 0, (0,) * parts, (0,) * parts)


@dataclass(frozen=True, slots=True)
class LineRow:
    """One line's first class: (ACCEPTED, assertion id), (DUPLICATE, assertion id) or (REJECTED, reason)."""

    lane_seq: int
    line_class: str
    detail: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class AssertionRow:
    """An accepted assertion with its order and its place in the sequence of its partition."""

    assertion: LabelAssertion
    order_us: int
    part: int
    seq: int
    fingerprint: str


class Content(NamedTuple):
    """What an assertion says, so that another word under its id is seen; its id does not hold all of it."""

    fingerprint: str
    merchant_id: str
    account_id: str | None

    @classmethod
    def of(cls, assertion: LabelAssertion) -> "Content":
        """The content of an assertion."""
        subject = assertion.subject
        fields = assertion.model_dump(mode="json")
        fingerprint = derive.content_fingerprint(derive.LABEL_FIELDS, fields, subject.event_id)
        return cls(fingerprint, subject.merchant_id, subject.account_id)


@dataclass(slots=True)
class LabelBatch:
    """What one request brings about."""

    principal: str
    before: LaneState
    after: LaneState
    lines: list[LineRow] = field(default_factory=list)
    rows: list[AssertionRow] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)


class Store(Protocol):
    """Where labels live; every method raises Unavailable, `commit` also Fenced."""

    def own(self) -> None:
        """Become the one owner of the label store of this run."""
        ...

    def load(self) -> LaneState | None:
        """Where the lane stands, None before its first line."""
        ...

    def lines(self, first: int, last: int) -> list[LineRow]:
        """Lines first..last, as far as they are taken, in order."""
        ...

    def known(self, assertion_ids: Sequence[str]) -> dict[str, Content]:
        """What is asserted already under those of the ids that are known."""
        ...

    def commit(self, batch: LabelBatch) -> None:
        """Lines, assertions, timelines, outbox and lane in one transaction."""
        ...

    def publish_all(self, producer: Producer) -> None:
        """Publish what is committed and unpublished, in order, and record the facts."""
        ...


class LabelDesk:
    """Takes one batch at a time; call from one thread."""

    def __init__(self, plan: RunPlan, store: Store, producer: Producer) -> None:
        self._plan = plan
        self._store = store
        self._producer = producer
        store.own()
        store.publish_all(producer)
        self._unpublished = False
        self.state = store.load() or LaneState.beginning(plan.label_parts)

    def take(self, first_seq: int, lines: Sequence[bytes], frontier_us: int, principal: str) -> list[tuple[str, str]]:
        """Class of every line, given once all is published. LaneBroken when numbers are missing before the batch."""
        last = first_seq + len(lines) - 1
        fresh_from = max(first_seq, self.state.last_lane_seq + 1)
        if lines and first_seq > self.state.last_lane_seq + 1:
            raise LaneBroken("LANE_SEQ_GAP", f"line {self.state.last_lane_seq + 1} is expected, {first_seq} came")
        self._check_resent(first_seq, lines[: fresh_from - first_seq])
        fresh = lines[fresh_from - first_seq :] if lines else ()
        if fresh or frontier_us > self.state.frontier_us:
            batch = self._read(fresh_from, fresh, frontier_us, principal)
            hit(Failpoint.CM_LS_BEFORE_COMMIT)
            self._unpublished = self._unpublished or bool(batch.queued)
            self._store.commit(batch)
            self.state = batch.after
            hit(Failpoint.CM_LS_AFTER_COMMIT)
        if self._unpublished:  # most batches only move the frontier
            self._store.publish_all(self._producer)
            self._unpublished = False
        hit(Failpoint.CM_LS_AFTER_PUBLISH)
        self._mark()
        return [(line.line_class, line.detail) for line in self._store.lines(first_seq, last)] if lines else []

    def _check_resent(self, first_seq: int, lines: Sequence[bytes]) -> None:
        """A number stands for one line: the same number with other bytes is no resend."""
        known = self._store.lines(first_seq, first_seq + len(lines) - 1) if lines else []
        for row, raw in zip(known, lines, strict=True):
            if row.sha256 != hashlib.sha256(raw).digest():
                raise LaneBroken("LANE_SEQ_CONFLICT", f"line {row.lane_seq} was sent before with other bytes")

    def _read(self, first_seq: int, lines: Sequence[bytes], frontier_us: int, principal: str) -> LabelBatch:
        plan, before = self._plan, self.state
        read = [read_assertion(raw, plan.pins, plan.window_end_us) for raw in lines]
        known = self._store.known([item.assertion_id for item in read if isinstance(item, LabelAssertion)])
        seqs, floors = list(before.seqs), list(before.floors_us)
        batch = LabelBatch(principal, before, before)
        for lane_seq, (raw, item) in enumerate(zip(lines, read, strict=True), first_seq):
            line_class, detail = _classify(item, known)
            batch.lines.append(LineRow(lane_seq, line_class, detail, hashlib.sha256(raw).digest()))
            if line_class == "ACCEPTED" and isinstance(item, LabelAssertion):
                known[item.assertion_id] = Content.of(item)
                self._accept(batch, item, seqs, floors)
        frontier = max(before.frontier_us, frontier_us)
        floors = [max(floor, frontier + plan.label_delay_us) for floor in floors]
        batch.after = LaneState(
            max(before.last_lane_seq, first_seq + len(lines) - 1), frontier, tuple(seqs), tuple(floors)
        )
        return batch

    def _accept(self, batch: LabelBatch, assertion: LabelAssertion, seqs: list[int], floors: list[int]) -> None:
        part = partition_of(assertion.subject.merchant_id, self._plan.label_parts)
        order_us = order_of(assertion, self._plan.label_delay_us, floors[part])
        seqs[part] += 1
        floors[part] = order_us
        batch.rows.append(AssertionRow(assertion, order_us, part, seqs[part], Content.of(assertion).fingerprint))
        batch.queued.append(self._record(assertion, order_us, part, seqs[part]))

    def _record(self, assertion: LabelAssertion, order_us: int, part: int, seq: int) -> Queued:
        pins = self._plan.pins
        body = trusted_bytes(
            {
                "event_id": assertion.assertion_id,
                "event_type": "label_assertion",
                "schema_version": "v1",
                "ts_utc": to_text(assertion.observed_us),
                "platform_run_id": pins.platform_run_id,
                "scenario_run_id": pins.scenario_run_id,
                "manifest_fingerprint": pins.manifest_fingerprint,
                "run_config_digest": pins.run_config_digest,
                "producer": "cm_ls",
                "traceparent": None,
                "payload": assertion.model_dump(mode="json"),
            }
        )
        digest = hashlib.sha256(body).digest()
        header = Header(Kind.LABEL_ASSERTION, self._plan.tag, LABEL_SOURCE, seq, order_us, digest)
        key = assertion.subject.merchant_id.encode()
        return Queued(LABEL_SOURCE, seq, Out(topics.LABELS, part, key, body, pack(header)))

    def _mark(self) -> None:
        """Re-assert the frontier on every label partition; Unavailable when one is not acknowledged."""
        frontier_us = self.state.frontier_us + self._plan.label_delay_us
        outs = []
        for part, seq in enumerate(self.state.seqs):
            mark = Mark(LABEL_SOURCE, frontier_us, seq)
            header = Header(Kind.WATERMARK, self._plan.tag, LABEL_SOURCE, 0, frontier_us, marks=(mark,))
            outs.append(Out(topics.LABELS, part, b"", b"", pack(header)))
        if any(delivery.offset is None for delivery in self._producer.publish(outs)):
            raise Unavailable("a label watermark was not acknowledged")


def _classify(item: LabelAssertion | Rejected, known: Mapping[str, Content]) -> tuple[str, str]:
    """(class, detail) of one line. Another content under a known id is no duplicate of it."""
    if isinstance(item, Rejected):
        return "REJECTED", item.reason
    said = known.get(item.assertion_id)
    if said is None:
        return "ACCEPTED", item.assertion_id
    return ("DUPLICATE", item.assertion_id) if said == Content.of(item) else ("REJECTED", "ASSERTION_CONFLICT")
