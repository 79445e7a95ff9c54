"""Phases that close before a run exists (P(-1), P0): envelope first, then evidence and receipt, under the control root.

Runs carry their gates by reference.
"""

import secrets
from dataclasses import dataclass

from fp_contracts import control as c
from fp_contracts.canonical import canonical_bytes
from fp_contracts.evaluation import Evaluation
from fp_contracts.ids import h32
from fp_contracts.phases import PHASES
from fp_operator.runplan import envelopes
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, put_json

ROOT = "evidence/dev_full/run_control"


@dataclass(frozen=True, slots=True)
class Opened:
    """A phase that began: its execution and its spend envelope, already written."""

    phase: str
    execution: str
    limit: c.EvidenceRef
    max_spend_microusd: int
    actor: str
    reason: str

    @property
    def root(self) -> str:
        return f"{ROOT}/{self.execution}"


def open_phase(store: EvidenceStore, phase: str, actor: str = "operator", reason: str = "") -> Opened:
    """Write the spend envelope before any work of the phase (spec §3.4); the receipt will say who asked and why."""
    limit = next(e for e in envelopes(1) if e.phase == phase)
    execution = h32("control", phase, secrets.token_hex(16))
    ref = put_json(store, f"{ROOT}/{execution}/envelope.json", limit.model_dump(mode="json"))
    return Opened(phase, execution, ref, limit.max_spend_microusd, actor, reason)


def close_phase(
    store: EvidenceStore, opened: Opened, evaluation: Evaluation, spend_microusd: int, window_us: int
) -> c.GatePassed:
    """Evidence and receipt of a phase as the gate that runs publish; UserError naming the first failed predicate."""
    failed = [p for p in evaluation.predicates if not p.ok]
    if failed:
        p = failed[0]
        raise UserError(
            f"{opened.phase} {p.code}", f"{p.name}: {p.observed}, required {p.required}", "see `fp doctor`, mend it"
        )
    if spend_microusd > opened.max_spend_microusd:
        code = PHASES[opened.phase].blockers[0]
        raise UserError(
            f"{opened.phase} {code}", f"spent {spend_microusd} of {opened.max_spend_microusd} µUSD", "`fp up` again"
        )
    refs = tuple(
        store.put(f"{opened.root}/{name}.json", canonical_bytes(document))
        for name, document in evaluation.documents.items()
    )
    receipt = c.Receipt(
        phase=opened.phase, attempt=1, spend_microusd=spend_microusd, first_sample=0, last_sample=0,
        window_us=window_us, artifacts=tuple(ref.key for ref in refs), risk_retired=PHASES[opened.phase].risk,
    )  # fmt: skip
    asked = {"actor": opened.actor, "reason": opened.reason}
    put_json(store, f"{opened.root}/receipt.json", receipt.model_dump(mode="json") | asked)
    checks = tuple(
        c.Check(name=p.name, observed=p.observed, required=p.required, ok=p.ok) for p in evaluation.predicates
    )
    return c.GatePassed(
        phase=opened.phase, attempt=1, phase_execution_id=opened.execution, checks=checks, evidence=refs,
        receipt=receipt,
    )  # fmt: skip
