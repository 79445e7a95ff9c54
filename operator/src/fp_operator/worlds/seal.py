"""Writes a world's files and puts the whole world in the oracle store at once, or nothing."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from fp_contracts.canonical import sha256_hex
from fp_runtime.evidence import open_store
from fp_wsp.world import MANIFEST_NAME, WorldFile, WorldManifest
from fp_wsp.world_store import manifest_bytes

ROWS_PER_FILE = 250_000


def write_view(
    folder: Path,
    stem: str,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    rows_per_file: int,
    done: Callable[[int], None],
) -> tuple[WorldFile, ...]:
    """Write `<stem>-00001.parquet`, … of at most `rows_per_file` rows; `done` hears the rows written so far."""
    files: list[WorldFile] = []
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table.cast(schema))
        while sum(part.num_rows for part in waiting) >= rows_per_file:
            whole = pa.concat_tables(waiting)
            files.append(_write(folder, stem, len(files) + 1, whole.slice(0, rows_per_file)))
            waiting = [whole.slice(rows_per_file)]
        rows += table.num_rows
        done(rows)
    rest = pa.concat_tables(waiting) if waiting else schema.empty_table()
    if rest.num_rows:
        files.append(_write(folder, stem, len(files) + 1, rest))
    return tuple(files)


def _write(folder: Path, stem: str, number: int, table: pa.Table) -> WorldFile:
    key = f"{stem}-{number:05d}.parquet"
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=65_536, store_schema=False)
    raw = path.read_bytes()
    return WorldFile(key=key, sha256=sha256_hex(raw), size=len(raw), rows=table.num_rows)


def publish(folder: Path, manifest: WorldManifest, url: str, endpoint: str | None) -> None:
    """Make the world visible: a rename in a folder store; elsewhere write-once puts with the manifest last.

    A world that is already there stays as it is.
    """
    (folder / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    if urlsplit(url).scheme == "file":
        _move(folder, Path(urlsplit(url).path) / manifest.fingerprint)
        return
    store = open_store(url, endpoint)
    for key in (*(file.key for file in (*manifest.stream, *manifest.truth)), MANIFEST_NAME):
        store.put(f"{manifest.fingerprint}/{key}", (folder / key).read_bytes())


def _move(folder: Path, target: Path) -> None:
    if (target / MANIFEST_NAME).is_file():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            path.chmod(0o444)
        _sync(path)
    _sync(folder)
    folder.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
