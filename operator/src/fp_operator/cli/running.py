"""fp run, watch, stop, resume: the verbs that move a run."""

import getpass
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import typer

from fp_contracts.control import RunStopped
from fp_contracts.fold import RunState
from fp_operator import (
    approving,
    bundles,
    following,
    launch,
    pinning,
    project,
    results,
    resuming,
    runplan,
    status,
    substrate,
)
from fp_operator.cli import board
from fp_operator.cli.output import (
    DryRunOption,
    Exit,
    Format,
    OutputOption,
    ReasonOption,
    RunArgument,
    console,
    emit_json,
    steps,
    told,
)
from fp_operator.cli.reading import phase_key
from fp_operator.following import Moment
from fp_operator.pinning import Pinned
from fp_operator.rehearsal import program
from fp_operator.runs import Reader, reading
from fp_operator.stack import Supervisor
from fp_operator.substrate import Environment
from fp_runtime.bus import FetchProfile
from fp_runtime.errors import UserError
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer
from fp_runtime.participant import now_us

TIMEOUT_S = 1_800.0
RealismOption = typer.Option([], "--realism", help="A disturbance of another rate: late_context_ppm=0; repeatable")


def actor() -> str:
    """Who acts, for receipts."""
    return getpass.getuser()


def run(
    world: str = typer.Option("sample", "--world", help="sample, tiny, a name or a fingerprint (`fp world list`)"),
    platform_run_id: str | None = typer.Option(None, "--platform_run_id", help="platform_YYYYMMDDTHHMMSSZ[-suffix]"),
    scenario_run_id: str | None = typer.Option(None, "--scenario_run_id", help="32 hex digits"),
    scope: str = typer.Option("spine", "--scope", help="What must be green: spine or full"),
    drill: bool = typer.Option(True, "--drill/--no-drill", help="Kill, really: a member, and jobs in scope full"),
    pace: int = typer.Option(0, "--pace", min=0, help="Events per second; 0 = as fast as it goes"),
    realism: list[str] = RealismOption,
    approve_as: str | None = typer.Option(None, "--approve-as", help="Scope full: approve what it trains unseen, as"),
    timeout: float = typer.Option(TIMEOUT_S, "--timeout", help="Seconds to watch before letting go"),
    detach: bool = typer.Option(False, "--detach", help="Start and return at once"),
    reason: str = typer.Option("a run of the world", "--reason", help="Why: kept with the request to pin the run"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Run a world from the pin to the verdict, and watch it."""
    with told():
        check_scope(scope)
        if approve_as is not None and (scope != "full" or detach or approve_as == actor()):
            why = "it needs scope full, a run that is watched, and another person than who asks for it"
            raise UserError("--approve-as", why, "leave it out and use `fp models approve`")
        order = launch.Order(
            world, platform_run_id, scenario_run_id, scope, drill, pace, actor(), reason, runplan.realism_of(realism)
        )  # fmt: skip
        launch.check(order)
        environment = launch.ready_environment(project.state_dir(), steps(), actor(), reason)
        planned = launch.plan(environment, order)
        if dry_run:
            emit_json({"platform_run_id": planned.run, "scenario_run_id": planned.scenario, "drills": planned.drills,
                       "config": planned.config.model_dump(mode="json")})  # fmt: skip
            return
        pinned = launch.start(environment, planned, order.actor, order.reason)
        if output is Format.TEXT:
            world_line = f"{planned.world.rows:,} payments, {planned.world.frauds:,} frauds"
            console().print(f"run {planned.run}\nworld {planned.world.name}: {world_line}; "
                            f"drills {', '.join(planned.drills) or 'none'}")  # fmt: skip
        if detach and scope == "full":
            program.start(environment, pinned.run, order.actor)  # it waits for P11: nobody else may be watching then
        if not detach:
            finish(environment, pinned, timeout, output, approve_as)


def check_scope(scope: str) -> None:
    """UserError for no scope."""
    if scope not in ("spine", "full"):
        raise UserError(f"scope {scope[:20]!r}", "neither spine nor full", "give one of them")


def watch(
    run: str | None = RunArgument,
    timeout: float = typer.Option(TIMEOUT_S, "--timeout", help="Seconds to watch before letting go"),
    output: Format = OutputOption,
) -> None:
    """Watch a run until it is over."""
    with told():
        with reading(project.state_dir()) as reader:
            pinned, environment = reader.find(run), reader.environment
        finish(environment, pinned, timeout, output)


def finish(
    environment: Environment, pinned: Pinned, timeout_s: float, output: Format, approve_as: str | None = None
) -> None:
    """Watch to the end, print it, exit by it. Ctrl-C lets go of the run and says how to come back."""
    screen = console() if output is Format.TEXT else console(stderr=True)
    try:
        with board.watching(screen) as see:
            state, end = following.follow(environment, pinned, approving_too(environment, see, approve_as), timeout_s)
    except KeyboardInterrupt:
        screen.print(f"\nthe run goes on. See it: fp watch {pinned.run}   end it: fp stop {pinned.run} --reason '…'")
        raise typer.Exit(Exit.BLOCKED) from None
    bundle = keep_bundle(environment, pinned) if end == "verdict" else None
    store = open_store(environment.addresses.evidence_url)
    equations = results.equations(store, state)
    if output is Format.JSON:
        emit_json(status.document(state) | {"ended": end, "equations": equations, "bundle": bundle})
    else:
        board.print_end(screen, state, equations)
        screen.print((f"bundle {bundle}\n" if bundle else "") + next_step(state, end, environment.state_dir))
    raise typer.Exit(exit_code(state, end))


def approving_too(
    environment: Environment, see: Callable[[Moment], None], actor: str | None
) -> Callable[[Moment], None]:
    """A watcher that also gives the standing approval of `actor`; `see` itself without one."""
    if actor is None:
        return see
    store = open_store(environment.addresses.evidence_url)
    standing = approving.StandingApproval(actor, store, partial(pinning.publish, environment))

    def look(moment: Moment) -> None:
        see(moment)
        standing.look(moment.state)

    return look


def keep_bundle(environment: Environment, pinned: Pinned) -> str:
    """The run's bundle beside the state, exported unless it is there; remembered as the last one; its path."""
    target = bundles.kept(environment.state_dir, pinned.run)
    if target.exists():
        project.remember_latest(environment.state_dir, pinned.run, str(target))
        return str(target)
    store = open_store(environment.addresses.evidence_url)
    consumer = open_consumer(environment.settings(), "fp.operator.read", fetch=FetchProfile.CONTROL)
    try:
        bundles.write(store, consumer, pinned, target)
    finally:
        consumer.close()
    project.remember_latest(environment.state_dir, pinned.run, str(target))
    return str(target)


def exit_code(state: RunState, end: str) -> Exit:
    """0 green by the scope of the run, 1 verdict FAIL, 3 anything not proven."""
    document = status.document(state)
    verdict = document["spine_verdict"] if document["scope"] == "spine" else document["verdict"]
    if end == "verdict" and verdict == "GREEN":
        return Exit.GREEN
    return Exit.FAIL if verdict == "FAIL" else Exit.BLOCKED


def next_step(state: RunState, end: str, folder: Path) -> str:
    """What to type next."""
    run = state.platform_run_id
    match end:
        case "verdict":
            return f"next: fp verify, fp trace EVENT_ID, fp cost {run}, fp down"
        case "blocked":
            return f"next: fp why '{state.blocked()[0]}' {run}"
        case "stopped":
            return "the run was stopped: start another one with `fp run`"
    return f"still going on after the time to watch: fp watch {run}, logs in {folder / 'logs'}"


def stop(
    run: str | None = RunArgument,
    reason: str = ReasonOption,
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """End an open run: nothing of it is deleted, and another one may be pinned."""
    with told(), reading(project.state_dir()) as reader:
        state = still_open(reader, run)
        if not dry_run:
            pinning.publish(reader.environment, state, [(RunStopped(actor=actor(), reason=reason), ())])
    say(output, dry_run, {"platform_run_id": state.platform_run_id, "stops": True})


def resume(
    phase: str = typer.Option(..., "--from", help="The blocked phase, e.g. P8"),
    run: str | None = RunArgument,
    reason: str = ReasonOption,
    reset: str = typer.Option("service_runtime", "--reset", help=f"Reset class: {', '.join(resuming.RESETS)}"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Open a new attempt of a blocked phase, after restarting the services that own it."""
    with told():
        key = phase_key(phase)
        with reading(project.state_dir()) as reader:
            environment, state = reader.environment, reader.state(run)
            programs = list(Supervisor(environment.state_dir).states())
            build = substrate.image_manifest_digest(project.root())
            planned = resuming.plan(state, key, reset, build, programs)
            document: dict[str, Any] = {"platform_run_id": state.platform_run_id, **asdict(planned)}
            if not dry_run:
                document["receipt"] = resuming.resume(environment, state, planned, actor(), reason).key
    say(output, dry_run, document)


def still_open(reader: Reader, run: str | None) -> RunState:
    """The state of a run that is not over; UserError for one that is."""
    state = reader.state(run)
    if state.closed or state.stopped:
        raise UserError(f"run {state.platform_run_id}", "is over already", "see `fp status`")
    return state


def in_hours(hours: float) -> int:
    """So many hours from now (wall clock, µs)."""
    return now_us() + int(hours * 3_600_000_000)


def say(output: Format, dry_run: bool, document: dict[str, Any]) -> None:
    """What a verb did, or would do."""
    if output is Format.JSON or dry_run:
        emit_json(document | {"dry_run": dry_run})
        return
    for name, value in document.items():
        console().print(f"{name:<16} {value}", markup=False)
    console().print("next: fp watch")
