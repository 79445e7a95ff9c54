"""fp trace, lag, tail, cost: what happened inside a run."""

import typer
from rich.table import Table

from fp_operator import costs, lagging, project
from fp_operator.cli.output import Format, OutputOption, RunArgument, console, emit_json, told
from fp_operator.runs import reading
from fp_operator.tracing import Step, Tracer

RunOption = typer.Option(None, "--run", help="Run id or a unique part of it; the last run when left out")


def trace(
    event_id: str = typer.Argument(help="Event id of a payment's authorisation request"),
    run: str | None = RunOption,
    output: Format = OutputOption,
) -> None:
    """One payment's whole life: receipt, offsets, snapshot, decision with reasons, audit, action, case, labels."""
    with told(), reading(project.state_dir()) as reader:
        pinned = reader.find(run)
        steps = Tracer(reader.conn, reader.consumer, pinned.run).trace(event_id)
    if output is Format.JSON:
        emit_json({"platform_run_id": pinned.run, "event_id": event_id, "steps": steps})
        return
    for step in steps:
        console().print(f"[bold]{step['step']}[/bold]  {_line(step)}")


def _line(step: Step) -> str:
    shown = {key: value for key, value in step.items() if key != "step" and value not in (None, [], "")}
    return "  ".join(f"{key}={str(value)[:80]}" for key, value in shown.items()).replace("[", r"\[")


def lag(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """How far the join (rtdl) is behind each topic it reads; `fp watch` shows how far every stage is."""
    with told(), reading(project.state_dir()) as reader:
        state = reader.state(run)
        rows = lagging.lag(reader.conn, reader.consumer, state)
        on_topics = lagging.on_topics(reader.consumer, state)
    if output is Format.JSON:
        emit_json({"platform_run_id": state.platform_run_id, "stages": rows, "topics": on_topics})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "topic", "partitions", "records", "lag"):
        table.add_column(heading, justify="left" if heading in ("stage", "topic") else "right")
    for row in rows:
        table.add_row(row["stage"], row["topic"], str(row["partitions"]), f"{row['records']:,}", f"{row['lag']:,}")
    console().print(table)


def tail(
    topic: str = typer.Argument(help="Topic, or a unique part of its name"),
    n: int = typer.Option(10, "-n", min=1, max=10_000, help="How many of the newest records"),
    output: Format = OutputOption,
) -> None:
    """The newest records of a topic, decoded; -o json gives all of them as one document."""
    with told():
        name = lagging.topic_of(topic)
        with reading(project.state_dir()) as reader:
            profile = reader.environment.settings().profile
            records = [lagging.decoded(record) for record in lagging.newest(reader.consumer, name, n, profile)]
    if output is Format.JSON:
        emit_json({"topic": name, "records": records})
        return
    for record in records:
        body = record.pop("body", None)
        head = "  ".join(f"{key}={value}" for key, value in record.items())
        console().print(head, style="bold", markup=False)
        console().print_json(data=body) if body is not None else None


def cost(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """Envelope against receipt, phase by phase; the sums that must agree; the month against its limit."""
    with told(), reading(project.state_dir()) as reader:
        document = costs.document(reader.conn, reader.state(run))
    if output is Format.JSON:
        emit_json(document)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("phase", "attempt", "spend µUSD", "cap µUSD", "seconds", "expected s", "risk retired"):
        table.add_column(heading, justify="left" if heading in ("phase", "risk retired") else "right")
    for row in document["phases"]:
        table.add_row(
            row["phase"], str(row["attempt"]), f"{row['spend_microusd']:,}", f"{row['cap_microusd'] or 0:,}",
            f"{row['seconds']:g}", str(row["expected_s"] or ""), row["risk_retired"],
        )  # fmt: skip
    screen = console()
    screen.print(table)
    sums = "agree" if document["sums_agree"] else "DO NOT AGREE"
    screen.print(
        f"metered {document['metered_microusd']:,} = booked {document['booked_microusd']:,} + not booked"
        f" {document['unbooked_microusd']:,} µUSD: {sums}"
    )
    if document["month"]:
        month = document["month"]
        screen.print(f"month {month['month']}, as the run saw it: {month['spend_microusd'] / 1e6:.4f} of "
                     f"{document['limit_microusd'] / 1e6:.0f} USD, alert {month['alert']}")  # fmt: skip
