"""What the run page shows, as values: from the fold, the evidence documents and the pins. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts import control as c
from fp_contracts.fold import RunState
from fp_contracts.phases import PHASES
from fp_contracts.pins import ALERTS_MICROUSD, MONTHLY_LIMIT_MICROUSD, substitutions
from fp_contracts.proofs import LANES, PROOFS
from fp_verdict.reconcile import Documents


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase as the table shows it. Money in micro-USD; `cap` 0 = no envelope."""

    key: str
    name: str
    owner: str
    state: str
    attempt: int
    checks: tuple[c.Check, ...]
    blockers: tuple[c.Blocker, ...]
    evidence: tuple[c.EvidenceRef, ...]
    window_us: int
    spend: int
    cap: int
    risk: str

    @property
    def held(self) -> int:
        """How many checks hold."""
        return sum(check.ok for check in self.checks)

    @property
    def codes(self) -> tuple[str, ...]:
        """Its blocker codes, each once."""
        return tuple(dict.fromkeys(blocker.code for blocker in self.blockers))


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything on the page."""

    run: str
    profile: str
    scope: str
    verdict: str
    spine_verdict: str
    why: tuple[str, ...]
    over: bool
    substitutions: Mapping[str, Mapping[str, str]]
    phases: tuple[PhaseRow, ...]
    equations: tuple[Mapping[str, Any], ...]
    proofs: Mapping[str, Mapping[str, Mapping[str, Any]]]
    month_spend: int | None
    drills: tuple[c.DrillReported, ...]
    alerts: tuple[c.AlertFired, ...]
    fingerprints: Mapping[str, str]
    baseline: str
    counts: Mapping[str, int]
    merkle_root: str
    following: tuple[tuple[str, str], ...]

    @property
    def run_spend(self) -> int:
        """What the run's receipts add up to, micro-USD."""
        return sum(row.spend for row in self.phases)

    @property
    def ribbon(self) -> tuple[tuple[int, int], ...]:
        """(alert in whole USD, its place on the ribbon in percent)."""
        return tuple((at // 1_000_000, at * 100 // MONTHLY_LIMIT_MICROUSD) for at in ALERTS_MICROUSD)


def make_report(state: RunState, documents: Documents, final: Mapping[str, Any] | None) -> RunReport:
    """The report of a run as far as it is; `final` = the final verdict's document once there is one."""
    header = state.header
    config = header.config if header else None
    reconciliation = documents.get(("P11", "reconciliation"), {})
    pack = documents.get(("P11", "non_regression"), {})
    results: Mapping[str, Any] = pack.get("results", {})
    verdict, spine, why = _standing(state, final)
    return RunReport(
        run=state.platform_run_id,
        profile=config.profile if config else "not pinned",
        scope=config.scope if config else "not pinned",
        verdict=verdict,
        spine_verdict=spine,
        why=why,
        over=state.closed is not None or state.stopped is not None,
        substitutions=substitutions(config.profile) if config else {},
        phases=tuple(_row(state, key) for key in PHASES),
        equations=tuple(reconciliation.get("equations", ())),
        proofs=_proofs(documents),
        month_spend=None if state.budget is None else state.budget.spend_microusd,
        drills=tuple(state.drill_reports.values()),
        alerts=state.alerts,
        fingerprints={name: str(value) for name, value in results.items() if name.endswith("_fingerprint")},
        baseline=str(pack.get("baseline", "not compared yet")),
        counts={name: value for name, value in results.items() if isinstance(value, int)},
        merkle_root="" if final is None else str(final["merkle_root"]),
        following=_following(state, spine),
    )


def _standing(state: RunState, final: Mapping[str, Any] | None) -> tuple[str, str, tuple[str, ...]]:
    """(verdict, spine verdict, why not green)."""
    if final is not None:
        return str(final["verdict"]), str(final["spine_verdict"]), tuple(map(str, final["open"]))
    blocked = [
        f"{key}: {attempt.event.blockers[0].code} {attempt.event.blockers[0].reason}"
        for key in state.blocked()
        if (attempt := state.attempts[key]) and isinstance(attempt.event, c.GateBlocked) and attempt.event.blockers
    ]
    if blocked:
        return "BLOCKED", "BLOCKED", tuple(blocked)
    return "OPEN", "OPEN", (f"{state.earliest_open()} is the first phase that is not proven",)


def _row(state: RunState, key: str) -> PhaseRow:
    spec, attempt = PHASES[key], state.attempts.get(key)
    event = attempt.event if attempt else None
    config = state.header.config if state.header else None
    cap = next((e.max_spend_microusd for e in config.envelopes if e.phase == key), 0) if config else 0
    return PhaseRow(
        key=key, name=spec.name, owner=spec.owner, state=state.state_of(key), attempt=state.attempt_of(key),
        checks=event.checks if event else (),
        blockers=event.blockers if isinstance(event, c.GateBlocked) else (),
        evidence=event.evidence if event else (),
        window_us=event.receipt.window_us if event else 0,
        spend=event.receipt.spend_microusd if event else 0,
        cap=cap, risk=spec.risk,
    )  # fmt: skip


def _proofs(documents: Documents) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    shown: Mapping[str, Any] = documents.get(("P16", "proof_matrix"), {}).get("lanes", {})
    unknown = {"state": "OPEN", "reason": "P16 is not evaluated yet", "ref": None}
    return {lane: {proof: shown.get(lane, {}).get(proof, unknown) for proof in PROOFS} for lane in LANES}


def _following(state: RunState, spine: str) -> tuple[tuple[str, str], ...]:
    """(command, what it does) that make sense next."""
    run, blocked = state.platform_run_id, [key for key in state.blocked() if key != "P16"]
    if blocked:
        return (
            (f"fp why {blocked[0]}", "the failing check, observed against required, and the playbook"),
            (f"fp resume --from {blocked[0]} --reason '…'", "a new attempt from the failed boundary"),
        )
    if state.verdict is not None:
        done = [
            (f"fp evidence export {run}", "one self-contained bundle"),
            ("fp verify BUNDLE", "recompute this verdict offline, without any service"),
            ("fp down", "make the environment idle-safe"),
        ]
        return tuple(done if spine == "GREEN" else [("fp why P16", "what is open"), *done])
    return (("fp watch", "the phases as they close"), ("fp status", "this table in the terminal"))


def as_status(report: RunReport) -> dict[str, Any]:
    """The documented JSON of `fp status`."""
    return {
        "platform_run_id": report.run,
        "profile": report.profile,
        "scope": report.scope,
        "verdict": report.verdict,
        "spine_verdict": report.spine_verdict,
        "phases": [
            {
                "phase": row.key,
                "state": row.state,
                "attempt": row.attempt,
                "checks": {"ok": row.held, "of": len(row.checks)},
                "blockers": [blocker.code for blocker in row.blockers],
                "seconds": row.window_us / 1_000_000,
                "spend_usd": row.spend / 1_000_000,
            }
            for row in report.phases
        ],
    }
