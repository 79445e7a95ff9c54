"""fp up, down: the environment of the runs."""

import time
from dataclasses import asdict

import typer

from fp_contracts.phases import ORDER
from fp_operator import project, substrate
from fp_operator.cli.output import DryRunOption, Exit, Format, OutputOption, console, emit_json, steps, told
from fp_operator.cli.running import actor
from fp_operator.doctor import examine
from fp_operator.downing import bring_down
from fp_operator.stack import status as stack_status


def up(
    reason: str = typer.Option("an environment for runs", "--reason", help="Why: kept with the receipts of P(-1), P0"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Make everything ready for runs: authorities, servers, schema, topics, P(-1) and P0, services."""
    with told():
        folder = project.state_dir()
        if dry_run:
            running = [program.name for program in stack_status(folder)]
            emit_json({"state_dir": str(folder), "root": str(project.root()), "running": running})
            return
        began = time.monotonic()
        try:
            environment = substrate.bring_up(folder, project.root(), steps(), actor(), reason)
        except KeyboardInterrupt:
            goes_on = "what ran before goes on: `fp up` again makes it whole, `fp down` ends it"
            left = goes_on if stack_status(folder) else "nothing of it is left running"
            console(stderr=True).print(f"interrupted: {left}")
            raise typer.Exit(Exit.INTERRUPTED) from None
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
        ended = bring_down(folder, actor(), reason, steps())
    if output is Format.JSON:
        emit_json({
            "state_dir": str(folder), "run": ended.run, "p17": ended.p17, "left": list(ended.left),
            "phases": {"closed": ended.closed, "of": len(ORDER)},
        })  # fmt: skip
    elif ended.run is not None:
        console().print(f"run {ended.run}: P17 {ended.p17}; {ended.closed} of {len(ORDER)} phases closed")
    if ended.left:
        raise typer.Exit(Exit.BLOCKED)
    raise typer.Exit(Exit.BLOCKED if ended.p17 == "BLOCKED" else Exit.GREEN)


def doctor(output: Format = OutputOption) -> None:
    """Ask everything that runs rest on, and say how to fix what does not answer."""
    with told():
        findings = examine(project.state_dir())
    if output is Format.JSON:
        emit_json({"ok": all(f.fault is None for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            mark = "[green]ok[/green]   " if finding.fault is None else "[red]fault[/red]"
            console().print(f"{mark} {finding.what:<28} {finding.fault or finding.seen}"
                            + (f"\n      fix: {finding.fix}" if finding.fault else ""))  # fmt: skip
    raise typer.Exit(Exit.GREEN if all(finding.fault is None for finding in findings) else Exit.UNAVAILABLE)
