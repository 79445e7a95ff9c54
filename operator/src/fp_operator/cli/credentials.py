"""fp token: a credential for the HTTP surfaces of an environment, for one run and a time."""

import typer

from fp_contracts.ingress import ADJUDICATION, CASE_READ, EVENT_CLASSES
from fp_contracts.timestamps import to_text
from fp_operator import project, substrate
from fp_operator.cli.output import Format, OutputOption, console, emit_json, told
from fp_operator.cli.running import actor, in_hours
from fp_operator.runs import reading
from fp_operator.stack.state import StateFolder
from fp_runtime.errors import UserError
from fp_runtime.tokens import Claims, issue, parse_keys

_CLASSES = tuple(dict.fromkeys((CASE_READ, ADJUDICATION, *EVENT_CLASSES)))
_ASKED = typer.Argument(..., help=f"What it may do: {', '.join(_CLASSES)}")
_RUN = typer.Option(None, "--run", help="Run id or a unique part of it; the last run when left out")


def token(
    classes: list[str] = _ASKED,
    run: str | None = _RUN,
    hours: float = typer.Option(8.0, "--hours", min=0.01, max=24.0, help="How long it is good for"),
    output: Format = OutputOption,
) -> None:
    """Sign a credential for one run: `curl -H "Authorization: Bearer $(fp token case_read)" …/v1/cases`."""
    with told():
        unknown = [name for name in classes if name not in _CLASSES]
        if unknown:
            raise UserError(f"class {unknown[0][:40]!r}", "no such class", f"one of {', '.join(_CLASSES)}")
        folder = project.state_dir()
        with reading(folder) as reader:
            name = reader.state(run).platform_run_id
        expires_us = in_hours(hours)
        claims = Claims(kid=substrate.KEY_ID, sub=actor(), run=name, classes=tuple(classes), exp_us=expires_us)
        signed = issue(parse_keys(substrate.producer_keys(StateFolder(folder))), claims)
    if output is Format.JSON:
        emit_json({"token": signed, "platform_run_id": name, "classes": classes, "until": to_text(expires_us)})
        return
    console().print(signed, markup=False, soft_wrap=True, highlight=False)
