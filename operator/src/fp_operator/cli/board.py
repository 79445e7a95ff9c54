"""What a watcher of a run sees: a live board on a terminal, one line per change elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fp_contracts.fold import RunState
from fp_contracts.phases import ORDER
from fp_operator import results, status
from fp_operator.cli.output import coloured, phase_table
from fp_operator.corridor import standing
from fp_operator.following import Moment

_LINE_EVERY_S = 5.0


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Moment], None]]:
    """A function that shows each moment: live on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda moment: live.update(picture(moment))


def picture(moment: Moment) -> Group:
    """The board of one moment: phases, stages with rates, ETA."""
    document = status.document(moment.state)
    now = standing(moment.state) or _stream(moment)
    head = Text(f"{moment.state.platform_run_id}  {moment.seconds:.0f} s  {now}")
    return Group(head, _stages(moment), phase_table(document["phases"]))


def _stages(moment: Moment) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "records", "per s"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, done in moment.progress.stages.items():
        table.add_row(stage, f"{done:,}", f"{moment.rate_per_s(stage):,.0f}")
    return table


def _stream(moment: Moment) -> str:
    progress, eta = moment.progress, moment.eta_s()
    ahead = progress.total > progress.ingested
    share = f"{progress.ingested:,}" + (f" of about {progress.total:,} lines" if ahead else " lines")
    left = f", {eta:.0f} s left" if eta else ""
    return f"{share} in, {moment.rate_per_s():,.0f}/s{left}"


class Lines:
    """One line per phase that changes, for each step of the learning lane, and every few seconds of the stream."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, tuple[str, int]] = {}
        self._told_s = 0.0
        self._ingested = 0
        self._standing: str | None = None

    def __call__(self, moment: Moment) -> None:
        """Print what is new."""
        for phase in ORDER:
            now = (moment.state.state_of(phase), moment.state.attempt_of(phase))
            if now != self._known.get(phase, ("OPEN", 1)):
                self._known[phase] = now
                self._console.print(_phase_line(moment, phase))
        moved = moment.progress.ingested != self._ingested
        if moved and moment.seconds - self._told_s >= _LINE_EVERY_S:
            self._told_s, self._ingested = moment.seconds, moment.progress.ingested
            self._console.print(f"{moment.seconds:7.1f} s  {_stream(moment)}")
        where = standing(moment.state)
        if where is not None and where != self._standing:
            self._console.print(f"{moment.seconds:7.1f} s  {where}", markup=False)
        self._standing = where


def _equations(equations: Sequence[Mapping[str, Any]]) -> Table:
    """One row per equation, both sides of each window: window 2 counts on from where window 1 was counted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("equation")
    sides: dict[str, dict[bool, Mapping[str, Any]]] = {}
    for equation in equations:
        name = str(equation["name"])
        sides.setdefault(name.removeprefix(results.WINDOW_2), {})[name.startswith(results.WINDOW_2)] = equation
    windows = sorted({later for found in sides.values() for later in found})
    for later in windows:
        table.add_column("window 2" if later else "window 1" if len(windows) > 1 else "both sides", justify="right")
    for name, found in sides.items():
        table.add_row(name, *(_both_sides(found.get(later)) for later in windows))
    return table


def _both_sides(equation: Mapping[str, Any] | None) -> str:
    if equation is None:
        return ""
    mark = "[green]ok[/green]" if equation["ok"] else "[red]NO[/red]"
    return f"{equation['left']:,} = {equation['right']:,} {mark}"


def print_proofs(console: Console, proofs: Mapping[str, Mapping[str, str]]) -> None:
    """The six-proof matrix of P16, one row per lane; nothing before it was made."""
    if not proofs:
        return
    names = list(next(iter(proofs.values())))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("proofs of", *names):
        table.add_column(heading.replace("_", " "))
    for lane, cells in proofs.items():
        table.add_row(lane, *(coloured(cells[name]) for name in names))
    console.print(table)


def _phase_line(moment: Moment, phase: str) -> str:
    row = status.phase_row(moment.state, phase)
    checks = f"  {row['checks']['ok']}/{row['checks']['of']} checks" if row["checks"]["of"] else ""
    blockers = "".join(f"\n           {b['code']} {b['reason']}" for b in row["blockers"])
    return f"{moment.seconds:7.1f} s  {phase:<5} {row['name']:<26} {coloured(row['state'])}{checks}{blockers}"


def print_end(console: Console, state: RunState, equations: Sequence[Mapping[str, Any]] = ()) -> None:
    """The phase table, the equations with both sides, the verdict."""
    document = status.document(state)
    console.print(phase_table(document["phases"]))
    if equations:
        console.print(_equations(equations))
    final = "" if document["final"] else " (not final)"
    console.print(
        f"\nspine {coloured(document['spine_verdict'])}   platform {coloured(document['verdict'])}{final}"
        f"   profile {document['profile']}, scope {document['scope']}"
    )
    if (now := standing(state)) is not None and not document["final"]:
        console.print(now, markup=False)
