"""fp models: what people decide about model bundles, and what these did."""

import typer
from rich.table import Table

from fp_contracts.reasons import Action
from fp_operator import approving, catalogue, comparing, effect, pinning, project
from fp_operator.cli.output import (
    DryRunOption,
    Format,
    OutputOption,
    ReasonOption,
    RunArgument,
    console,
    emit_json,
    told,
)
from fp_operator.runs import reading
from fp_runtime.evidence import open_store

_SHARES = (
    ("average precision", "average_precision_ppm"), ("card precision", "card_precision_ppm"),
    ("false positives", "false_positive_ppm"),
)  # fmt: skip
_MONEY = (
    ("fraud money blocked", "fraud_blocked_minor"), ("fraud money stopped", "fraud_stopped_minor"),
    ("legitimate money blocked", "legit_blocked_minor"),
)  # fmt: skip
_BLOCKED = (("fraud money blocked", "fraud_blocked_minor"), ("legitimate money blocked", "legit_blocked_minor"))
models = typer.Typer(
    help="Model bundles: approve one, list them, compare two, see what one changed.", no_args_is_help=True
)


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


@models.command("list")
def list_(output: Format = OutputOption) -> None:
    """Every bundle of the registry: family, state and where it is active."""
    with told(), reading(project.state_dir()) as reader:
        rows = catalogue.bundles(catalogue.read_registries(reader.consumer))
    if output is Format.JSON:
        emit_json({"bundles": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("state", "family", "bundle_id", "policy_rev", "environment", "published")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name] or "") for name in columns))
    console().print(table if rows else "no bundle was published yet: one is with P15 of `fp run --scope full`")


@models.command()
def compare(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """Champion and challenger on the same decisions of window 2, by what was known when it ended."""
    with told(), reading(project.state_dir()) as reader:
        found = comparing.of_run(reader.conn, reader.state(run))
    if output is Format.JSON:
        emit_json(found.document())
        return
    show_comparison(found)


def show_comparison(found: comparing.Comparison) -> None:
    """The comparison as tables for people."""
    table = _side_by_side("champion", "challenger")
    sides = (found.champion, found.challenger)
    table.add_row("bundle", *(side.bundle_ref.removeprefix("bundle:")[:12] for side in sides))
    table.add_row("average precision", *(_share(side.average_precision_ppm) for side in sides))
    table.add_row(f"card precision @ {found.per_day} a day", *(_share(side.card_precision_ppm) for side in sides))
    for name, field in _BLOCKED:
        table.add_row(name, *(f"{getattr(side, field) / 100:,.2f} {found.currency}" for side in sides))
    for action in Action:
        table.add_row(f"asks for {action.value}", *(f"{side.by_action[action.value]:,}" for side in sides))
    left_out = "".join(f", {n:,} {why}" for why, n in found.unscored.items())
    console().print(table)
    console().print(
        f"{found.payments:,} payments scored by both{left_out}; same action for {found.agreed:,}, rank correlation"
        f" {_share(found.rank_correlation_ppm)}\nfigures over {found.known:,} payments with {found.frauds} frauds, as"
        " known when window 2 ended; actions are those of the thresholds alone"
    )


@models.command("effect")
def effect_(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """What the model changed in window 2: its decisions against the guardrails alone on the same payments."""
    with told(), reading(project.state_dir()) as reader:
        found = effect.of_run(reader.conn, reader.state(run))
    if output is Format.JSON:
        emit_json(found.document())
        return
    show_effect(found)


def show_effect(found: effect.Effect) -> None:
    """The effect as a table for people."""
    table = _side_by_side("with the model", "guardrails only")
    for name, field in _SHARES:
        label = f"{name} @ {found.per_day} a day" if name == "card precision" else name
        table.add_row(label, *(_share(getattr(side, field)) for side in (found.with_model, found.guardrails)))
    for name, field in _MONEY:
        sides = (found.with_model, found.guardrails)
        table.add_row(name, *(f"{getattr(side, field) / 100:,.2f} {found.currency}" for side in sides))
    console().print(table)
    console().print(
        f"{found.payments:,} payments with {found.frauds} frauds ({found.fraud_minor / 100:,.2f} {found.currency}), as"
        f" known when window 2 ended; left out: {found.immature:,} not adjudicated yet, {found.uncertain:,} uncertain,"
        f" {found.without_model:,} decided without a model"
    )


def _side_by_side(*sides: str) -> Table:
    """A table of window 2: what each row is of, and its figure on each side."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("window 2")
    for side in sides:
        table.add_column(side, justify="right")
    return table


def _share(ppm: int | None) -> str:
    return "unknown" if ppm is None else f"{ppm / 1e6:.4f}"
