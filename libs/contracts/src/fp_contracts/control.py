"""Control events: payloads on the control topic (contracts.md §5). One run is totally ordered by its key."""

from typing import Annotated, Literal

from pydantic import Field

from fp_contracts.control_bundles import BundleApprovalGiven as BundleApprovalGiven
from fp_contracts.control_bundles import BundleRescored as BundleRescored
from fp_contracts.control_bundles import BundleSwitched as BundleSwitched
from fp_contracts.envelope import Closed, Hex32, Hex64, Id, TimeUs
from fp_contracts.phases import PhaseKey
from fp_contracts.runconfig import RunConfig, RunHeader
from fp_contracts.scratch import ScratchRun


class EvidenceRef(Closed):
    """One evidence object as a gate names it; followed only by all three (law 13). Size in bytes."""

    key: str
    sha256: Hex64
    size: int = Field(ge=0)


class Check(Closed):
    """One predicate of a gate with both of its sides as text a person can read."""

    name: str
    observed: str
    required: str
    ok: bool


class Blocker(Closed):
    """Why a phase may not close."""

    code: str
    reason: str


class Receipt(Closed):
    """A phase's cost-to-outcome receipt (spec §3.4): what it cost, what it proved, what risk it retired."""

    phase: PhaseKey
    attempt: int
    spend_microusd: int
    first_sample: int
    last_sample: int
    window_us: int
    artifacts: tuple[str, ...]
    risk_retired: str


class RunPinRequested(Closed):
    """The operator asks sr to pin a run."""

    type: Literal["run_pin_requested"] = "run_pin_requested"
    scenario_run_id: Hex32
    config: RunConfig
    actor: str
    reason: str = ""


class RunPinned(Closed):
    """sr committed the run header: from here the run exists."""

    type: Literal["run_pinned"] = "run_pinned"
    header: RunHeader
    header_ref: EvidenceRef


class ServiceHeartbeat(Closed):
    """One instance is alive and bound to this run's pins: every 10 s, and when its readiness changes.

    `telemetry_us`: when a collector last took what it exports, 0 = never; None = nothing is exported.
    """

    type: Literal["service_heartbeat"] = "service_heartbeat"
    service: str
    instance: str
    run_config_digest: Hex64
    build_digest: str
    profile: str
    ready: bool
    telemetry_us: TimeUs | None
    at_us: TimeUs
    metrics: dict[str, int] = Field(default_factory=dict)


class WindowEnded(Closed):
    """wsp sent and had acknowledged the closing watermark of a window."""

    type: Literal["window_ended"] = "window_ended"
    window: int
    lane_seqs: dict[str, int]
    ledger_ref: EvidenceRef


class PhaseOpened(Closed):
    """A phase's closing evaluation began; never a state of closure."""

    type: Literal["phase_opened"] = "phase_opened"
    phase: PhaseKey
    attempt: int
    phase_execution_id: Hex32


class GatePassed(Closed):
    """A phase closed on evidence."""

    type: Literal["gate_passed"] = "gate_passed"
    phase: PhaseKey
    attempt: int
    phase_execution_id: Hex32
    checks: tuple[Check, ...]
    evidence: tuple[EvidenceRef, ...]
    receipt: Receipt


class GateBlocked(Closed):
    """A phase could not close: fail closed, with the blocker codes of the spec."""

    type: Literal["gate_blocked"] = "gate_blocked"
    phase: PhaseKey
    attempt: int
    phase_execution_id: Hex32
    checks: tuple[Check, ...]
    evidence: tuple[EvidenceRef, ...]
    blockers: tuple[Blocker, ...]
    receipt: Receipt


class RunReady(Closed):
    """The READY signal: lanes may flow. Exactly one identity per run."""

    type: Literal["run_ready"] = "run_ready"
    ready_id: Hex32


class BudgetPosture(Closed):
    """Month-to-date spend against the alerts; missing or older than 48 h blocks. Money in micro-USD."""

    type: Literal["budget_posture"] = "budget_posture"
    month: str
    spend_microusd: int
    alert: Literal[0, 1, 2, 3]
    as_of_us: TimeUs


