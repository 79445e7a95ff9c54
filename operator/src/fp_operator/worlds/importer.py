"""Imports a foreign table of payments as a sealed world: read, check, sort, split off the truth, seal."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from fp_operator.worlds import failures, rows, sql
from fp_operator.worlds.cards import DIGIT_RUN, has_card_number, token_of
from fp_operator.worlds.mapping import Filter, Mapping, refuse
from fp_operator.worlds.seal import ROWS_PER_FILE, publish, write_view
from fp_operator.worlds.source import files_sha256, find_files, relation
from fp_runtime.errors import UserError
from fp_wsp import world
from fp_wsp.world import AUTH_REQUEST, WorldManifest
from fp_wsp.world_store import STREAM_SCHEMA, TRUTH_SCHEMA

Progress = Callable[[str, int, int | None], None]
"""Hears (stage, rows done, rows in all or None when not known yet)."""

_BATCH_ROWS = 65_536
_MEMORY_LIMIT = "1GB"
_STREAM_QUERY = """SELECT ts_us, payment_id, merchant_id,
 row_number() OVER (PARTITION BY merchant_id ORDER BY ts_us, payment_id) AS arrival_seq,
 account_id, coalesce(instrument_id, account_id) AS instrument_id, device_id, terminal_id, amount_minor, currency,
 channel, mcc, country, category, auth_result FROM staged ORDER BY ts_us, payment_id"""
_TRUTH_QUERY = """SELECT ts_us, payment_id, payment_id AS event_id, merchant_id, account_id, is_fraud, campaign
 FROM staged ORDER BY ts_us, payment_id"""


def import_world(
    source: str | Path,
    mapping: Mapping,
    out_url: str,
    *,
    endpoint: str | None = None,
    token_key: bytes | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    progress: Progress = lambda stage, done, total: None,
) -> WorldManifest:
    """Import files (a path or glob) under a mapping into the oracle store at `out_url`; the manifest names the world.

    `token_key` makes card-number tokens repeatable; without it each import draws its own and forgets it.
    Raises UserError (bad input, full disk) and Unavailable (store down); then nothing of the world is left.
    """
    refuse(mapping)
    files = find_files(source)
    parent = _staging_parent(out_url)
    try:
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=parent) as scratch:
            folder = Path(scratch, "world")
            folder.mkdir()
            with duckdb.connect(str(Path(scratch, "staging.duckdb"))) as staged:
                _configure(staged, Path(scratch, "spill"), mapping)
                manifest = _build(
                    staged, files, mapping, folder, token_key or secrets.token_bytes(32), rows_per_file, progress
                )
            publish(folder, manifest, out_url, endpoint)
    except duckdb.Error as error:
        raise failures.of_engine(error, str(source), out_url) from error
    except OSError as error:
        raise failures.of_store(error.strerror or type(error).__name__, out_url) from error
    return manifest


def _build(
    staged: duckdb.DuckDBPyConnection,
    files: list[str],
    mapping: Mapping,
    folder: Path,
    token_key: bytes,
    rows_per_file: int,
    progress: Progress,
) -> WorldManifest:
    dropped = _stage(staged, files, mapping, progress)
    total = rows.count_rows(staged)
    tokenised = _tokenise(staged, token_key)
    source_sha256 = files_sha256(files)
    world_id = world.world_id(source_sha256, mapping.digest)
    payments = _tables(staged, _STREAM_QUERY)
    stream = write_view(
        folder, "stream/payments", STREAM_SCHEMA, payments, rows_per_file, lambda n: progress("stream", n, total)
    )
    labels = (_with_event_ids(table, world_id) for table in _tables(staged, _TRUTH_QUERY))
    truth = write_view(
        folder, "truth/truth", TRUTH_SCHEMA, labels, rows_per_file, lambda n: progress("truth", n, total)
    )
    return WorldManifest(
        name=mapping.name,
        description=mapping.description,
        licence=mapping.licence,
        world_id=world_id,
        source_sha256=source_sha256,
        mapping_digest=mapping.digest,
        label_policy=f"is_fraud from {mapping.truth.is_fraud.column!r}; empty = {mapping.truth.is_fraud.missing}",
        tokenised=tokenised,
        dropped_duplicates=dropped,
        stream=stream,
        truth=truth,
        **_counted(staged),
    )


def _stage(staged: duckdb.DuckDBPyConnection, files: list[str], mapping: Mapping, progress: Progress) -> int:
    """Read, check, filter; how many repeated rows were dropped."""
    progress("read", 0, None)
    staged.execute(sql.staging(mapping, relation(staged, files, mapping)))
    found = rows.count_rows(staged)
    progress("check", found, found)
    rows.check(staged, mapping)
    _keep(staged, mapping.filter)
    dropped = rows.drop_duplicates(staged, mapping)
    if not rows.count_rows(staged):
        raise UserError("world", "no row is left", "check the mapping's filter and the source files")
    return dropped


def _counted(staged: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The manifest's counts and time range."""
    found = staged.sql(
        "SELECT count(*) AS rows, count(*) FILTER (is_fraud) AS frauds, count(DISTINCT merchant_id) AS merchants,"
        " count(DISTINCT account_id) AS accounts, min(ts_us) AS first_us, max(ts_us) AS last_us,"
        " list_sort(list(DISTINCT currency)) AS currencies FROM staged"
    ).to_arrow_table()
    counts: dict[str, Any] = found.to_pylist()[0]
    return counts | {"currencies": tuple(counts["currencies"])}


