"""What follows decisions: actions (one outcome per intent) and cases (triggers and outcomes in any order)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from fp_contracts import topics
from fp_contracts.header import Kind
from fp_contracts.ids import h32
from fp_runtime.eventtime.sequence import Seen, SourceTrack

from .bugs import Bug
from .decide import Outbox
from .kernel import Fenced, Kernel, Rec, Steps, Tp


class Position(NamedTuple):
    """Progress on one input of a consumer that works in the order of the log: next offset, sequences seen."""

    offset: int = 0
    last: int = 0
    gaps: tuple[int, ...] = ()


@dataclass
class Rows:
    """Truth of actions and of cases."""

    outbox: dict[int, Outbox]
    positions: dict[tuple[Tp, str], Position] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    triggers: dict[str, int] = field(default_factory=dict)
    attached: dict[str, set[str]] = field(default_factory=dict)
    loose: dict[str, set[str]] = field(default_factory=dict)


class Reader:
    """Reads records of one kind and source in one topic-partition; effects and progress go in one transaction."""

    def __init__(self, kernel: Kernel, rows: Rows, scope: str, epoch: int, tp: Tp, source: str, kind: Kind) -> None:
        self._kernel, self._rows, self._scope, self._epoch = kernel, rows, scope, epoch
        self._tp, self._source, self._kind = tp, source, kind
        self._at = rows.positions.get((tp, source), Position())
        self._track = SourceTrack(self._at.last, gaps=self._at.gaps)

    def turn(self, work: "Apply") -> Steps:
        """Take the next records and commit what they change, by compare-and-set on the position."""
        start, log = self._at.offset, self._kernel.logs[self._tp]
        if len(log) == start:
            return
        records = log[start : start + self._kernel.rng.randint(1, self._kernel.plan.poll)]
        fresh = [orjson.loads(rec.value) for rec in records if self._is_new(rec)]
        after = Position(start + len(records), self._track.last, tuple(sorted(self._track.gaps)))
        if self._kernel.bug is Bug.GAPS_NOT_KEPT:
            after = after._replace(last=self._track.contiguous, gaps=())
        yield

        def apply() -> None:
            if self._rows.positions.get((self._tp, self._source), Position()) != self._at:
                raise Fenced
            work(self._rows, self._tp, fresh)
            self._rows.positions[self._tp, self._source] = after

        self._kernel.commit(self._scope, self._epoch, apply)
        self._at = after

    def _is_new(self, rec: Rec) -> bool:
        header = rec.header
        if header.source != self._source or header.kind is not self._kind:
            return False
        return self._track.accept(header.seq, header.payload_hash, header.order_us) is Seen.NEW


class Apply:
    """Effects of one batch of payloads on the rows, inside the transaction."""

    def __init__(self, bug: Bug | None) -> None:
        self._bug = bug

    def __call__(self, rows: Rows, tp: Tp, fresh: Iterable[dict[str, Any]]) -> None:
        """Execute intents of decisions."""
        outbox = rows.outbox[tp[1]]
        for decision in fresh:
            for action in decision["intents"]:
                if action in rows.outcomes:
                    raise AssertionError(f"action {action} executed twice")
                rows.outcomes[action] = decision["replays"]["event"]
                outcome = {"action": action, "case": h32("case", decision["replays"]["event"])}
                outbox.add(tp, Kind.ACTION_OUTCOME, 0, outcome)
                outbox.add((topics.AUDIT, tp[1] % 3), Kind.AUDIT_RECORD, 0, {"id": action, "kind": "OUTCOME"})


class Attach(Apply):
    """Cases: whichever of trigger and outcome comes second attaches."""

    def __call__(self, rows: Rows, tp: Tp, fresh: Iterable[dict[str, Any]]) -> None:
        """Open a case for each trigger, attach each outcome."""
        for fact in fresh:
            case = fact["case"]
            if tp[0] == topics.CASE_TRIGGERS:
                rows.triggers[case] = fact["intents"]
                rows.attached[case] = rows.loose.pop(case, set())
            elif case in rows.attached:
                rows.attached[case].add(fact["action"])
            elif self._bug is not Bug.OUTCOME_BEFORE_TRIGGER_DROPPED:
                rows.loose.setdefault(case, set()).add(fact["action"])


def actions(kernel: Kernel, rows: Rows) -> Steps:
    """The actions process: decisions in, outcomes out."""
    epoch = kernel.raise_epoch("actions")
    work = Apply(kernel.bug)
    readers = [
        Reader(kernel, rows, "actions", epoch, (topics.RTDL, part), f"df:{part}", Kind.DECISION) for part in range(6)
    ]
    yield
    while True:
        yield 20
        for reader in readers:
            yield from reader.turn(work)
        for outbox in rows.outbox.values():
            yield from outbox.drain(kernel, "actions", epoch)


def cases(kernel: Kernel, rows: Rows) -> Steps:
    """The case process: triggers and outcomes, in whatever order they come."""
    epoch = kernel.raise_epoch("cases")
    work = Attach(kernel.bug)
    readers = [
        Reader(kernel, rows, "cases", epoch, (topics.RTDL, part), f"al:{part}", Kind.ACTION_OUTCOME)
        for part in range(6)
    ]
    for part in range(3):
        tp = (topics.CASE_TRIGGERS, part)
        readers += [Reader(kernel, rows, "cases", epoch, tp, f"df:{of}", Kind.CASE_TRIGGER) for of in range(6)]
    yield
    while True:
        yield 20
        for reader in readers:
            yield from reader.turn(work)