class PolicyActivated(Closed):
    """A policy revision takes effect at an event time (dataflow.md §7)."""

    type: Literal["policy_activated"] = "policy_activated"
    policy_rev: str
    effective_us: TimeUs
    actor: str


class PolicySwitched(Closed):
    """A df member reports the merged position at which a switch took effect."""

    type: Literal["policy_switched"] = "policy_switched"
    policy_rev: str
    effective_us: TimeUs
    partition: int
    merged_n: int


class WindowReconciled(Closed):
    """The verdict re-checked every equation over one later window, from its own start and end."""

    type: Literal["window_reconciled"] = "window_reconciled"
    window: int
    checks: tuple[Check, ...]
    report_ref: EvidenceRef


class TeardownRehearsed(Closed):
    """The operator tore a scratch namespace down between P11 and P16, or says in `fault` why it could not.

    evidence: one document per proof of the lane `teardown`; outlived: what the scratch run had written before.
    """

    type: Literal["teardown_rehearsed"] = "teardown_rehearsed"
    scratch_run: ScratchRun
    actor: str
    reason: str
    evidence: tuple[EvidenceRef, ...]
    outlived: tuple[EvidenceRef, ...]
    fault: str = ""


class DrillRequested(Closed):
    """Arm a failpoint in one instance: a really killed process."""

    type: Literal["drill_requested"] = "drill_requested"
    drill_id: Hex32
    instance: str
    failpoint: str
    actor: str


class DrillReported(Closed):
    """What a drill did, measured."""

    type: Literal["drill_reported"] = "drill_reported"
    drill_id: Hex32
    instance: str
    killed_us: TimeUs
    restarted_us: TimeUs
    recovered_us: TimeUs
    lag_at_restart: int


class AlertFired(Closed):
    """An alert rule crossed its threshold and was journaled; read back by the monitor proof."""

    type: Literal["alert_fired"] = "alert_fired"
    rule: str
    instance: str
    observed: int
    threshold: int
    at_us: TimeUs


class RunResumeRequested(Closed):
    """The operator asks for a new attempt from a failed boundary; carries the reset receipt (spec §6)."""

    type: Literal["run_resume_requested"] = "run_resume_requested"
    phase: PhaseKey
    attempt: int
    reset_class: Literal["service_runtime", "checkpoint", "data_replay"]
    reason: str
    actor: str
    receipt_ref: EvidenceRef


class WaiverGranted(Closed):
    """A named actor waives one check with a reason and an expiry; itself evidence."""

    type: Literal["waiver_granted"] = "waiver_granted"
    waiver: str
    actor: str
    reason: str
    expires_us: TimeUs


class RunStopped(Closed):
    """The operator stopped the run."""

    type: Literal["run_stopped"] = "run_stopped"
    actor: str
    reason: str


class VerdictPublished(Closed):
    """The final verdict of a run, recomputed by a second process from read-back objects."""

    type: Literal["verdict_published"] = "verdict_published"
    verdict: Literal["GREEN", "BLOCKED", "FAIL"]
    spine_verdict: Literal["GREEN", "BLOCKED", "FAIL"]
    profile: str
    merkle_root: Hex64
    verdict_ref: EvidenceRef


class RunClosed(Closed):
    """No more lanes: the next run may be pinned."""

    type: Literal["run_closed"] = "run_closed"
    reason: Id


ControlPayload = Annotated[
    RunPinRequested | RunPinned | ServiceHeartbeat | WindowEnded | PhaseOpened | GatePassed | GateBlocked | RunReady
    | BudgetPosture | PolicyActivated | PolicySwitched | BundleApprovalGiven | BundleSwitched | BundleRescored
    | WindowReconciled | TeardownRehearsed | DrillRequested | DrillReported | AlertFired | RunResumeRequested
    | WaiverGranted | RunStopped | VerdictPublished | RunClosed,
    Field(discriminator="type"),
]  # fmt: skip
