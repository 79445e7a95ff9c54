"""fp rehearse: the teardown rehearsed for a run, when nobody watched it or another try is wanted."""

import time
from typing import Any

import typer

from fp_contracts.fold import RunState
from fp_operator import bundles, project
from fp_operator.cli.output import (
    DryRunOption,
    Exit,
    Format,
    OutputOption,
    RunArgument,
    coloured,
    console,
    emit_json,
    told,
)
from fp_operator.cli.running import actor
from fp_operator.pinning import Follower, Pinned
from fp_operator.rehearsal import program
from fp_operator.runs import Reader, reading
from fp_operator.stack import Supervisor
from fp_operator.substrate import Environment
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceMissing, EvidenceStore, open_store
from fp_verify.log import read_log
from fp_verify.rehearsal import rehearsal_cells
from fp_verify.sources import load_documents

TIMEOUT_S = 300.0


def rehearse(
    run: str | None = RunArgument,
    reason: str = typer.Option(program.REASON, "--reason", help="Why: kept with the rehearsal"),
    timeout: float = typer.Option(TIMEOUT_S, "--timeout", help="Seconds to wait for it"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Rehearse a teardown on a scratch namespace: the lane teardown of a full run's proof matrix."""
    with told():
        with reading(project.state_dir()) as reader:
            environment, state, pinned = reader.environment, reader.state(run), reader.find(run)
        program.check(state)
        if dry_run:
            emit_json({"platform_run_id": pinned.run, "rehearsed": len(state.rehearsals), "dry_run": True})
            return
        program.start(environment, pinned.run, actor(), reason)
        _await(environment, pinned, len(state.rehearsals), timeout)
        with reading(project.state_dir()) as reader:
            cells = cells_of(reader, pinned)
    if output is Format.JSON:
        emit_json({"platform_run_id": pinned.run, "cells": cells})
    else:
        for proof, reason_open in cells.items():
            console().print(f"  {coloured('OPEN' if reason_open else 'PASS')}  teardown/{proof}  {reason_open}")
    raise typer.Exit(Exit.BLOCKED if any(cells.values()) else Exit.GREEN)


def _await(environment: Environment, pinned: Pinned, known: int, timeout_s: float) -> RunState:
    """The state once one more rehearsal is told; UserError when its program ended without a word or time is over."""
    follower, deadline = Follower(environment, pinned), time.monotonic() + timeout_s
    supervisor, log = Supervisor(environment.state_dir), environment.state_dir / "logs" / "rehearsal.log"
    try:
        while True:
            ended = not program.alive(supervisor)
            state = follower.poll(0.5)
            if len(state.rehearsals) > known:
                return state
            if ended or time.monotonic() >= deadline:
                why = "its program ended without a word" if ended else f"it took longer than {timeout_s:.0f} s"
                raise UserError(f"rehearsal of {pinned.run}", why, f"read {log}, then `fp rehearse` again")
    finally:
        follower.close()


def cells_of(reader: Reader, pinned: Pinned) -> dict[str, str]:
    """proof -> why its cell is open, empty when it holds; from the control log and the evidence as they are now."""
    log = read_log(pinned.run, bundles.control_records(reader.consumer, pinned))
    store = open_store(reader.environment.addresses.evidence_url)

    def read(key: str) -> bytes:
        return _read(store, key)

    documents: dict[tuple[str, str], Any] = dict(load_documents(read, log))
    return {cell.proof: cell.reason for cell in rehearsal_cells(log, documents)}


def _read(store: EvidenceStore, key: str) -> bytes:
    try:
        return store.get(key)
    except EvidenceMissing as error:
        raise KeyError(key) from error
