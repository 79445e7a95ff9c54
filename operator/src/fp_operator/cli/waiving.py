"""fp waive: let one check of one run pass, by name, with a reason, until a time; itself evidence."""

import typer

from fp_contracts.control import WaiverGranted
from fp_contracts.timestamps import to_text
from fp_contracts.waivers import Waiver
from fp_operator import pinning, project
from fp_operator.cli.output import (
    DryRunOption,
    Format,
    OutputOption,
    ReasonOption,
    RunArgument,
    told,
)
from fp_operator.cli.running import actor, in_hours, say, still_open
from fp_operator.runs import reading

_WAIVER = typer.Argument(..., help="; ".join(f"{waiver.value}: {waiver.lets_pass}" for waiver in Waiver))


def waive(
    waiver: Waiver = _WAIVER,
    run: str | None = RunArgument,
    reason: str = ReasonOption,
    hours: float = typer.Option(4.0, "--hours", min=0.01, max=168.0, help="For how long; later gates do not see it"),
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Waive one check of an open run: who, why and until when go into its log, its governance and its evidence."""
    with told(), reading(project.state_dir()) as reader:
        state, expires_us = still_open(reader, run), in_hours(hours)
        granted = WaiverGranted(waiver=waiver.value, actor=actor(), reason=reason, expires_us=expires_us)
        if not dry_run:
            pinning.publish(reader.environment, state, [(granted, (waiver.value, str(expires_us)))])
    document = {
        "platform_run_id": state.platform_run_id, "waives": waiver.value, "actor": granted.actor,
        "until": to_text(expires_us),
    }  # fmt: skip
    say(output, dry_run, document)
