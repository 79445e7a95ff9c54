"""The `fp` command: every verb of experience.md §1 and the spec's three commands by name."""

import os
import sys

import typer

from fp_operator.cli import (
    credentials,
    demo,
    inside,
    lifecycle,
    models,
    objects,
    reading,
    rehearsing,
    running,
    waiving,
    worlds,
)
from fp_runtime import logs

app = typer.Typer(
    name="fp", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
    help="Run, watch and prove the fraud platform.", context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback()
def options(debug: bool = typer.Option(False, "--debug", help="Show stack traces")) -> None:
    """Run, watch and prove the fraud platform."""
    if debug:
        os.environ["FP_DEBUG"] = "1"


for verb in (
    lifecycle.up, lifecycle.down, lifecycle.doctor,
    running.run, running.watch, running.stop, running.resume, waiving.waive, credentials.token, rehearsing.rehearse,
    reading.status, reading.why,
    inside.trace, inside.lag, inside.tail, inside.cost, objects.verify, demo.demo,
):  # fmt: skip
    app.command()(verb)
app.add_typer(objects.evidence, name="evidence")
app.add_typer(worlds.world, name="world")
app.add_typer(models.models, name="models")


def main() -> None:
    """fp …"""
    _call(sys.argv[1:], "fp")


def dev_full_up() -> None:
    """The spec's `dev-full-up`."""
    _call(["up", *sys.argv[1:]], "dev-full-up")


def dev_full_run() -> None:
    """The spec's `dev-full-run --platform_run_id … --scenario_run_id …`."""
    _call(["run", *sys.argv[1:]], "dev-full-run")


def dev_full_down() -> None:
    """The spec's `dev-full-down`."""
    _call(["down", *sys.argv[1:]], "dev-full-down")


def _call(arguments: list[str], name: str) -> None:
    # What the libraries have to say goes to standard error: standard output is the verb's answer, often JSON.
    logs.configure("fp", "ERROR")
    app(arguments, prog_name=name)
