"""Closing the phases of one service: lease, evaluation, journal, evidence, event; each step safe to repeat.

A blocked attempt stays blocked: it is evaluated no more, until a resume opens the next one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psycopg

from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_runtime import gate, lease
from fp_runtime.controllog import Event
from fp_runtime.evidence import EvidenceStore
from fp_runtime.failpoint import Failpoint, hit

LEASE_S = 10.0
PATIENCE = 4
_PAUSE_S, _NOT_MINE_S = 0.1, 1.0


class Closings(Protocol):
    """Leases and journaled closures of one run's phases; the attempt is the state's."""

    def holds(self, state: RunState, phase: str) -> bool:
        """Take or renew the lease of the phase's attempt; False while another holder's runs."""
        ...

    def load(self, state: RunState, phase: str) -> gate.Closure | None:
        """What is journaled, None while nothing is."""
        ...

    def journal(self, state: RunState, phase: str, evaluation: Evaluation, now_us: int) -> gate.Closure:
        """Journal a closure; the one that stands already is returned instead."""
        ...


class PgClosings:
    """Closings in PostgreSQL."""

    def __init__(self, conn: psycopg.Connection[tuple[Any, ...]], holder: str) -> None:
        self._conn = conn
        self._holder = holder

    def holds(self, state: RunState, phase: str) -> bool:
        """See Closings."""
        name = f"gate|{state.platform_run_id}|{phase}|{state.attempt_of(phase)}"
        return lease.acquire(self._conn, name, self._holder, LEASE_S)

    def load(self, state: RunState, phase: str) -> gate.Closure | None:
        """See Closings."""
        with self._conn.cursor() as cur:
            return gate.load(cur, state.platform_run_id, phase, state.attempt_of(phase))

    def journal(self, state: RunState, phase: str, evaluation: Evaluation, now_us: int) -> gate.Closure:
        """See Closings."""
        return gate.journal(self._conn, state, phase, evaluation, now_us)


class Closer:
    """Closes phases of one run. `clock` in seconds paces, `now_us` is the wall clock of receipts."""

    def __init__(
        self,
        closings: Closings,
        store: EvidenceStore,
        publish: Callable[[RunState, Sequence[Event]], None],
        clock: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        self._closings = closings
        self._store = store
        self._publish = publish
        self._clock = clock
        self._now_us = now_us
        self._closed: set[tuple[str, int]] = set()
        self._first_seen: dict[tuple[str, int], float] = {}
        self._asked_at: dict[str, float] = {}

    def turn(self, state: RunState, phase: str, evaluate: Callable[[RunState], Evaluation | None]) -> None:
        """Close a phase if it is open and can be closed now."""
        attempt = state.attempt_of(phase)
        waits = self._clock() < self._asked_at.get(phase, 0.0)
        if waits or not state.may_open(phase) or (phase, attempt) in self._closed:
            return
        if not self._closings.holds(state, phase):
            self._asked_at[phase] = self._clock() + _NOT_MINE_S
            return
        closure = self._closings.load(state, phase) or self._judged(state, phase, evaluate)
        if closure is None:
            return
        hit(Failpoint.GATE_AFTER_JOURNAL)
        gate.put_evidence(self._store, closure, state.platform_run_id)
        hit(Failpoint.GATE_AFTER_EVIDENCE)
        self._publish(state, [(closure.event, (phase, str(attempt)))])
        self._closed.add((phase, attempt))
        hit(Failpoint.GATE_AFTER_PUBLISH)

    def _judged(
        self, state: RunState, phase: str, evaluate: Callable[[RunState], Evaluation | None]
    ) -> gate.Closure | None:
        started = self._clock()
        evaluation = evaluate(state)
        # An evaluation may be dear: asking takes at most about a quarter of this thread's time.
        self._asked_at[phase] = self._clock() + max(_PAUSE_S, 3 * (self._clock() - started))
        if evaluation is None or not self._due(state, phase, evaluation):
            return None
        if not self._closings.holds(state, phase):
            # The evaluation outlasted the lease and another member took over: its word counts.
            return None
        return self._closings.journal(state, phase, evaluation, self._now_us())

    def _due(self, state: RunState, phase: str, evaluation: Evaluation) -> bool:
        """Settled, or waited for `PATIENCE` times the expected duration of the envelope (the hard stop)."""
        if evaluation.settled() and gate.costs_known(state, phase, self._now_us()):
            return True
        first = self._first_seen.setdefault((phase, state.attempt_of(phase)), self._clock())
        return self._clock() - first > PATIENCE * expected_duration_s(state, phase)


def expected_duration_s(state: RunState, phase: str) -> int:
    """The envelope's expected duration of a phase; 60 s where the envelope is missing (and the gate will block)."""
    assert state.header is not None
    durations = [e.expected_duration_s for e in state.header.config.envelopes if e.phase == phase]
    return durations[0] if durations else 60
