"""The writer: claim, publish, record, answer; one claim at a time, produced in that order (dataflow.md §3)."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from fp_contracts.reasons import LineClass
from fp_contracts.topics import INGRESS
from fp_ig import claims, records
from fp_ig.claims import Known, Lane, Numbered, Part, Recent, Row
from fp_ig.intake import Answer, Batch, Classes, Intake, Unknown
from fp_ig.lines import Admissible, Quarantined
from fp_ig.records import Attempt, Fact, Stamp
from fp_ig.resolver import Resolver
from fp_runtime import failpoint
from fp_runtime.bus import Producer, TopicPartition
from fp_runtime.errors import Unavailable
from fp_runtime.problem import Code, Problem
from fp_runtime.telemetry import Metric, counter, gauge, send_span

RECENT_IDENTITIES = 50_000
PROBE_AFTER_S = 1.0
RETRY_S = 0.5
# The lanes of a paced stream send on one tick: what comes within this time is one claim, one produce, one set of facts.
GATHER_S = 0.002
_SAMPLED = b"-01"  # a traceparent that ends otherwise has no trace to link to

log = structlog.get_logger()


class Store(Protocol):
    """The claims of one run and writer. Every write is conditional on the owner epoch: Fenced for a zombie."""

    def lanes(self) -> list[Lane]:
        """The writer's lanes, after any claim whose commit is still in doubt."""
        ...

    def open_claims(self, lane: Lane) -> list[Attempt]:
        """Claims of a lane without a fact, in sequence order, as the records they are."""
        ...

    def claim(self, parts: Sequence[Numbered]) -> bool:
        """Commit rows, bytes and lane states of all parts, or nothing: False when an identity is claimed already."""
        ...

    def known(self, identities: Sequence[bytes]) -> dict[bytes, Known]:
        """First claims of those identities that have one."""
        ...

    def rows(self, lane: int, first_seq: int, last_seq: int) -> list[Row]:
        """First classes of known lines, in order."""
        ...

    def principal(self, name: str) -> int:
        """The number of a principal."""
        ...

    def record(self, facts: Sequence[Fact]) -> None:
        """Commit publish facts."""
        ...

    def note_unknown(self, attempts: Sequence[Attempt]) -> None:
        """Commit that these publishes are in doubt; repeatable."""
        ...

    def high_water(self, lane: int, topic: int, before_seq: int) -> int | None:
        """The offset behind the last record published in order below a sequence; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What this writer did since its start: for heartbeats and telemetry, never for gates."""

    admitted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    open_unknown: int = 0


