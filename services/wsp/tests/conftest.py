"""Payments, configs and sealed worlds made in memory for the wsp tests."""

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_contracts.canonical import sha256_hex
from fp_contracts.records import Pins
from fp_contracts.runconfig import Realism, RunConfig, Window
from fp_runtime.evidence import EvidenceMissing
from fp_wsp.world import (
    AUTH_REQUEST,
    FIRST_PART_LEAD_US,
    LAST_PART_LAG_US,
    MANIFEST_NAME,
    Payment,
    TruthRow,
    WorldFile,
    WorldManifest,
    event_id,
)
from fp_wsp.world_store import STREAM_SCHEMA, TRUTH_SCHEMA, World, manifest_bytes

START_US = 1_551_657_600_000_000
WORLD_ID = "d" * 32
ZERO = "0" * 64


class DictStore:
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise EvidenceMissing(key)
        return self.objects[key]

    def exists(self, key: str) -> bool:
        return key in self.objects


def _payments(count: int, gap_us: int = 1_000_000, merchants: int = 9, seed: int = 1) -> list[Payment]:
    dice = random.Random(seed)
    arrivals: dict[str, int] = {}
    found = []
    ts_us = START_US
    for number in range(count):
        ts_us += dice.randrange(0, 2 * gap_us + 1)
        merchant = f"merchant-{dice.randrange(merchants)}"
        arrivals[merchant] = arrivals.get(merchant, 0) + 1
        account = f"acct-{dice.randrange(7)}"
        found.append(
            Payment(ts_us, f"pay-{number:06d}", merchant, arrivals[merchant], account, f"card-{account}", None, None,
                    dice.randrange(100_000), "USD", "ECOM" if number % 2 else "CARD_PRESENT", "5411", "US", "grocery",
                    "APPROVED")
        )  # fmt: skip
    return found


def _truth(payments: list[Payment], every: int = 5) -> list[TruthRow]:
    return [
        TruthRow(p.ts_us, p.payment_id, event_id(WORLD_ID, p.payment_id, AUTH_REQUEST), p.merchant_id, p.account_id,
                 number % every == 0, None)
        for number, p in enumerate(payments)
    ]  # fmt: skip


def _config(payments: list[Payment], **changes: Any) -> RunConfig:
    window = Window(start_us=START_US - FIRST_PART_LEAD_US, end_us=payments[-1].ts_us + LAST_PART_LAG_US + 1)
    values: dict[str, Any] = {
        "profile": "local", "scope": "spine", "manifest_fingerprint": ZERO, "windows": (window,),
        "feature_schema_digest": ZERO, "policies": {}, "policy_initial": "p1", "authority_digest": ZERO,
        "handles_digest": ZERO, "image_manifest_digest": ZERO, "price_table_digest": ZERO, "envelopes": (),
    }  # fmt: skip
    return RunConfig(**(values | changes))


def _seal(payments: list[Payment], truth: list[TruthRow], rows_per_file: int = 40) -> tuple[World, DictStore]:
    store = DictStore()
    files: dict[str, list[WorldFile]] = {"stream": [], "truth": []}
    raws: dict[str, bytes] = {}
    for view, schema, rows in (("stream", STREAM_SCHEMA, payments), ("truth", TRUTH_SCHEMA, truth)):
        for at in range(0, len(rows), rows_per_file):
            part = rows[at : at + rows_per_file]
            table = pa.Table.from_pylist([row._asdict() for row in part], schema=schema)
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            raw = sink.getvalue().to_pybytes()
            key = f"{view}/{at:05d}.parquet"
            raws[key] = raw
            files[view].append(WorldFile(key=key, sha256=sha256_hex(raw), size=len(raw), rows=len(part)))
    manifest = WorldManifest(
        name="test", description="made in memory", licence="none", world_id=WORLD_ID, source_sha256=ZERO,
        mapping_digest=ZERO, rows=len(payments), frauds=1, merchants=1, accounts=1, first_us=payments[0].ts_us,
        last_us=payments[-1].ts_us, currencies=("USD",), label_policy="test", tokenised={}, dropped_duplicates=0,
        stream=tuple(files["stream"]), truth=tuple(files["truth"]),
    )  # fmt: skip
    fingerprint = manifest.fingerprint
    store.objects = {f"{fingerprint}/{key}": raw for key, raw in raws.items()}
    store.objects[f"{fingerprint}/{MANIFEST_NAME}"] = manifest_bytes(manifest)
    return World(manifest, fingerprint, store), store


@pytest.fixture(scope="session")
def make_payments() -> Callable[..., list[Payment]]:
    """(count, gap_us, merchants, seed) -> payments in event-time order."""
    return _payments


@pytest.fixture(scope="session")
def make_truth() -> Callable[..., list[TruthRow]]:
    """(payments, every) -> truth rows, each `every`-th one a fraud."""
    return _truth


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """(payments, **changes) -> a config with one window around all payments."""
    return _config


@pytest.fixture(scope="session")
def seal() -> Callable[..., tuple[World, DictStore]]:
    """(payments, truth, rows_per_file) -> a sealed world in memory and its store."""
    return _seal


@pytest.fixture(scope="session")
def busy() -> Realism:
    """Realism so dense that small worlds meet every fate."""
    return Realism(seed=3, duplicate_ppm=80_000, mutant_ppm=40_000, poison_ppm=120_000, late_context_ppm=150_000)


@pytest.fixture(scope="session")
def pins() -> Pins:
    """Pins of a run."""
    return Pins("platform_20260101T000000Z", "a" * 32, "b" * 64, "c" * 64)


@pytest.fixture(scope="session")
def world_id() -> str:
    """The world that all test events belong to."""
    return WORLD_ID
