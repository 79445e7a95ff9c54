"""fp world list, import, inspect: the data sets that runs replay."""

import typer
from rich.table import Table

from fp_contracts.timestamps import to_text
from fp_operator import project
from fp_operator.cli.output import Exit, Format, OutputOption, console, emit_json, steps, told
from fp_operator.launch import find_world, worlds_of
from fp_operator.stack.addresses import store_url
from fp_wsp.world import WorldManifest

world = typer.Typer(no_args_is_help=True, help="The worlds that runs replay.")


def _oracle() -> str:
    return store_url(project.state_dir(), "oracle")


def _row(manifest: WorldManifest) -> dict[str, object]:
    return {
        "fingerprint": manifest.fingerprint, "name": manifest.name, "payments": manifest.rows,
        "frauds": manifest.frauds, "merchants": manifest.merchants, "accounts": manifest.accounts,
        "from": to_text(manifest.first_us), "to": to_text(manifest.last_us), "licence": manifest.licence,
    }  # fmt: skip


@world.command("list")
def list_(output: Format = OutputOption) -> None:
    """Every world of the oracle store; `sample` and `tiny` are sealed at their first use."""
    with told():
        rows = [_row(found) for found in worlds_of(_oracle())]
    if output is Format.JSON:
        emit_json({"worlds": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "payments", "frauds", "from", "to", "fingerprint"):
        table.add_column(heading, justify="right" if heading in ("payments", "frauds") else "left")
    for row in rows:
        table.add_row(str(row["name"]), f"{row['payments']:,}", f"{row['frauds']:,}", str(row["from"])[:10],
                      str(row["to"])[:10], str(row["fingerprint"])[:16])  # fmt: skip
    console().print(table)


@world.command("import")
def import_(
    source: str = typer.Argument(help="File or glob: CSV or parquet"),
    mapping: str = typer.Option(..., "--mapping", help="Shipped mapping (handbook, sparkov) or a TOML file"),
    start: str | None = typer.Option(None, "--from", help="First moment that is kept, e.g. 2018-06-18T00:00:00Z"),
    until: str | None = typer.Option(None, "--until", help="First moment behind it"),
    output: Format = OutputOption,
) -> None:
    """Check, sort and seal foreign payments as a world; the truth is kept apart."""
    from fp_operator.worlds.importer import import_world  # here: its engines cost every other verb a second
    from fp_operator.worlds.mapping import load_mapping

    on_step = steps()

    def progress(stage: str, done: int, total: int | None) -> None:
        if total:
            on_step(stage, f"{done:,} of {total:,} rows", 0.0)

    with told():
        chosen = load_mapping(mapping).between(start, until)
        manifest = import_world(source, chosen, _oracle(), progress=progress)
    if output is Format.JSON:
        emit_json(_row(manifest))
        return
    console().print(f"world {manifest.fingerprint}\nnext: fp run --world {manifest.fingerprint[:16]}")


@world.command("inspect")
def inspect(name: str = typer.Argument(help="sample, tiny, a name or a fingerprint"),
            output: Format = OutputOption) -> None:  # fmt: skip
    """A world's manifest, every file re-hashed and every row checked."""
    from fp_wsp.world_check import verify  # here: parquet costs every other verb half a second
    from fp_wsp.world_store import open_world

    with told():
        found = find_world(_oracle(), name)
        problems = verify(open_world(_oracle(), found.fingerprint))
    document = _row(found) | {
        "label_policy": found.label_policy, "tokenised": found.tokenised, "dropped": found.dropped_duplicates,
        "problems": [problem._asdict() for problem in problems],
    }  # fmt: skip
    if output is Format.JSON:
        emit_json(document)
    else:
        for key, value in document.items():
            console().print(f"{key:<14} {value}", markup=False)
    raise typer.Exit(Exit.FAIL if problems else Exit.GREEN)
