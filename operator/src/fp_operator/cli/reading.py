"""fp status, why: what a run's control log says."""

import typer

from fp_contracts.phases import PHASES
from fp_operator import project
from fp_operator import status as documents
from fp_operator.cli.board import print_end
from fp_operator.cli.output import Format, OutputOption, RunArgument, coloured, console, emit_json, told
from fp_operator.runs import reading
from fp_runtime.errors import UserError


def status(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """One table: every phase of a run, and the verdict."""
    with told(), reading(project.state_dir()) as reader:
        state = reader.state(run)
    if output is Format.JSON:
        emit_json(documents.document(state))
        return
    console().print(state.platform_run_id)
    print_end(console(), state)


def why(
    phase: str | None = typer.Argument(None, help="A phase, e.g. P8; the one that holds the run up when left out"),
    run: str | None = RunArgument,
    output: Format = OutputOption,
) -> None:
    """Why a phase is not closed: what was observed, what is required, and how to go on."""
    with told():
        asked = None if phase is None else phase_key(phase)
        with reading(project.state_dir()) as reader:
            state = reader.state(run)
        key = asked or documents.first_open(state)
        found = documents.why(state, key)
    if output is Format.JSON:
        emit_json(found)
        return
    screen = console()
    screen.print(f"{key} {found['name']}  {coloured(found['state'])}  attempt {found['attempt']}")
    for check in found["failing"]:
        screen.print(f"  {check['name']}: observed {check['observed']}, required {check['required']}", markup=False)
    for blocker in found["blockers"]:
        screen.print(f"  {blocker['code']} {blocker['reason']}", markup=False)
    if found["waits_for"]:
        screen.print(f"  waits for {', '.join(found['waits_for'])}")
    for item in found["evidence"]:
        screen.print(f"  evidence {item}", markup=False)
    screen.print(f"next: {found['next']}", markup=False)


def phase_key(text: str) -> str:
    """A phase as the registry spells it; `P-1` and lower case are understood. UserError for no phase."""
    key = text.upper().replace("P-1", "P(-1)")
    if key not in PHASES:
        raise UserError(f"phase {text[:20]!r}", "no such phase", f"one of {', '.join(PHASES)}")
    return key