class Writer:
    """One writer of one run. `step` from one thread; `counts` may be read from any."""

    def __init__(
        self,
        store: Store,
        producer: Producer,
        intake: Intake,
        resolver: Resolver,
        stamp: Stamp,
        probe: Callable[[TopicPartition], object],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`probe` asks the bus for anything of a partition and raises Unavailable when it is down."""
        self._store = store
        self._producer = producer
        self._intake = intake
        self._resolver = resolver
        self._stamp = stamp
        self._probe = probe
        self._clock_s = clock_s
        self._lanes: dict[int, Lane] | None = None
        self._open: dict[int, list[Attempt]] = {}
        self._recent = Recent(RECENT_IDENTITIES)
        self._acked_at = float("-inf")
        self._retry_at = float("-inf")
        self._seen = dict.fromkeys(LineClass, 0)

    def counts(self) -> Counts:
        """Lines by class, and publishes in doubt now."""
        seen = self._seen
        return Counts(
            seen[LineClass.ADMITTED], seen[LineClass.DUPLICATE], seen[LineClass.QUARANTINED],
            sum(len(attempts) for attempts in list(self._open.values())),
        )  # fmt: skip

    def settled(self) -> bool:
        """Whether the lanes are loaded and every claim has its fact."""
        return self._lanes is not None and not self._open

    def recover(self) -> bool:
        """Load the lanes and resolve every claim without a fact; whether all is settled. For start-up and after doubt.

        Raises Fenced; a dependency that is down leaves it for later.
        """
        if self._clock_s() < self._retry_at:
            return False
        try:
            if self._lanes is None:
                lanes = {lane.number: lane for lane in self._store.lanes()}
                open_claims = {number: self._store.open_claims(lane) for number, lane in lanes.items()}
                self._open = {number: attempts for number, attempts in open_claims.items() if attempts}
                self._lanes = lanes
            for number, attempts in list(self._open.items()):
                left = self._resolver.resolve(attempts)
                self._keep_open(number, left)
        except Unavailable as down:
            log.warning("recovery waits", reason=str(down))
        if not self.settled():
            self._retry_at = self._clock_s() + RETRY_S
        return self.settled()

    def step(self, timeout_s: float) -> int:
        """Serve the batches that wait, one per lane; how many. Raises Fenced and BusBroken: this process must end."""
        batches = self._intake.take(timeout_s, len(self._lanes or ()), GATHER_S)
        if not self.settled():
            self.recover()
        if not batches:
            return 0
        answers: dict[int, Answer] = {}
        try:
            self._serve(batches, answers)
        finally:
            for batch in batches:
                batch.answer.set_result(answers.get(batch.lane, Unknown()))
        return len(batches)

    def _serve(self, batches: Sequence[Batch], answers: dict[int, Answer]) -> None:
        ready = self._admit_batches(batches, answers)
        if not ready:
            return
        try:
            parts = self._parts(ready, answers)
            self._probe_bus(parts)
            numbered = self._claim(parts)
        except Unavailable as down:
            self._lanes = None  # the commit may have come through: ask the store before the next claim
            refused = _unavailable(Code.STORE_UNAVAILABLE, str(down))
            answers.update({batch.lane: refused for batch in ready if batch.lane not in answers})
            return
        failpoint.hit(failpoint.Failpoint.IG_AFTER_CLAIM)
        try:
            self._publish(numbered)
        except Unavailable as down:
            self._lanes = None  # published, but the facts may be missing: resolved from the claims
            log.warning("facts not recorded", reason=str(down))
            return
        failpoint.hit(failpoint.Failpoint.IG_BEFORE_RESPONSE)
        self._answer(ready, numbered, answers)

    def _admit_batches(self, batches: Sequence[Batch], answers: dict[int, Answer]) -> list[Batch]:
        """Batches that may go on now; the others are answered."""
        ready = []
        for batch in batches:
            if self._lanes is None:
                answers[batch.lane] = _unavailable(Code.STORE_UNAVAILABLE, "the claims are not loaded")
            elif batch.lane not in self._lanes:
                answers[batch.lane] = Problem(421, Code.LANE_NOT_HERE, f"lane {batch.lane} belongs to another writer")
            elif batch.first_seq > self._lanes[batch.lane].last_lane_seq + 1:
                expected = self._lanes[batch.lane].last_lane_seq + 1
                answers[batch.lane] = Problem(409, Code.LANE_SEQ_GAP, f"lane {batch.lane} goes on at {expected}")
            elif batch.lane in self._open:
                answers[batch.lane] = self._while_open(batch, self._lanes[batch.lane])
            else:
                ready.append(batch)
        return ready

    def _while_open(self, batch: Batch, lane: Lane) -> Answer:
        """Nothing later goes to a lane while one publish there is in doubt."""
        if batch.lines and batch.first_seq + len(batch.lines) - 1 <= lane.last_lane_seq:
            return Unknown()
        return _unavailable(Code.UNRESOLVED, f"lane {batch.lane} waits for a publish in doubt")

    def _parts(self, ready: list[Batch], answers: dict[int, Answer]) -> list[Part]:
        """The new lines of each batch; a batch whose known lines came with other content before is taken out."""
        assert self._lanes is not None
        parts = []
        for batch in list(ready):
            lane = self._lanes[batch.lane]
            known = min(len(batch.lines), max(0, lane.last_lane_seq + 1 - batch.first_seq))
            first = self._first_classes(batch, known)
            if first is None:
                answers[batch.lane] = Problem(
                    409, Code.LANE_SEQ_REUSED, f"lane {batch.lane}: a line number came with another line before"
                )
                ready.remove(batch)
                continue
            principal = self._store.principal(batch.principal)
            parts.append(Part(lane, batch.lines[known:], batch.frontier_us, principal, first))
        return parts

    def _first_classes(self, batch: Batch, known: int) -> list[Row] | None:
        if not known:
            return []
        rows = self._store.rows(batch.lane, batch.first_seq, batch.first_seq + known - 1)
        same = all(row.payload_hash == _digest(line) for row, line in zip(rows, batch.lines, strict=False))
        return rows if same and len(rows) == known else None

    def _probe_bus(self, parts: Sequence[Part]) -> None:
        """Ask the bus before a claim unless it answered within the last second."""
        if parts and self._clock_s() - self._acked_at > PROBE_AFTER_S:
            self._probe((INGRESS[0], parts[0].lane.number))
            self._acked_at = self._clock_s()

    def _claim(self, parts: Sequence[Part]) -> list[Numbered]:
        """Number and commit; when identities turn out to be claimed, number again without them."""
        stored: dict[bytes, Known] = {}
        while True:
            fresh: dict[bytes, Known] = {}
            numbered = [claims.number(part, stored | self._recent.among(part.identities()), fresh) for part in parts]
            changed = [done for done in numbered if done.after != done.before]
            if not changed or self._store.claim(changed):
                break
            stored |= self._store.known(list(fresh))
        self._adopt(numbered, fresh)
        return numbered

    def _adopt(self, numbered: Sequence[Numbered], fresh: Mapping[bytes, Known]) -> None:
        assert self._lanes is not None
        self._recent.add(fresh)
        seen = Counter({LineClass.ADMITTED: sum(len(done.raws) for done in numbered)})
        for done in numbered:
            self._lanes[done.after.number] = done.after
            seen.update(row.line_class for row in done.others)
        for line_class, n in seen.items():
            self._seen[line_class] += n
            counter(Metric.LINES).add(n, {"class": line_class.value})

    def _publish(self, numbered: Sequence[Numbered]) -> None:
        sent = [one for done in numbered for one in records.sent(self._stamp, done)]
        outs = [out for one in sent for out in one.outs]
        traces = [out.traceparent for out in outs if out.traceparent]
        sampled = [trace for trace in traces if trace.endswith(_SAMPLED)]
        with send_span("ingress", len(outs), sampled):
            deliveries = self._producer.publish(outs)
        failpoint.hit(failpoint.Failpoint.IG_AFTER_PRODUCE)
        facts, missing = records.settled(sent, deliveries)
        if not missing:
            self._acked_at = self._clock_s()
        if facts:
            self._store.record(facts)
        failpoint.hit(failpoint.Failpoint.IG_AFTER_FACT)
        for lane in {one.lane for one in missing}:
            log.warning("publish in doubt", lane=lane, records=sum(one.lane == lane for one in missing))
            self._keep_open(lane, [one for one in missing if one.lane == lane])

    def _keep_open(self, lane: int, attempts: list[Attempt]) -> None:
        if attempts:
            self._open[lane] = attempts
        else:
            self._open.pop(lane, None)
        gauge(Metric.UNKNOWN_OPEN).set(self.counts().open_unknown)

    def _answer(self, ready: Sequence[Batch], numbered: Sequence[Numbered], answers: dict[int, Answer]) -> None:
        for batch, done in zip(ready, numbered, strict=True):
            if batch.lane not in self._open:
                answers[batch.lane] = Classes(done.classes())


def _digest(line: Admissible | Quarantined) -> bytes:
    return line.sha256 if isinstance(line, Quarantined) else line.payload_hash


def _unavailable(code: Code, detail: str) -> Problem:
    return Problem(503, code, detail, retry_after_s=1)
