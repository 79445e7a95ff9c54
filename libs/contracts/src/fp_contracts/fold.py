"""The fold of one run's control log: what is pinned, proven, blocked and open. Total, and idempotent per event."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from fp_contracts import control as c
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.runconfig import RunHeader
from fp_contracts.waivers import Waiver


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one phase. A blocked attempt stays blocked; a resume is a new attempt (law 14)."""

    number: int
    state: str
    event: c.GatePassed | c.GateBlocked | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything the control log says of one run, as of `position` records folded."""

    platform_run_id: str
    header: RunHeader | None = None
    header_ref: c.EvidenceRef | None = None
    pin_request: c.RunPinRequested | None = None
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    history: tuple[c.GatePassed | c.GateBlocked, ...] = ()
    ready: tuple[str, ...] = ()
    windows_ended: Mapping[int, c.WindowEnded] = field(default_factory=dict)
    heartbeats: Mapping[str, c.ServiceHeartbeat] = field(default_factory=dict)
    budget: c.BudgetPosture | None = None
    policies: tuple[c.PolicyActivated, ...] = ()
    switched: tuple[c.PolicySwitched, ...] = ()
    approvals: tuple[c.BundleApprovalGiven, ...] = ()
    bundles: tuple[c.BundleSwitched, ...] = ()
    rescored: tuple[c.BundleRescored, ...] = ()
    reconciled: Mapping[int, c.WindowReconciled] = field(default_factory=dict)
    rehearsals: tuple[c.TeardownRehearsed, ...] = ()
    drills: Mapping[str, c.DrillRequested] = field(default_factory=dict)
    drill_reports: Mapping[str, c.DrillReported] = field(default_factory=dict)
    alerts: tuple[c.AlertFired, ...] = ()
    resumes: tuple[c.RunResumeRequested, ...] = ()
    waivers: tuple[c.WaiverGranted, ...] = ()
    stopped: c.RunStopped | None = None
    verdict: c.VerdictPublished | None = None
    closed: c.RunClosed | None = None

    def passed(self, phase: str) -> bool:
        """Whether the latest attempt of a phase is closed by a gate. Silence is OPEN, never a pass."""
        attempt = self.attempts.get(phase)
        return attempt is not None and attempt.state == "PASS"

    def waived(self, waiver: Waiver, now_us: int) -> bool:
        """Whether a waiver of this name was granted and has not expired."""
        return any(granted.waiver == waiver and granted.expires_us > now_us for granted in self.waivers)

    def state_of(self, phase: str) -> str:
        """PASS, BLOCKED or OPEN (= not proven)."""
        attempt = self.attempts.get(phase)
        return "OPEN" if attempt is None else attempt.state

    def attempt_of(self, phase: str) -> int:
        """The number of the current attempt; 1 before anything happened."""
        attempt = self.attempts.get(phase)
        return 1 if attempt is None else attempt.number

    def may_open(self, phase: str) -> bool:
        """Whether a phase's closing evaluation may run: its entry phases passed and it is still open."""
        return self.state_of(phase) == "OPEN" and all(self.passed(entry) for entry in PHASES[phase].opens)

    def earliest_open(self) -> str:
        """The first phase in spec order that is not passed: usage is booked to it."""
        return next((key for key in ORDER if not self.passed(key)), "P17")

    def blocked(self) -> tuple[str, ...]:
        """Phases whose current attempt is BLOCKED."""
        return tuple(key for key in ORDER if self.state_of(key) == "BLOCKED")


