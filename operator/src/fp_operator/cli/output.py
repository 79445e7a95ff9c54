"""What every verb prints: text for people or JSON for programs; exit codes; one-line errors (experience.md §1)."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from typing import Any, Literal

import orjson
import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fp_operator.stack import Away, giving_back
from fp_operator.stack.refusals import full_disk, refused
from fp_runtime.errors import Unavailable, UserError

_PIPE_WIDTH = 160


class Exit(IntEnum):
    """Exit codes of every verb."""

    GREEN = 0
    FAIL = 1
    USAGE = 2
    BLOCKED = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


class Format(StrEnum):
    """How a verb prints."""

    TEXT = "text"
    JSON = "json"


OutputOption = typer.Option(Format.TEXT, "--output", "-o", help="text for people, json for programs")
RunArgument = typer.Argument(None, help="Run id or a unique part of it; the last run when left out")
ReasonOption = typer.Option(..., "--reason", help="Why: kept with the change")
DryRunOption = typer.Option(False, "--dry-run", help="Say what would be done, and do nothing")


def console(stderr: bool = False) -> Console:
    """Standard output, or error; colours only on a terminal without NO_COLOR."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=piped, width=_PIPE_WIDTH if piped else None)


def emit_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def steps() -> Callable[[str, str, float], None]:
    """A line per finished step of long work, on standard error."""
    err = console(stderr=True)

    def on_step(name: str, state: str, seconds: float) -> None:
        if state not in ("preparing", "starting"):
            err.print(f"  {name:<18} {state}" + (f" in {seconds:.1f} s" if seconds >= 0.05 else ""))

    return on_step


@contextmanager
def told() -> Iterator[None]:
    """One verb: errors as one line (what, why, the fix), servers it had to start are stopped again.

    No stack trace unless FP_DEBUG (set by --debug).
    """
    try:
        with giving_back(lambda line: console(stderr=True).print(line)):
            yield
    except UserError as error:
        _refuse(error)
    except (Unavailable, psycopg.OperationalError, psycopg.InterfaceError) as error:
        _refuse(_away(error))
    except BrokenPipeError:  # who reads our output has enough: typer ends quietly
        raise
    except (ConnectionError, TimeoutError) as error:
        _refuse(_away(error))
    except OSError as error:
        _refuse(refused(error))


def _refuse(error: UserError) -> None:
    down = isinstance(error, Away) or error.why == "not up"
    _fail(str(error), Exit.UNAVAILABLE if down else Exit.USAGE)


def _away(error: Exception) -> Away:
    """What does not answer, and the fix: a store whose disk refuses is mended in another way than one that is down."""
    why = " ".join(str(error).split())
    if isinstance(error, psycopg.Error):  # the server went while a verb was reading
        why = f"PostgreSQL: {why}"
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, ConnectionError | TimeoutError):
        return Away("unavailable", why, refused(cause).fix)
    if full_disk(why):
        return Away("unavailable", why, "free 1 GB on the disk of the state folder, then `fp up`")
    return Away("unavailable", why, "`fp doctor` says what is down, `fp up` starts it")


def _fail(line: str, code: Exit) -> None:
    if os.environ.get("FP_DEBUG"):
        raise
    screen = console(stderr=True)
    screen.print("[red]error[/red]", escape(line), soft_wrap=True)
    raise typer.Exit(code)


_COLOURS: Mapping[str, str] = {"PASS": "green", "BLOCKED": "red", "OPEN": "yellow", "FAIL": "red", "GREEN": "green"}


def coloured(state: str) -> str:
    """A state word in its colour."""
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else state


def phase_table(phases: list[dict[str, Any]]) -> Table:
    """The phase table of a run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("phase", "name", "state", "checks", "metered s", "spend µUSD", "blockers"):
        justify: Literal["left", "right"] = "right" if heading in ("metered s", "spend µUSD") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("phase", "name", "state", "checks"))
    for row in phases:
        codes = ", ".join(sorted({blocker["code"] for blocker in row["blockers"]}))
        checks = f"{row['checks']['ok']}/{row['checks']['of']}" if row["checks"]["of"] else ""
        attempt = f" (attempt {row['attempt']})" if row["attempt"] > 1 else ""
        table.add_row(
            row["phase"], row["name"], coloured(row["state"]) + attempt, checks, f"{row['seconds']:g}",
            str(round(row["spend_usd"] * 1e6)), codes,
        )  # fmt: skip
    return table
