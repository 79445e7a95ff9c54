"""One payment's whole life in a run: admission, offsets, snapshot, decision, audit, outcome, case, labels."""

from dataclasses import dataclass
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.canonical import sha256_hex
from fp_contracts.ids import identity_key
from fp_contracts.ingress import INGRESS_TYPES
from fp_contracts.timestamps import to_text
from fp_operator.decisions import number
from fp_runtime import outbox
from fp_runtime.bus import Consumer, Record
from fp_runtime.errors import UserError
from fp_runtime.postgres import Connection

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tracer:
    """Reads one run's tables and topics."""

    conn: Connection
    consumer: Consumer
    run: str

    def trace(self, event_id: str) -> list[Step]:
        """One object per step, in order; UserError when the run never saw the event."""
        steps = self._admissions(event_id)
        if not steps:
            raise UserError(f"event {event_id[:64]}", "this run never saw it", "see `fp tail` for event ids")
        decided = self._decision(event_id)
        steps += decided
        if decided:
            steps += self._audit(decided[-1]["decision_id"]) + self._outcomes(decided[-1]["decision_id"])
        return [*steps, *self._case(event_id), *self._labels(event_id)]

    def _admissions(self, event_id: str) -> list[Step]:
        """Every line that carried the event: admitted with its offset, seen again, or refused."""
        identities = {
            kind.event_class: identity_key(self.run, kind.event_class, event_id) for kind in INGRESS_TYPES.values()
        }
        rows = self.conn.execute(
            "SELECT identity, lane, lane_seq, class, reason, principal, receipt_id, payload_hash, kind, seq, order_us"
            " FROM ig.receipt WHERE run = %s AND identity = ANY(%s) ORDER BY lane, lane_seq",
            (self.run, list(identities.values())),
        ).fetchall()
        class_of = {identity: name for name, identity in identities.items()}
        return [self._admission(class_of[bytes(row[0])], row) for row in rows]

    def _admission(self, event_class: str, row: tuple[Any, ...]) -> Step:
        _, lane, lane_seq, outcome, reason, principal, receipt_id, digest, _, seq, order_us = row
        step: Step = {
            "step": "admission", "event_class": event_class, "class": outcome, "reason": reason, "lane": lane,
            "lane_seq": lane_seq, "principal": principal, "receipt_id": receipt_id, "payload_sha256": digest.hex(),
        }  # fmt: skip
        if seq is None:
            return step
        topic = next(kind.topic for kind in INGRESS_TYPES.values() if kind.event_class == event_class)
        offset = self._ingress_offset(lane, topic, seq)
        step |= {"seq": seq, "order": to_text(order_us), "topic": topic, "partition": lane, "offset": offset}
        if offset is not None:
            step["record_sha256"] = sha256_hex(self.record(topic, lane, offset).value)
        return step

    def _ingress_offset(self, lane: int, topic: str, seq: int) -> int | None:
        row = self.conn.execute(
            "SELECT first_offset + %s - first_seq FROM ig.fact JOIN ig.run USING (run_no) WHERE run = %s AND lane = %s"
            " AND topic = %s AND first_seq <= %s AND first_seq + n > %s ORDER BY first_offset LIMIT 1",
            (seq, self.run, lane, topics.INGRESS.index(topic), seq, seq),
        ).fetchone()
        return row[0] if row else None

    def _decision(self, event_id: str) -> list[Step]:
        row = self.conn.execute(
            "SELECT decision_id, part, seq FROM df.decision WHERE run = %s AND event_id = %s", (self.run, event_id)
        ).fetchone()
        if row is None:
            return []
        decision_id, part, seq = row
        body, offset = self._queued(f"df:{part}", topics.RTDL, part, seq)
        decision = orjson.loads(body)["payload"]
        place = decision["snapshot_offset"]
        record = self.record(place["topic"], place["partition"], place["offset"])
        snapshot = orjson.loads(record.value)["payload"]
        return [
            {
                "step": "snapshot", **place, "record_sha256": sha256_hex(record.value),
                "snapshot_hash": snapshot["snapshot_hash"], "join_status": snapshot["join_status"],
                "degrade_reasons": snapshot["degrade_reasons"], "context_offsets": snapshot["context_offsets"],
                "amount_minor": snapshot["amount_minor"], "currency": snapshot["currency"],
            },
            {
                "step": "decision", "decision_id": decision_id, "topic": topics.RTDL, "partition": part,
                "offset": offset, "record_sha256": sha256_hex(body), "action": decision["action"],
                "reason_codes": decision["reason_codes"], "posture": decision["posture"],
                "score": number(decision["score"]), "bundle_ref": decision["bundle_ref"],
                "policy_rev": decision["policy_rev"], "snapshot_hash": decision["snapshot_hash"],
                "intents": decision["intents"],
            },
        ]  # fmt: skip

    def _queued(self, source: str, topic: str, part: int, seq: int) -> tuple[bytes, int | None]:
        """The exact bytes of an outbox record and the offset at which it was acknowledged."""
        stored = outbox.record(self.conn, self.run, source, topic, part, seq)
        if stored is None:
            raise UserError(f"record {source} {seq}", "the outbox does not have it", "see `fp why P9`")
        row = self.conn.execute(
            "SELECT first_offset + %s - first_seq FROM ops.outbox_fact WHERE run = %s AND source = %s AND topic = %s"
            " AND part = %s AND first_seq <= %s AND first_seq + n > %s ORDER BY first_offset LIMIT 1",
            (seq, self.run, source, topic, part, seq, seq),
        ).fetchone()
        return stored.out.value, None if row is None else row[0]

    def _audit(self, decision_id: str) -> list[Step]:
        rows = self.conn.execute(
            "SELECT kind, chain, chain_seq, action_id, prev_hash, record_hash FROM df.audit"
            " WHERE run = %s AND decision_id = %s ORDER BY chain, chain_seq",
            (self.run, decision_id),
        ).fetchall()
        return [
            {
                "step": "audit", "kind": kind, "chain": chain, "chain_seq": chain_seq, "action_id": action_id,
                "prev_hash": before.hex(), "record_hash": digest.hex(),
            }
            for kind, chain, chain_seq, action_id, before, digest in rows
        ]  # fmt: skip

    def _outcomes(self, decision_id: str) -> list[Step]:
        rows = self.conn.execute(
            "SELECT action_id, kind, status, attempts, reason FROM df.outcome WHERE run = %s AND decision_id = %s"
            " ORDER BY action_id",
            (self.run, decision_id),
        ).fetchall()
        names = ("action_id", "kind", "status", "attempts", "reason")
        return [{"step": "action", **dict(zip(names, row, strict=True))} for row in rows]

    def _case(self, event_id: str) -> list[Step]:
        rows = self.conn.execute(
            "SELECT t.case_id, t.trigger_id, l.n, l.kind, l.ref, l.event_us FROM cm.trigger t"
            " JOIN cm.timeline l USING (run, case_id) WHERE t.run = %s AND t.source_event_id = %s ORDER BY case_id, n",
            (self.run, event_id),
        ).fetchall()
        return [
            {
                "step": "case", "case_id": case, "trigger_id": trigger, "n": n, "kind": kind, "ref": ref,
                "event": to_text(event_us),
            }
            for case, trigger, n, kind, ref, event_us in rows
        ]  # fmt: skip

    def _labels(self, event_id: str) -> list[Step]:
        rows = self.conn.execute(
            "SELECT assertion_id, label_type, label_value, effective_us, observed_us, source, part, seq"
            " FROM cm.assertion WHERE run = %s AND event_id = %s ORDER BY observed_us, assertion_id",
            (self.run, event_id),
        ).fetchall()
        return [
            {
                "step": "label", "assertion_id": assertion, "label_type": kind, "label_value": value,
                "effective": to_text(effective_us), "observed": to_text(observed_us), "source": source,
                "topic": topics.LABELS, "partition": part, "offset": self._queued("ls", topics.LABELS, part, seq)[1],
            }
            for assertion, kind, value, effective_us, observed_us, source, part, seq in rows
        ]  # fmt: skip

    def record(self, topic: str, partition: int, offset: int) -> Record:
        """The record at a place; UserError when the bus no longer has it."""
        self.consumer.assign({(topic, partition): offset})
        for record in self.consumer.poll(500, 10.0):
            if record.offset == offset:
                return record
        raise UserError(f"{topic} {partition} {offset}", "the bus does not have it", "see the archive of the run")
