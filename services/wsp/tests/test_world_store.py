"""A sealed world is read in order, and every planted flaw is named."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_contracts.canonical import sha256_hex
from fp_runtime.errors import UserError
from fp_wsp.world import MANIFEST_NAME, Payment, TruthRow, whole_window
from fp_wsp.world_check import Flaw, verify
from fp_wsp.world_store import STREAM_SCHEMA, TRUTH_SCHEMA, World, manifest_bytes, read_world

Seal = Callable[..., tuple[World, Any]]


@pytest.fixture
def rows(
    make_payments: Callable[..., list[Payment]], make_truth: Callable[..., list[TruthRow]]
) -> tuple[list[Payment], list[TruthRow]]:
    payments = sorted(make_payments(100), key=lambda payment: payment[:2])
    return payments, make_truth(payments)


Rows = tuple[list[Payment], list[TruthRow]]


def test_the_schemas_are_the_row_types() -> None:
    assert tuple(STREAM_SCHEMA.names) == Payment._fields
    assert tuple(TRUTH_SCHEMA.names) == TruthRow._fields


def test_a_sound_world_reads_back_in_order(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    opened = read_world(store, world.fingerprint)
    assert opened.manifest == world.manifest
    assert list(opened.payments()) == rows[0]
    assert list(opened.truth()) == rows[1]
    frauds = [row for row in rows[1] if row.is_fraud]
    assert list(opened.truth(frauds_only=True)) == frauds
    assert 0 < len(frauds) < len(rows[1])
    assert verify(opened) == []
    start_us, end_us = whole_window(world.manifest)
    assert start_us < rows[0][0].ts_us
    assert end_us > rows[0][-1].ts_us


def with_stream_table(world: World, store: Any, change: Callable[[pa.Table], pa.Table]) -> World:
    """The same world, its first stream file rewritten and properly hashed: only the content is wrong."""
    first = world.manifest.stream[0]
    table = change(pq.read_table(pa.BufferReader(store.get(world.key(first.key)))))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    raw = sink.getvalue().to_pybytes()
    file = first.model_copy(update={"sha256": sha256_hex(raw), "size": len(raw), "rows": table.num_rows})
    manifest = world.manifest.model_copy(update={"stream": (file, *world.manifest.stream[1:])})
    for key, body in list(store.objects.items()):
        store.objects[key.replace(world.fingerprint, manifest.fingerprint)] = body
    store.objects[f"{manifest.fingerprint}/{first.key}"] = raw
    return World(manifest, manifest.fingerprint, store)


def flaws(world: World) -> set[Flaw]:
    return {problem.flaw for problem in verify(world)}


def test_a_missing_and_a_flipped_file_are_named(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    gone, flipped = world.manifest.stream[0].key, world.manifest.truth[1].key
    del store.objects[world.key(gone)]
    raw = bytearray(store.get(world.key(flipped)))
    raw[100] ^= 1
    store.objects[world.key(flipped)] = bytes(raw)
    assert [(p.flaw, p.where) for p in verify(world)] == [(Flaw.FILE_MISSING, gone), (Flaw.HASH_DIFFERS, flipped)]
    with pytest.raises(UserError, match="missing"):
        next(world.payments())
    with pytest.raises(UserError, match="not what the manifest names"):
        list(world.truth())


def test_a_truth_column_in_the_stream_view_is_named(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    leaky = with_stream_table(world, store, lambda t: t.append_column("is_fraud", pa.array([False] * t.num_rows)))
    assert flaws(leaky) == {Flaw.TRUTH_IN_STREAM}


def test_another_schema_is_named(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    assert flaws(with_stream_table(world, store, lambda t: t.drop_columns(["channel"]))) == {Flaw.SCHEMA_DIFFERS}


def test_unsorted_rows_are_named(rows: Rows, seal: Seal) -> None:
    payments, truth = rows
    payments[3], payments[4], truth[3], truth[4] = payments[4], payments[3], truth[4], truth[3]
    assert Flaw.UNSORTED in flaws(seal(payments, truth)[0])


def test_missing_rows_are_named(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    assert flaws(with_stream_table(world, store, lambda t: t.slice(1))) == {Flaw.COUNT_DIFFERS}


def test_repeated_ids_gaps_and_foreign_truth_are_named(rows: Rows, seal: Seal) -> None:
    payments, truth = rows
    payments[7] = payments[7]._replace(payment_id=payments[50].payment_id)
    payments[9] = payments[9]._replace(arrival_seq=99)
    truth[11] = truth[11]._replace(event_id="f" * 32)
    found = flaws(seal(payments, truth)[0])
    assert found >= {Flaw.DUPLICATE_ID, Flaw.ARRIVAL_SEQ_GAP, Flaw.TRUTH_MISMATCH}


def test_a_manifest_that_is_not_itself_is_refused(rows: Rows, seal: Seal) -> None:
    world, store = seal(*rows)
    key = f"{world.fingerprint}/{MANIFEST_NAME}"
    store.objects[key] = manifest_bytes(world.manifest.model_copy(update={"rows": 101}))
    with pytest.raises(UserError, match="hashes to"):
        read_world(store, world.fingerprint)
    for broken in (
        b"",
        b"{}",
        b"[1]",
        b'{"rows":1.5}',
        manifest_bytes(world.manifest).replace(b'"rows":100', b'"rows":101'),
    ):
        store.objects[key] = broken
        with pytest.raises(UserError, match="manifest"):
            read_world(store, world.fingerprint)
    with pytest.raises(UserError, match="no such world"):
        read_world(store, "0" * 64)
    with pytest.raises(UserError, match="64 hex"):
        read_world(store, "../etc")
