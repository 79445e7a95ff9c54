"""A run's state as the stable JSON of `fp status` (experience.md §1), and as rows for people. Pure."""

from typing import Any

from fp_contracts.control import GateBlocked
from fp_contracts.fold import RunState
from fp_contracts.phases import ORDER, PHASES
from fp_operator.corridor import standing

_BEYOND_SPINE = ("P12", "P13", "P14", "P15", "P16")


def document(state: RunState) -> dict[str, Any]:
    """{"platform_run_id","profile","scope","verdict","spine_verdict","phases":[…]}; nothing is green by omission."""
    config = state.header.config if state.header else (state.pin_request.config if state.pin_request else None)
    verdict = state.verdict
    return {
        "platform_run_id": state.platform_run_id,
        "profile": config.profile if config else "unknown",
        "scope": config.scope if config else "unknown",
        "verdict": verdict.verdict if verdict else "BLOCKED",
        "spine_verdict": verdict.spine_verdict if verdict else "BLOCKED",
        "final": verdict is not None,
        "phases": [phase_row(state, key) for key in ORDER],
    }


def phase_row(state: RunState, key: str) -> dict[str, Any]:
    """One phase: state, attempt, checks, blockers, seconds and spend."""
    attempt = state.attempts.get(key)
    event = attempt.event if attempt else None
    checks = event.checks if event else ()
    blockers = list(event.blockers) if isinstance(event, GateBlocked) else []
    return {
        "phase": key,
        "name": PHASES[key].name,
        "owner": PHASES[key].owner,
        "state": state.state_of(key),
        "attempt": state.attempt_of(key),
        "checks": {"ok": sum(check.ok for check in checks), "of": len(checks)},
        "blockers": [{"code": blocker.code, "reason": blocker.reason} for blocker in blockers],
        "seconds": round(event.receipt.window_us / 1e6, 1) if event else 0,
        "spend_usd": round(event.receipt.spend_microusd / 1e6, 6) if event else 0,
    }


def first_open(state: RunState) -> str:
    """The phase that holds a run up: the first blocked one, else the first that is not passed, else the last."""
    blocked = state.blocked()
    return blocked[0] if blocked else next((key for key in ORDER if not state.passed(key)), ORDER[-1])


def why(state: RunState, phase: str) -> dict[str, Any]:
    """Why a phase is not passed: failing predicates, missing entry phases, and the command that goes on."""
    row = phase_row(state, phase)
    attempt = state.attempts.get(phase)
    event = attempt.event if attempt else None
    failing = [check.model_dump(mode="json") for check in (event.checks if event else ()) if not check.ok]
    waiting = [entry for entry in PHASES[phase].opens if not state.passed(entry)]
    evidence = [ref.key for ref in event.evidence] if event else []
    return {
        **row,
        "failing": failing,
        "waits_for": waiting,
        "evidence": evidence,
        "next": _next(state, phase, waiting),
    }


def _next(state: RunState, phase: str, waiting: list[str]) -> str:
    if state.passed(phase):
        return "nothing: the phase is closed"
    over = state.closed is not None or state.stopped is not None
    if phase == "P17" and state.verdict is not None:
        return "`fp down` judges it" if state.state_of(phase) == "OPEN" else "mend it, `fp up`, then `fp down` again"
    if over and phase in _BEYOND_SPINE and state.header is not None and state.header.config.scope == "spine":
        return "the scope of this run is the spine: `fp run --scope full` goes through P12–P15 too"
    if state.state_of(phase) == "BLOCKED" and not over:
        return f"mend what is named above, then: fp resume --from '{phase}' --reason '…'"
    if waiting:
        return f"fp why '{waiting[0]}'"
    if over:
        return "the run is over: start another one with `fp run`"
    now = standing(state)
    if now is not None and now.startswith(f"{phase} "):
        return f"{now.removeprefix(f'{phase} ')}; fp watch"
    return "the phase is being evaluated: fp watch"
