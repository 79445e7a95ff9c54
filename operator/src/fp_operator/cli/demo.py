"""fp demo: the sample world twice, once undisturbed and once with a killed member, and the proof that both agree."""

import typer

from fp_operator import following, launch, project, results
from fp_operator.cli import board
from fp_operator.cli.output import Exit, coloured, console, steps, told
from fp_operator.cli.running import TIMEOUT_S, actor, approving_too, check_scope, exit_code, keep_bundle
from fp_operator.launch import Order
from fp_operator.substrate import Environment
from fp_runtime.evidence import open_store

REVIEWER = "demo-reviewer"
_Run = tuple[str, dict[str, str], Exit]


def demo(
    world: str = typer.Option("sample", "--world", help="sample or tiny"),
    scope: str = typer.Option("spine", "--scope", help="spine, or full: learns, promotes and decides by it"),
    timeout: float = typer.Option(TIMEOUT_S, "--timeout", help="Seconds for each run"),
) -> None:
    """Bring everything up, run a world without and with a killed process, compare, leave it running."""
    with told():
        check_scope(scope)
        environment = launch.ready_environment(project.state_dir(), steps())
        screen = console()
        screen.print("[bold]1 of 2[/bold] the reference: nothing is disturbed but by the world's own realism")
        reference, before, _ = _run(environment, Order(world=world, scope=scope, drill=False, actor=actor()), timeout)
        screen.print("\n[bold]2 of 2[/bold] the same again, and one rtdl member is killed (SIGKILL) in mid-stream")
        drilled, after, code = _run(environment, Order(world=world, scope=scope, actor=actor()), timeout)
        unlike = results.difference(before, after)
        for name in sorted({*before, *after}):
            mark = coloured("FAIL") if name in unlike else coloured("GREEN")
            screen.print(f"  {name:<12} {before.get(name, 'none')[:16]}…  {after.get(name, 'none')[:16]}…  {mark}")
        same = bool(before) and not unlike
        screen.print(
            "every fingerprint is equal" if same else f"they differ: {', '.join(unlike) or 'nothing to compare'}"
        )
        page = f"http://127.0.0.1:{environment.ports['verdict']}/"
        screen.print(f"runs {reference}, {drilled}; board {page}\nnext: fp verify, fp status, fp cost, fp down")
        raise typer.Exit(code if same else Exit.FAIL)


def _run(environment: Environment, order: Order, timeout_s: float) -> _Run:
    """One watched run: (id, fingerprints, exit code)."""
    screen = console()
    planned = launch.plan(environment, order)
    screen.print(f"run {planned.run}: {planned.world.rows:,} payments, drills {', '.join(planned.drills) or 'none'}")
    pinned = launch.start(environment, planned, order.actor)
    with board.watching(screen) as see:
        approver = REVIEWER if order.scope == "full" else None
        state, end = following.follow(environment, pinned, approving_too(environment, see, approver), timeout_s)
    store = open_store(environment.addresses.evidence_url)
    board.print_end(screen, state, results.equations(store, state))
    if end == "verdict":
        screen.print(f"bundle {keep_bundle(environment, pinned)}")
    return pinned.run, results.fingerprints(store, state), exit_code(state, end)
