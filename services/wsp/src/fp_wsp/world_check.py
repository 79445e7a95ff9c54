"""Proves a sealed world: hashes, counts, order, and that no truth is in the stream view (gate P3, blockers B3/B3.1)."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import zip_longest
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fp_contracts.canonical import sha256_hex
from fp_contracts.ingress import TRUTH_FIELDS
from fp_runtime.errors import UserError
from fp_wsp.world import AUTH_REQUEST, Payment, TruthRow, WorldFile, event_id
from fp_wsp.world_store import STREAM_SCHEMA, TRUTH_SCHEMA, World, read_file


class Flaw(StrEnum):
    """What may be wrong with a world."""

    FILE_MISSING = "FILE_MISSING"
    HASH_DIFFERS = "HASH_DIFFERS"
    UNREADABLE = "UNREADABLE"
    TRUTH_IN_STREAM = "TRUTH_IN_STREAM"
    SCHEMA_DIFFERS = "SCHEMA_DIFFERS"
    COUNT_DIFFERS = "COUNT_DIFFERS"
    UNSORTED = "UNSORTED"
    DUPLICATE_ID = "DUPLICATE_ID"
    ARRIVAL_SEQ_GAP = "ARRIVAL_SEQ_GAP"
    TRUTH_MISMATCH = "TRUTH_MISMATCH"


class Problem(NamedTuple):
    """One flaw, where it is and what was seen."""

    flaw: Flaw
    where: str
    detail: str


def verify(world: World) -> list[Problem]:
    """Every problem of the files; if there is none, the first problem of each kind of the rows. Empty = sound."""
    problems: list[Problem] = []
    ids: list[pa.ChunkedArray[Any]] = []
    for file in world.manifest.stream:
        problems += _file_problems(world, file, STREAM_SCHEMA, ids)
    for file in world.manifest.truth:
        problems += _file_problems(world, file, TRUTH_SCHEMA, [])
    for view, files in (("stream", world.manifest.stream), ("truth", world.manifest.truth)):
        if sum(file.rows for file in files) != world.manifest.rows:
            problems.append(Problem(Flaw.COUNT_DIFFERS, view, f"files hold other than {world.manifest.rows} rows"))
    if problems:
        return problems
    distinct = len(pc.unique(pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string())))
    if distinct != world.manifest.rows:
        problems.append(Problem(Flaw.DUPLICATE_ID, "stream", f"{distinct} payment ids in {world.manifest.rows} rows"))
    seen: dict[Flaw, Problem] = {}
    for problem in _row_problems(world):
        seen.setdefault(problem.flaw, problem)
    return problems + list(seen.values())


def _file_problems(
    world: World, file: WorldFile, schema: pa.Schema, ids: "list[pa.ChunkedArray[Any]]"
) -> list[Problem]:
    """Problems of one file; appends its payment ids to `ids`."""
    try:
        raw = read_file(world, file)
    except UserError as error:
        return [Problem(Flaw.FILE_MISSING, file.key, error.why)]
    if len(raw) != file.size or sha256_hex(raw) != file.sha256:
        return [Problem(Flaw.HASH_DIFFERS, file.key, f"sha256 {sha256_hex(raw)}, manifest {file.sha256}")]
    try:
        table = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        return [Problem(Flaw.UNREADABLE, file.key, type(error).__name__)]
    extra = [name for name in table.column_names if name not in schema.names]
    if schema is STREAM_SCHEMA and any(name.lower() in TRUTH_FIELDS for name in extra):
        return [Problem(Flaw.TRUTH_IN_STREAM, file.key, f"columns {extra}")]
    if not table.schema.equals(schema):
        return [Problem(Flaw.SCHEMA_DIFFERS, file.key, f"columns {table.column_names}")]
    if table.num_rows != file.rows:
        return [Problem(Flaw.COUNT_DIFFERS, file.key, f"{table.num_rows} rows, manifest {file.rows}")]
    ids.append(table.column("payment_id"))
    return []


def _row_problems(world: World) -> Iterator[Problem]:
    """Order, dense arrival sequences, and truth row n speaking of payment n under the right event id."""
    last = (-(2**63), "")
    arrivals: dict[str, int] = {}
    for payment, truth in zip_longest(world.payments(), world.truth()):
        here = (payment.ts_us, payment.payment_id)
        if here <= last:
            yield Problem(Flaw.UNSORTED, payment.payment_id, f"ts_us {here[0]} after {last[0]}")
        last = here
        arrivals[payment.merchant_id] = arrivals.get(payment.merchant_id, 0) + 1
        if payment.arrival_seq != arrivals[payment.merchant_id]:
            yield Problem(
                Flaw.ARRIVAL_SEQ_GAP, payment.payment_id,
                f"{payment.merchant_id} has {payment.arrival_seq}, expected {arrivals[payment.merchant_id]}",
            )  # fmt: skip
        if not _speaks_of(truth, payment, world.manifest.world_id):
            yield Problem(Flaw.TRUTH_MISMATCH, payment.payment_id, "its truth row is another payment's")


def _speaks_of(truth: TruthRow, payment: Payment, of_world: str) -> bool:
    return truth[:2] == payment[:2] and (truth.merchant_id, truth.account_id, truth.event_id) == (
        payment.merchant_id,
        payment.account_id,
        event_id(of_world, payment.payment_id, AUTH_REQUEST),
    )
