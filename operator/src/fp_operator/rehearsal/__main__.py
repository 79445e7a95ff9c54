"""Rehearse a teardown for one run: `python -m fp_operator.rehearsal`; who starts it: rehearsal.program."""

import sys
from functools import partial
from pathlib import Path

from fp_contracts.control import TeardownRehearsed
from fp_contracts.fold import RunState
from fp_operator import bundles, ending, namespace, pinning, substrate
from fp_operator.pinning import Follower
from fp_operator.rehearsal import making
from fp_operator.rehearsal.acts import Stage, perform
from fp_operator.rehearsal.program import RehearsalSettings, fault
from fp_operator.runs import reading
from fp_operator.stack.state import choose_ports
from fp_operator.substrate import Environment
from fp_runtime import logs
from fp_runtime.evidence import open_store, put_json

log = logs.logger(__name__)


def main() -> int:
    """0 when it was rehearsed, 1 when it could not be, which the control log then says."""
    config = RehearsalSettings()
    logs.configure("rehearsal-0", "INFO")
    main_dir = Path(config.state_dir)
    environment = substrate.remembered(main_dir, lambda *_: None)
    state = _when_due(environment, config.run)
    if fault(state) is not None:
        return 0
    event = _rehearsed(environment, state, config)
    pinning.publish(environment, state, [(event, (event.scratch_run,))])
    log.info("rehearsed", run=config.run, scratch=event.scratch_run, fault=event.fault)
    return 0 if not event.fault else 1


def _when_due(environment: Environment, run: str) -> RunState:
    """The state of the run once P11 is closed, or the run over."""
    with reading(environment.state_dir) as reader:
        pinned = reader.find(run)
    follower = Follower(environment, pinned)
    try:
        while True:
            state = follower.poll(1.0)
            if state.passed("P11") or state.closed is not None or state.stopped is not None:
                return state
    finally:
        follower.close()


def _rehearsed(environment: Environment, state: RunState, config: RehearsalSettings) -> TeardownRehearsed:
    """Rehearse and put the evidence; whatever goes wrong is told, and what was made is torn down again."""
    ended = ending.end_noted(environment.state_dir, environment.addresses, lambda *_: None)
    if ended:
        log.warning("leftovers_torn_down", n=ended)
    space = namespace.new_scratch(environment.state_dir, choose_ports([making.PROCESS])[making.PROCESS])
    assert space.scratch is not None
    told = partial(TeardownRehearsed, scratch_run=space.scratch.run, actor=config.actor, reason=config.reason)
    try:
        stage = Stage(
            environment.state_dir, space, space.scratch, environment.addresses, environment.settings()
        )  # fmt: skip
        documents, outlived = perform(stage)
        store, run = open_store(environment.addresses.evidence_url), state.platform_run_id
        root = f"{bundles.run_root(run)}rehearsal/{space.scratch.tag}/"
        refs = [
            put_json(store, f"{root}{proof}.json", {"run": run, "scratch_run": space.scratch.run, **document})
            for proof, document in documents.items()
        ]
        return told(evidence=tuple(refs), outlived=tuple(outlived))
    except Exception as error:
        log.exception("rehearsal_failed", run=config.run)
        ending.end_noted(environment.state_dir, environment.addresses, lambda *_: None)
        why = f"{type(error).__name__}: {error}"[:300]
        return told(evidence=(), outlived=(), fault=why)


if __name__ == "__main__":
    sys.exit(main())
