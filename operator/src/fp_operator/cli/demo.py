"""fp demo: the sample world twice, once undisturbed and once with killed processes, and the proof that both agree."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from fp_contracts.control import RunStopped
from fp_contracts.fold import RunState
from fp_operator import effect, following, launch, memory, pinning, project, reference, results
from fp_operator.cli import board
from fp_operator.cli.models import show_effect
from fp_operator.cli.output import Exit, coloured, console, steps, told
from fp_operator.cli.running import TIMEOUT_S, actor, approving_too, check_scope, exit_code, keep_bundle, next_step
from fp_operator.following import Moment
from fp_operator.launch import Order, Planned
from fp_operator.pinning import Pinned
from fp_operator.reference import Reference
from fp_operator.runs import reading
from fp_operator.substrate import Environment
from fp_runtime import openrun
from fp_runtime.deadline import until
from fp_runtime.errors import UserError
from fp_runtime.evidence import open_store
from fp_runtime.postgres import connect

REVIEWER = "demo-reviewer"
REASON = "the demo"
LOCK = "demo.lock"
STOPPED_S = 60.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Ended:
    """A watched run: how its watch ended (following.follow), and its exported bundle when it came to a verdict."""

    pinned: Pinned
    state: RunState
    end: str
    bundle: str | None


class Demo:
    """One demo: its environment, how long each run may take, and what memory was seen."""

    def __init__(self, environment: Environment, world: str, scope: str, timeout_s: float) -> None:
        self.environment = environment
        self.peak = memory.Peak(environment.state_dir)
        self.order = Order(world=world, scope=scope, actor=actor())
        self._timeout_s = timeout_s

    def plan(self, drill: bool) -> Planned:
        """The next run, under a fresh id."""
        return launch.plan(self.environment, Order(
            world=self.order.world, scope=self.order.scope, drill=drill, actor=self.order.actor
        ))  # fmt: skip

    def run(self, planned: Planned) -> Ended:
        """Start a run and watch it to its end; Ctrl-C lets go of it and says how to come back."""
        screen, approver = console(), REVIEWER if self.order.scope == "full" else None
        kills = ", ".join(planned.drills) or "none"
        screen.print(f"run {planned.run}: {planned.world.rows:,} payments, kills {kills}")
        pinned = launch.start(self.environment, planned, self.order.actor, REASON)
        try:
            with board.watching(screen) as see:
                look = approving_too(self.environment, self._noting(see), approver)
                state, end = following.follow(self.environment, pinned, look, self._timeout_s)
        except KeyboardInterrupt:
            screen.print(
                f"\nthe run goes on. See it: fp watch {pinned.run}   end it: fp stop {pinned.run} --reason '…'   "
                "end everything: fp down   (the next demo ends it too)"
            )
            raise typer.Exit(Exit.BLOCKED) from None
        return Ended(pinned, state, end, keep_bundle(self.environment, pinned) if end == "verdict" else None)

    def _noting(self, see: Callable[[Moment], None]) -> Callable[[Moment], None]:
        def look(moment: Moment) -> None:
            self.peak.note(moment.seconds)
            see(moment)

        return look


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One demo at a time in a state folder; the kernel lets go of the lock when this process dies. UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for it, or give this one a folder of its own: FP_STATE_DIR=…"
            raise UserError("demo", f"another one runs in {folder}", fix) from None
        yield


def end_left(environment: Environment) -> str | None:
    """Stop the run that a demo left open when it was killed or left, since nobody approves its candidate; its id."""
    with reading(environment.state_dir) as reader:
        found = openrun.find(reader.conn)
        if found is None:
            return None
        run = found.platform_run_id
        state = reader.state(run)
        if state.pin_request is None or state.pin_request.reason != REASON:
            return None
        pinning.publish(environment, state, [(RunStopped(actor=actor(), reason="its demo was left"), ())])
        try:
            until(lambda: openrun.find(reader.conn) != found, STOPPED_S, f"run {run} is over")
        except TimeoutError as error:
            raise UserError(f"run {run}", str(error), "see `fp doctor`, then try again") from error
    return run


def demo(
    world: str = typer.Option(
        "sample", "--world", help="sample, or tiny (500 payments: too few frauds for scope full)"
    ),
    scope: str = typer.Option("full", "--scope", help="full: learns, promotes and decides by it; spine: up to P11"),
    fresh: bool = typer.Option(False, "--fresh", help="Make the undisturbed run anew although one is known"),
    timeout: float = typer.Option(TIMEOUT_S, "--timeout", help="Seconds for each run"),
) -> None:
    """Bring everything up, run a world without and with killed processes, compare, leave it running."""
    with told(), ExitStack() as held:
        check_scope(scope)
        began, folder = time.monotonic(), project.state_dir()
        held.enter_context(alone(folder))
        environment = launch.ready_environment(folder, steps(), actor(), REASON)
        left = end_left(environment)
        if left is not None:
            console().print(f"run {left} was left open by an earlier demo: it is stopped, nothing of it is deleted")
        found = Demo(environment, world, scope, timeout)
        if scope == "full":
            console().print(f"the candidate model is approved by {REVIEWER}, a standing approval of this demo: nobody "
                            "looks at it. A real one: fp models approve")  # fmt: skip
        before = None if fresh else _known(found)
        if before is None:
            before = _undisturbed(found)
        raise typer.Exit(_drilled(found, before, began))


def _known(demo: Demo) -> Reference | None:
    """The undisturbed run of an earlier demo that pinned exactly the same, its bundle verified again."""
    with reading(demo.environment.state_dir) as reader:
        found = reference.recall(reader, demo.plan(drill=False).config)
    if found is not None:
        console().print(
            f"[bold]1 of 2[/bold] the reference is there: {found.state.platform_run_id}, undisturbed, the same world, "
            "configuration and code; its bundle was verified again just now (--fresh runs it anew)"
        )
    return found


def _undisturbed(demo: Demo) -> Reference:
    """Run the reference; without its verdict nothing can be compared: the demo then ends."""
    console().print(
        "[bold]1 of 2[/bold] the reference: nothing is disturbed but by the world's own realism. It ends BLOCKED, as it"
        " must: where nothing is killed, no recovery is proven. What it comes to is compared with the second run"
    )
    planned = demo.plan(drill=False)
    ended, bundle = _whole(demo, planned)
    reference.remember(demo.environment.state_dir, planned.config, ended.pinned.run, bundle)
    prints = results.fingerprints(open_store(demo.environment.addresses.evidence_url), ended.state)
    return Reference(ended.state, bundle, prints)


def _whole(demo: Demo, planned: Planned) -> tuple[Ended, Path]:
    """A run that came to its verdict, and its bundle; one that did not ends the demo, which says what is next."""
    ended = demo.run(planned)
    if ended.bundle is not None:
        return ended, Path(ended.bundle)
    board.print_end(console(), ended.state)
    console().print(f"it ended without a verdict ({ended.end}), so there is nothing to compare\n"
                    f"{next_step(ended.state, ended.end, demo.environment.state_dir)}", markup=False)  # fmt: skip
    raise typer.Exit(exit_code(ended.state, ended.end))


def _drilled(demo: Demo, before: Reference, began: float) -> Exit:
    """Run it again with processes killed, print what both came to; the exit code."""
    screen, environment = console(), demo.environment
    screen.print("\n[bold]2 of 2[/bold] the same again, and processes are killed (SIGKILL) in mid-stream")
    ended, bundle = _whole(demo, demo.plan(drill=True))
    store = open_store(environment.addresses.evidence_url)
    board.print_end(screen, ended.state, results.equations(store, ended.state))
    board.print_proofs(screen, results.proofs(store, ended.state))
    same = _compared(before.fingerprints, results.fingerprints(store, ended.state))
    _tell_effect(environment, ended.state)
    seen = demo.peak.largest
    screen.print(
        f"memory at its peak {seen.pss_bytes / _GB:.1f} GB (shared pages counted once; {seen.rss_bytes / _GB:.1f} GB by"
        f" process) in {seen.processes} processes, looked at every {memory.EVERY_S:g} s\n"
        f"time {time.monotonic() - began:.0f} s   runs {before.state.platform_run_id}, {ended.pinned.run}\n"
        f"bundle {bundle}\n"
        f"board http://127.0.0.1:{environment.ports['verdict']}/ (stays up)\n"
        f"next: fp verify, fp status, {'fp models effect, ' if demo.order.scope == 'full' else ''}fp cost,"
        " fp trace EVENT_ID, fp down"
    )
    return exit_code(ended.state, ended.end) if same else Exit.FAIL


def _compared(before: dict[str, str], after: dict[str, str]) -> bool:
    """Print every fingerprint of both runs; whether all are equal."""
    screen, unlike = console(), results.difference(before, after)
    screen.print("\nfingerprints       undisturbed        with kills")
    for name in sorted({*before, *after}):
        mark = coloured("FAIL") if name in unlike else coloured("GREEN")
        screen.print(f"  {name:<16} {before.get(name, 'none')[:16]}…  {after.get(name, 'none')[:16]}…  {mark}")
    same = bool(before) and not unlike
    screen.print("every fingerprint is equal" if same else f"they differ: {', '.join(unlike) or 'nothing to compare'}")
    return same


def _tell_effect(environment: Environment, state: RunState) -> None:
    """What the model changed; that it cannot be told is told."""
    if state.header is None or state.header.config.scope != "full":
        return
    conn = connect(environment.settings().pg_dsn, "fp-read")
    try:
        show_effect(effect.of_run(conn, state))
    except UserError as error:
        console().print(f"{error.what}: {error.why}", markup=False)
    finally:
        conn.close()