def fold(state: RunState, event: c.ControlPayload) -> RunState:
    """The next state. Every event type has its arm: mypy refuses a new one that is not handled."""
    match event:
        case c.RunPinRequested():
            return state if state.pin_request else replace(state, pin_request=event)
        case c.RunPinned():
            return state if state.header else replace(state, header=event.header, header_ref=event.header_ref)
        case c.ServiceHeartbeat():
            return replace(state, heartbeats={**state.heartbeats, event.instance: event})
        case c.WindowEnded():
            return replace(state, windows_ended={event.window: event, **state.windows_ended})
        case c.PhaseOpened():
            return state
        case c.GatePassed() | c.GateBlocked():
            return _gate(state, event)
        case c.RunReady():
            return state if event.ready_id in state.ready else replace(state, ready=(*state.ready, event.ready_id))
        case c.BudgetPosture():
            newer = state.budget is None or event.as_of_us >= state.budget.as_of_us
            return replace(state, budget=event) if newer else state
        case c.DrillRequested():
            return replace(state, drills={event.drill_id: event, **state.drills})
        case c.DrillReported():
            return replace(state, drill_reports={event.drill_id: event, **state.drill_reports})
        case c.WindowReconciled():
            return replace(state, reconciled={event.window: event, **state.reconciled})
        case c.PolicyActivated() | c.PolicySwitched() | c.AlertFired() | c.WaiverGranted():
            return _collect(state, event)
        case c.BundleApprovalGiven() | c.BundleSwitched() | c.BundleRescored() | c.TeardownRehearsed():
            return _collect(state, event)
        case c.RunResumeRequested():
            return _resume(state, event)
        case c.RunStopped():
            return state if state.stopped else replace(state, stopped=event)
        case c.VerdictPublished():
            return replace(state, verdict=event)
        case c.RunClosed():
            return state if state.closed else replace(state, closed=event)
        case _:
            assert_never(event)


_Collected = (
    c.PolicyActivated | c.PolicySwitched | c.BundleApprovalGiven | c.BundleSwitched | c.BundleRescored
    | c.TeardownRehearsed | c.AlertFired | c.WaiverGranted
)  # fmt: skip


def _collect(state: RunState, event: _Collected) -> RunState:
    """Keep each different event once, in the order they came."""
    match event:
        case c.PolicyActivated() if event not in state.policies:
            return replace(state, policies=(*state.policies, event))
        case c.PolicySwitched() if event not in state.switched:
            return replace(state, switched=(*state.switched, event))
        case c.BundleApprovalGiven() if event not in state.approvals:
            return replace(state, approvals=(*state.approvals, event))
        case c.BundleSwitched() if event not in state.bundles:
            return replace(state, bundles=(*state.bundles, event))
        case c.TeardownRehearsed() if event not in state.rehearsals:
            return replace(state, rehearsals=(*state.rehearsals, event))
        case c.BundleRescored() if event not in state.rescored:
            return replace(state, rescored=(*state.rescored, event))
        case c.AlertFired() if event not in state.alerts:
            return replace(state, alerts=(*state.alerts, event))
        case c.WaiverGranted() if event not in state.waivers:
            return replace(state, waivers=(*state.waivers, event))
        case _:
            return state


def _gate(state: RunState, event: c.GatePassed | c.GateBlocked) -> RunState:
    current = state.attempts.get(event.phase)
    number = 1 if current is None else current.number
    if event.attempt < number or event in state.history:
        return state
    history = (*state.history, event)
    settled = current is not None and current.event is not None and event.attempt == number
    if settled and current is not None and current.state == "BLOCKED":
        # Within an attempt a block is sticky: a pass after it changes nothing (style.md §4.5).
        return replace(state, history=history)
    verdict = "PASS" if isinstance(event, c.GatePassed) else "BLOCKED"
    attempt = Attempt(event.attempt, verdict, event)
    return replace(state, history=history, attempts={**state.attempts, event.phase: attempt})


def _resume(state: RunState, event: c.RunResumeRequested) -> RunState:
    """Open a new attempt of the named phase and of every later phase that was not passed."""
    if event in state.resumes:
        return state
    attempts = dict(state.attempts)
    for key in ORDER[ORDER.index(event.phase) :]:
        current = attempts.get(key)
        if key == event.phase or (current is not None and current.state == "BLOCKED"):
            attempts[key] = Attempt(max(event.attempt, (current.number if current else 0) + 1), "OPEN")
    return replace(state, attempts=attempts, resumes=(*state.resumes, event))
