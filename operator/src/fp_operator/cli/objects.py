"""fp evidence ls, show, export and fp verify: the proof, object by object."""

from pathlib import Path
from typing import Any

import orjson
import typer
from rich.table import Table

from fp_contracts.canonical import sha256_hex
from fp_operator import bundles, project
from fp_operator.cli.output import Exit, Format, OutputOption, RunArgument, coloured, console, emit_json, told
from fp_operator.runs import Reader, reading
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore, open_store

OutOption = typer.Option(None, "--out", help="Folder or .tar.gz; .fp/bundles/RUN.tar.gz when left out")
BundleArgument = typer.Argument(None, help="Bundle; the last exported one when left out")
evidence = typer.Typer(no_args_is_help=True, help="The evidence of a run.")


def _store(reader: Reader) -> EvidenceStore:
    return open_store(reader.environment.addresses.evidence_url)


@evidence.command("ls")
def ls(run: str | None = RunArgument, output: Format = OutputOption) -> None:
    """Every object of a run: key, size, sha256 and the phase that names it."""
    with told(), reading(project.state_dir()) as reader:
        state = reader.state(run)
        store, named = _store(reader), bundles.producers(state)
        stored = [item.key for item in store.list(bundles.run_root(state.platform_run_id))]
        rows = [_described(store, key, named.get(key)) for key in sorted({*stored, *named})]
    if output is Format.JSON:
        emit_json({"platform_run_id": state.platform_run_id, "objects": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("phase", "size", "sha256", "key"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for row in rows:
        table.add_row(row["phase"] or "", f"{row['size']:,}" if row["size"] is not None else "MISSING",
                      (row["sha256"] or "")[:12], row["key"])  # fmt: skip
    console().print(table)


def _described(store: EvidenceStore, key: str, named: tuple[str, int, str] | None) -> dict[str, Any]:
    body = store.get(key) if store.exists(key) else None
    return {
        "key": key,
        "size": None if body is None else len(body),
        "sha256": None if body is None else sha256_hex(body),
        "phase": named and named[0],
        "attempt": named and named[1],
    }


@evidence.command("show")
def show(key: str = typer.Argument(help="Key, or a unique part of it"), run: str | None = RunArgument) -> None:
    """One object as it is stored (JSON indented)."""
    with told(), reading(project.state_dir()) as reader:
        store = _store(reader)
        try:
            body = store.get(key if store.exists(key) else _one(store, bundles.run_root(reader.find(run).run), key))
        except (EvidenceMissing, EvidenceKeyError) as error:
            raise UserError(f"evidence {key}", str(error), "see `fp evidence ls`") from error
    emit_json(orjson.loads(body))


def _one(store: EvidenceStore, prefix: str, part: str) -> str:
    found = [item.key for item in store.list(prefix) if part in item.key]
    if len(found) != 1:
        why = "no object has this in its key" if not found else f"stands for {len(found)} objects"
        raise UserError(f"evidence {part[:80]}", why, "see `fp evidence ls`")
    return found[0]


@evidence.command("export")
def export(
    run: str | None = RunArgument,
    out: Path | None = OutOption,
    output: Format = OutputOption,
) -> None:
    """One self-contained bundle that `fp verify` checks without any service."""
    with told(), reading(project.state_dir()) as reader:
        pinned, folder = reader.find(run), reader.environment.state_dir
        target = out or bundles.free_name(folder, pinned.run)
        objects = bundles.write(_store(reader), reader.consumer, pinned, target)
        latest = project.latest(folder)
        if latest is None or latest[0] == pinned.run:
            project.remember_latest(folder, pinned.run, str(target))
    if output is Format.JSON:
        emit_json({"platform_run_id": pinned.run, "bundle": str(target), "objects": objects})
        return
    console().print(f"{objects} objects in {target}\nnext: fp verify {target}")


def verify(
    bundle: Path | None = BundleArgument,
    output: Format = OutputOption,
) -> None:
    """Recompute a run's verdict and every hash from its bundle. No service is needed."""
    with told():
        result = bundles.check(bundle or _latest_bundle())
    if output is Format.JSON:
        emit_json(result)
    else:
        console().print(f"{coloured(result['result'])}  {result['objects']} objects, verdict "
                        f"{coloured(result['verdict'])}, spine {coloured(result['spine_verdict'])}")  # fmt: skip
        for fault in result["mismatches"]:
            console().print(f"  {fault['blocker']}  {fault['key']}: {fault['why']}", markup=False)
    raise typer.Exit(Exit.GREEN if result["result"] == "PASS" else Exit.FAIL)


def _latest_bundle() -> Path:
    latest = project.latest(project.state_dir())
    if latest is None or not latest[1]:
        raise UserError("bundle", "none was exported yet", "`fp evidence export`, or name one")
    return Path(latest[1])
