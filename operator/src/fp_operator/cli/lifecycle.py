"""fp up, down: the environment of the runs."""

import time

import typer

from fp_operator import project, substrate
from fp_operator.cli.output import DryRunOption, Format, OutputOption, console, emit_json, steps, told
from fp_operator.stack import down as stop_stack
from fp_operator.stack import status as stack_status


def up(dry_run: bool = DryRunOption, output: Format = OutputOption) -> None:
    """Make everything ready for runs: authorities, servers, schema, topics, P(-1) and P0, services."""
    with told():
        folder = project.state_dir()
        if dry_run:
            running = [program.name for program in stack_status(folder)]
            emit_json({"state_dir": str(folder), "root": str(project.root()), "running": running})
            return
        began = time.monotonic()
        environment = substrate.bring_up(folder, project.root(), steps())
        seconds = time.monotonic() - began
        page = f"http://127.0.0.1:{environment.ports['verdict']}/"
        if output is Format.JSON:
            emit_json({
                "state_dir": str(folder), "seconds": round(seconds, 1), "page": page,
                "gates": [gate.phase for gate in environment.gates],
            })  # fmt: skip
            return
        console().print(f"ready in {seconds:.1f} s; run board {page}\nnext: fp run")


def down(
    reason: str = typer.Option("done", "--reason", help="Why: kept with the teardown evidence"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Stop services and servers; data stays."""
    with told():
        folder = project.state_dir()
        if dry_run:
            emit_json({"state_dir": str(folder), "stops": [program.name for program in stack_status(folder)]})
            return
        stop_stack(folder, on_step=steps())
        if output is Format.JSON:
            emit_json({"state_dir": str(folder), "stopped": True})
