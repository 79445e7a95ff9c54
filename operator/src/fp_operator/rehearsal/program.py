"""Who rehearses: a program of the environment's supervisor: it outlives `fp run`, and its usage is metered."""

import sys
from collections.abc import Mapping

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fp_contracts.fold import RunState
from fp_operator.mesh import REHEARSAL
from fp_operator.stack import Program, Supervisor
from fp_operator.substrate import Environment
from fp_runtime.errors import UserError

REASON = "the six proofs of the lane teardown"
STARTS = 3
"""How often a watcher starts it before it lets be: one that failed says so on the control log, one that was killed
does not.
"""
_PRIORITY = 600
_ALIVE = ("STARTING", "RUNNING", "BACKOFF", "STOPPING")


class RehearsalSettings(BaseSettings):
    """What the program is told beside the addresses."""

    model_config = SettingsConfigDict(env_prefix="FP_REHEARSE_", frozen=True, extra="ignore")

    state_dir: str = Field(min_length=1, description="State folder of the environment that rehearses")
    run: str = Field(min_length=1, description="The run whose lane teardown is to be proven")
    actor: str = Field(min_length=1, description="Who asked for it")
    reason: str = Field(min_length=1, description="Why")


def start(environment: Environment, run: str, actor: str, reason: str = REASON) -> None:
    """Start it unless it runs; it waits until P11 of the run is closed."""
    supervisor = Supervisor(environment.state_dir)
    if alive(supervisor):
        return
    told = {"state_dir": str(environment.state_dir), "run": run, "actor": actor, "reason": reason}
    env: Mapping[str, str] = {
        **environment.addresses.environment(),
        **{f"FP_REHEARSE_{name.upper()}": value for name, value in told.items()},
    }
    argv = (sys.executable, "-m", "fp_operator.rehearsal")
    program = Program(REHEARSAL, argv, env, autorestart="never", start_retries=0, priority=_PRIORITY)
    supervisor.update(REHEARSAL, [program])
    supervisor.start(REHEARSAL)


def alive(supervisor: Supervisor) -> bool:
    """Whether one is under way."""
    found = supervisor.states().get(REHEARSAL)
    return found is not None and found.state in _ALIVE


def fault(state: RunState) -> str | None:
    """Why a run cannot be rehearsed for now; None when it can."""
    if state.header is None or state.header.config.scope != "full":
        return "only a run of scope full is closed on the six proofs of every lane"
    if state.verdict is not None or state.closed is not None or state.stopped is not None:
        return "the run is over"
    return None if state.passed("P11") else "P11 is not closed yet"


def check(state: RunState) -> None:
    """UserError when a run cannot be rehearsed for now."""
    found = fault(state)
    if found is not None:
        raise UserError(f"rehearsal of {state.platform_run_id}", found, "see `fp status`")


class Rehearser:
    """Lets a watched run be rehearsed as soon as P11 is closed, unless somebody did."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._starts = 0

    def look(self, state: RunState) -> None:
        """Start the program when it is due."""
        if state.rehearsals or self._starts >= STARTS or fault(state) is not None:
            return
        if not alive(Supervisor(self._environment.state_dir)):
            self._starts += 1
            start(self._environment, state.platform_run_id, actor_of(state))


def actor_of(state: RunState) -> str:
    """Who asked for the run."""
    return state.pin_request.actor if state.pin_request is not None else "operator"
