"""fp models: what people decide about model bundles."""

import typer

from fp_operator import approving, pinning, project
from fp_operator.cli.output import DryRunOption, Format, OutputOption, ReasonOption, RunArgument, emit_json, told
from fp_operator.runs import reading
from fp_runtime.evidence import open_store

models = typer.Typer(help="Approve the candidate bundle of a run.", no_args_is_help=True)


@models.command()
def approve(
    actor: str = typer.Option(..., "--as", help="Who approves; not the one who asked for the run"),
    run: str | None = RunArgument,
    reason: str = ReasonOption,
    dry_run: bool = DryRunOption,
    output: Format = OutputOption,
) -> None:
    """Approve the candidate bundle of a run for promotion; the corridor promotes it in P15."""
    with told(), reading(project.state_dir()) as reader:
        environment, state = reader.environment, reader.state(run)
        bundle = approving.candidate_of(state, open_store(environment.addresses.evidence_url))
        event = approving.approval(state, bundle, actor, reason)
        if not dry_run:
            pinning.publish(environment, state, [event])
        document = {"platform_run_id": state.platform_run_id, **bundle.model_dump(mode="json"), "approved_by": actor}
        if output is Format.JSON or dry_run:
            emit_json(document | {"dry_run": dry_run})
            return
        typer.echo(f"{actor} approved bundle {bundle.bundle_id} of {state.platform_run_id}\nnext: fp watch")
