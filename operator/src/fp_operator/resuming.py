"""A new attempt from a failed boundary (spec §6): a reset receipt as write-once evidence, then the request."""

from dataclasses import dataclass

from fp_contracts import control as c
from fp_contracts.fold import RunState
from fp_contracts.ids import h32
from fp_contracts.phases import PHASES
from fp_operator import pinning
from fp_operator.controlroot import ROOT
from fp_operator.mesh import is_service
from fp_operator.stack import Supervisor
from fp_operator.substrate import Environment
from fp_runtime.errors import UserError
from fp_runtime.evidence import open_store, put_json
from fp_runtime.participant import now_us

RESETS = ("service_runtime", "checkpoint", "data_replay")
_ALSO = {"rtdl": ("archive",), "df": ("actions",)}


@dataclass(frozen=True, slots=True)
class Reset:
    """What a resume does: the attempt it opens and the services it restarts."""

    phase: str
    attempt: int
    reset_class: str
    restarts: tuple[str, ...]


def plan(state: RunState, phase: str, reset_class: str, image_manifest: str, programs: list[str]) -> Reset:
    """Check that the run may be resumed there; UserError with the reason when not. Pure."""
    what = f"resume from {phase}"
    if state.header is None:
        raise UserError(what, "the run was never pinned", "start a new run: `fp run`")
    if state.closed or state.stopped:
        fix = "`fp up`, then `fp down` judges it anew" if phase == "P17" else "start a new run: `fp run`"
        raise UserError(what, "the run is over", fix)
    if state.header.config.image_manifest_digest != image_manifest:
        raise UserError(what, "the build is not the one that the run pinned", "start a new run: `fp run`")
    if state.state_of(phase) != "BLOCKED":
        raise UserError(what, f"it is {state.state_of(phase)}, not BLOCKED", "see `fp status`")
    earlier = next((entry for entry in PHASES[phase].opens if not state.passed(entry)), None)
    if earlier is not None:
        raise UserError(what, f"{earlier} before it is not passed", f"resume from {earlier}")
    if reset_class not in RESETS:
        raise UserError(f"reset class {reset_class[:30]!r}", "no such class", f"one of {', '.join(RESETS)}")
    if reset_class != "service_runtime":
        raise UserError(
            f"reset class {reset_class}", "no policy defines one: checkpoints and facts are replayed by the services",
            "use service_runtime, or start a new run",
        )  # fmt: skip
    owner = PHASES[phase].owner
    services = (owner, *_ALSO.get(owner, ()))
    restarts = tuple(name for name in programs if is_service(name) and name.rpartition("-")[0] in services)
    return Reset(phase, state.attempt_of(phase) + 1, reset_class, restarts)


def resume(environment: Environment, state: RunState, reset: Reset, actor: str, reason: str) -> c.EvidenceRef:
    """Write the receipt, restart the bounded lane, ask for the attempt; the receipt's reference."""
    supervisor = Supervisor(environment.state_dir)
    receipt = {
        "platform_run_id": state.platform_run_id, "phase": reset.phase, "attempt": reset.attempt,
        "reset_class": reset.reset_class, "restarts": list(reset.restarts), "actor": actor, "reason": reason,
        "at_us": now_us(),
    }  # fmt: skip
    execution = h32("reset", state.platform_run_id, reset.phase, str(reset.attempt), str(receipt["at_us"]))
    ref = put_json(
        open_store(environment.addresses.evidence_url), f"{ROOT}/{execution}/reset_receipt.json", receipt
    )  # fmt: skip
    for name in reset.restarts:
        supervisor.stop(name)
        supervisor.start(name)
    event = c.RunResumeRequested.model_validate(
        {
            "phase": reset.phase, "attempt": reset.attempt, "reset_class": reset.reset_class, "reason": reason,
            "actor": actor, "receipt_ref": ref,
        }
    )  # fmt: skip
    pinning.publish(environment, state, [(event, (reset.phase, str(reset.attempt)))])
    return ref