def _staging_parent(out_url: str) -> Path | None:
    """Where to build: beside the target, so that sealing is one rename; None = the system's temporary folder."""
    parts = urlsplit(out_url)
    if parts.scheme != "file":
        return None
    folder = Path(parts.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"oracle store {out_url}", error.strerror or type(error).__name__, "choose a folder that can be made"
        ) from error
    return folder


def _configure(staged: duckdb.DuckDBPyConnection, spill: Path, mapping: Mapping) -> None:
    staged.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
    staged.execute("SET threads = 2")
    staged.execute(f"SET temp_directory = {sql.literal(str(spill))}")
    staged.execute("SET preserve_insertion_order = true")
    staged.execute("SET enable_progress_bar = false")
    try:
        staged.execute(f"SET TimeZone = {sql.literal(mapping.time.tz)}")
    except duckdb.Error as error:
        raise UserError(
            "mapping time.tz", f"unknown time zone {mapping.time.tz!r}", "use an IANA name such as Europe/Paris"
        ) from error


def _keep(staged: duckdb.DuckDBPyConnection, wanted: Filter) -> None:
    """Keep [start, until) and the first `rows` payments in event-time order."""
    for bound, operator in ((wanted.start, "<"), (wanted.until, ">=")):
        if bound is not None:
            try:
                staged.execute(
                    f"DELETE FROM staged WHERE ts_us {operator} epoch_us(CAST({sql.literal(bound)} AS TIMESTAMPTZ))"
                )
            except duckdb.ConversionException as error:
                raise UserError("mapping filter", f"{bound!r} is not a time", "use 2019-03-04T00:00:00Z") from error
    if wanted.rows is not None:
        staged.execute(
            "DELETE FROM staged WHERE row_no NOT IN"
            f" (SELECT row_no FROM staged ORDER BY ts_us, payment_id LIMIT {wanted.rows})"
        )


def _tokenise(staged: duckdb.DuckDBPyConnection, key: bytes) -> dict[str, int]:
    """Replace card numbers in every text field; how many distinct values each field had."""
    found: dict[str, int] = {}
    for field in sql.TEXT_FIELDS:
        suspects = staged.execute(
            f"SELECT DISTINCT {field} FROM staged"
            f" WHERE regexp_matches(replace(replace({field}, ' ', ''), '-', ''), '{DIGIT_RUN}')"
        ).fetchall()
        tokens = [(value, token_of(value, key)) for (value,) in suspects if has_card_number(value)]
        if tokens:
            pairs = pa.table({"value": [v for v, _ in tokens], "token": [t for _, t in tokens]})
            staged.register("tokens", pairs)
            staged.execute(f"UPDATE staged SET {field} = token FROM tokens WHERE {field} = value")
            staged.unregister("tokens")
            found[field] = len(tokens)
    return found


def _tables(staged: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    for batch in staged.sql(query).to_arrow_reader(_BATCH_ROWS):
        yield pa.Table.from_batches([batch])


def _with_event_ids(table: pa.Table, world_id: str) -> pa.Table:
    ids = [world.event_id(world_id, str(id_), AUTH_REQUEST) for id_ in table.column("payment_id").to_pylist()]
    return table.set_column(table.schema.get_field_index("event_id"), "event_id", pa.array(ids, pa.string()))
