"""Closing a phase: an evaluation becomes write-once evidence, a receipt and one gate event (gates.md, laws 11-15).

A closure is journaled first (`ops.gate_closure`, one row per run, phase, attempt): whoever inserts the row has closed
the phase, and after a crash the same bytes are put and published again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from fp_contracts import control as c
from fp_contracts.canonical import canonical_bytes, sha256_hex
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.fold import RunState
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_runtime import meter
from fp_runtime.evidence import EvidenceStore

POSTURE_MAX_AGE_US = 48 * 3_600_000_000
_BEFORE_POSTURE = ("P(-1)", "P0", "P1")


def cost_predicates(state: RunState, phase: str, now_us: int) -> tuple[Predicate, ...]:
    """Law 15 as predicates: an envelope is recorded, the budget posture is fresh and below alert 3."""
    code = PHASES[phase].blockers[0]
    config = state.header.config if state.header else (state.pin_request.config if state.pin_request else None)
    recorded = config is not None and any(envelope.phase == phase for envelope in config.envelopes)
    envelope = Predicate("spend envelope recorded", str(recorded), "True", recorded, code, final=True)
    if phase in _BEFORE_POSTURE:
        return (envelope,)
    posture = state.budget
    if posture is None:
        return (envelope, Predicate("budget posture", "missing", "fresh, below alert 3", False, code))
    fresh = now_us - posture.as_of_us <= POSTURE_MAX_AGE_US
    held = fresh and posture.alert < 3
    seen = f"alert {posture.alert}, {'fresh' if fresh else 'stale'}"
    return (envelope, Predicate("budget posture", seen, "fresh, below alert 3", held, code, final=posture.alert >= 3))


def costs_known(state: RunState, phase: str, now_us: int) -> bool:
    """Whether law 15 can be judged now: a posture that is only late may still come."""
    return all(p.ok or p.final for p in cost_predicates(state, phase, now_us))


def spend_predicate(state: RunState, phase: str, spend_microusd: int, documents: Mapping[str, Any]) -> Predicate:
    """Spend stays under the envelope and bought the artifacts it promised (spec §3.4)."""
    spec = PHASES[phase]
    config = state.header.config if state.header else (state.pin_request.config if state.pin_request else None)
    limits = [e.max_spend_microusd for e in config.envelopes if e.phase == phase] if config else []
    missing = [name for name in spec.evidence if name not in documents]
    ok = bool(limits) and spend_microusd <= limits[0] and not missing
    observed = f"{spend_microusd} µUSD, missing artifacts {missing}"
    required = f"at most {limits[0] if limits else 'no envelope'} µUSD, none missing"
    return Predicate("spend bought its artifacts", observed, required, ok, spec.blockers[-1], final=True)


@dataclass(frozen=True, slots=True)
class Closure:
    """A journaled closure: the gate event's parts and the exact document bytes."""

    event: c.GatePassed | c.GateBlocked
    bodies: Mapping[str, bytes]


def journal(conn: psycopg.Connection[Any], state: RunState, phase: str, evaluation: Evaluation, now_us: int) -> Closure:
    """Insert the closure row and book the phase's spend in one transaction.

    An existing row is returned instead, also when another holder inserts it at this moment: one closure per attempt.
    """
    run, attempt = state.platform_run_id, state.attempt_of(phase)
    with conn.transaction(), conn.cursor() as cur:
        found = load(cur, run, phase, attempt)
        if found is not None:
            return found
        spend = meter.book(cur, run, phase, attempt, state.earliest_open() == phase)
        closure = closure_of(state, phase, evaluation, spend, now_us)
        cur.execute(
            "INSERT INTO ops.gate_closure (run, phase, attempt, event, names, bodies) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (run, phase, attempt, closure.event.model_dump_json().encode(), list(closure.bodies),
             list(closure.bodies.values())),
        )  # fmt: skip
        first = cur.rowcount == 1
    if first:
        return closure
    with conn.cursor() as cur:
        found = load(cur, run, phase, attempt)
    assert found is not None
    return found


def load(cur: psycopg.Cursor[Any], run: str, phase: str, attempt: int) -> Closure | None:
    """The journaled closure of an attempt, None while there is none."""
    cur.execute(
        "SELECT event, names, bodies FROM ops.gate_closure WHERE run = %s AND phase = %s AND attempt = %s",
        (run, phase, attempt),
    )
    row = cur.fetchone()
    if row is None:
        return None
    event, names, bodies = row
    kind = c.GatePassed if orjson.loads(event)["type"] == "gate_passed" else c.GateBlocked
    return Closure(kind.model_validate_json(event), dict(zip(names, bodies, strict=True)))


def put_evidence(store: EvidenceStore, closure: Closure, run: str) -> None:
    """Put the closure's documents under its attempt; safe to repeat. Refs in the event already name them."""
    spec = PHASES[closure.event.phase]
    for name, body in closure.bodies.items():
        store.put(spec.evidence_key(run, closure.event.phase_execution_id, name), body)


def closure_of(state: RunState, phase: str, evaluation: Evaluation, spend: meter.Spend, now_us: int) -> Closure:
    """The closure that an evaluation brings: the owner's predicates, those of law 15, and one gate event. Pure."""
    documents = evaluation.documents
    predicates = (*evaluation.predicates, *cost_predicates(state, phase, now_us))
    if all(predicate.ok for predicate in predicates):
        # What failed already says why; a phase that is else sound must also have bought its artifacts.
        predicates += (spend_predicate(state, phase, spend.spend_microusd, documents),)
    run, attempt, spec = state.platform_run_id, state.attempt_of(phase), PHASES[phase]
    execution = phase_execution_id(run, phase, attempt)
    bodies = {name: canonical_bytes(document) for name, document in documents.items()}
    refs = tuple(_ref(spec.evidence_key(run, execution, name), body) for name, body in bodies.items())
    checks = tuple(c.Check(name=p.name, observed=p.observed, required=p.required, ok=p.ok) for p in predicates)
    receipt = c.Receipt(
        phase=phase, attempt=attempt, spend_microusd=spend.spend_microusd, first_sample=spend.first_sample,
        last_sample=spend.last_sample, window_us=spend.window_us, artifacts=tuple(ref.key for ref in refs),
        risk_retired=spec.risk,
    )  # fmt: skip
    failed = [p for p in predicates if not p.ok]
    if not failed:
        passed = c.GatePassed(
            phase=phase, attempt=attempt, phase_execution_id=execution, checks=checks, evidence=refs, receipt=receipt
        )
        return Closure(passed, bodies)
    blockers = tuple(c.Blocker(code=p.code, reason=f"{p.name}: {p.observed}, required {p.required}") for p in failed)
    blocked = c.GateBlocked(
        phase=phase, attempt=attempt, phase_execution_id=execution, checks=checks, evidence=refs, blockers=blockers,
        receipt=receipt,
    )  # fmt: skip
    return Closure(blocked, bodies)


def _ref(key: str, body: bytes) -> c.EvidenceRef:
    return c.EvidenceRef(key=key, sha256=sha256_hex(body), size=len(body))
