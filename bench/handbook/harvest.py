"""What a run left, read back: the vectors of its archive's snapshots and decisions, the labels of its label store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection

from bench.handbook import streamed
from bench.handbook.source import Source
from bench.handbook.streamed import NEVER_US, Streamed
from bench.handbook.telling import Counting
from fp_contracts import topics
from fp_contracts.derive import vector_bytes
from fp_contracts.fold import RunState
from fp_contracts.header import Kind, unpack
from fp_contracts.ids import run_tag
from fp_contracts.reasons import JoinStatus
from fp_features import CORE_V1
from fp_features.packed import unpack as floats_of
from fp_ofs.archive import ArchiveReader
from fp_ofs.records import ServedDecision, ServedSnapshot, decode
from fp_ofs_trigger import domain
from fp_ofs_trigger.store import archived_objects
from fp_runtime.evidence import EvidenceStore
from fp_wsp.world import AUTH_REQUEST, WorldManifest, event_id

WIDTH = len(CORE_V1.names)


class Found(NamedTuple):
    """Counts over the archive: every payment has one snapshot and one decision, or `SystemExit`."""

    snapshots: int
    decisions: int
    degraded: int
    labels: int
    lag_days: float


def read(
    state: RunState, world: WorldManifest, source: Source, conn: "Connection[Any]", archive: EvidenceStore, out: Path
) -> Found:  # fmt: skip
    """Write the vectors and the labels of a run to `out` (as `streamed.load` reads it), payment by payment."""
    payments = source.payments.tolist()
    places = {event_id(world.world_id, f"pay-{payment}", AUTH_REQUEST): at for at, payment in enumerate(payments)}
    vectors, snapshots, degraded = _vectors(state, places, conn, archive)
    known_us = _known(conn, state.platform_run_id, places)
    spoken = known_us != NEVER_US
    lag_us = (known_us - source.times_us)[spoken]
    streamed.save(
        out, source.payments, Streamed(vectors, source.accounts, source.times_us, source.frauds, known_us)
    )  # fmt: skip
    if not np.all(source.frauds[spoken] == 1):
        raise SystemExit("the label store calls a payment a fraud that is none")
    lag = float(lag_us.max() / 86_400e6) if len(lag_us) else 0.0
    return Found(snapshots, len(payments), degraded, int(spoken.sum()), lag)


def _vectors(
    state: RunState, places: dict[str, int], conn: "Connection[Any]", archive: EvidenceStore
) -> tuple[np.ndarray, int, int]:
    """(whole vectors by place, snapshots, degraded ones); the snapshot's part begins the decision's."""
    vectors = np.full((len(places), WIDTH), np.nan)
    seen = np.zeros(len(places), np.int8)
    degraded, decided = 0, np.zeros(len(places), np.int8)
    parts: dict[int, bytes] = {}
    counting = Counting("archive", 2 * len(places))
    for done, value in enumerate(_served(state, conn, archive)):
        counting.at(done)
        at = places[value.event_id]
        if isinstance(value, ServedSnapshot):
            seen[at] += 1
            degraded += value.payload["join_status"] != JoinStatus.READY.value
            part = vector_bytes(value.payload["feature_vector"])
        else:
            decided[at] += 1
            vectors[at] = floats_of(value.vector)
            part = value.vector[: 8 * len(CORE_V1.snapshot_names)]
        if parts.setdefault(at, part) != part:
            raise SystemExit(f"{value.event_id}: the decision rests on another snapshot")
        if seen[at] and decided[at]:
            del parts[at]
    if not (np.all(seen == 1) and np.all(decided == 1)):
        raise SystemExit(f"of {len(places)} payments {int((seen != 1).sum())} lack their one snapshot, "
                         f"{int((decided != 1).sum())} their one decision")  # fmt: skip
    return vectors, int(seen.sum()), degraded


def _served(
    state: RunState, conn: "Connection[Any]", archive: EvidenceStore
) -> Iterator[ServedSnapshot | ServedDecision]:
    """Every snapshot and decision of the run, from archive objects that have the hash and size as recorded."""
    assert state.header is not None
    run, tag = state.platform_run_id, run_tag(state.platform_run_id)
    objects = archived_objects(conn, run)
    reader = ArchiveReader(archive, run, domain.basis_of(objects, state.header), tuple(found.ref for found in objects))
    for part in range(state.header.partitions(topics.RTDL)):
        for row in reader.rows(topics.RTDL, part):
            header = unpack(row.header)
            if header.run_tag == tag and header.kind in (Kind.FEATURE_SNAPSHOT, Kind.DECISION):
                value = decode(header.kind, row.value)
                assert isinstance(value, ServedSnapshot | ServedDecision)
                yield value


def _known(conn: "Connection[Any]", run: str, places: dict[str, int]) -> np.ndarray:
    """When each payment was known as a fraud (µs), by the label store: as its label took effect; else NEVER_US."""
    known_us = np.full(len(places), NEVER_US, np.int64)
    rows = conn.execute(
        "SELECT event_id, order_us FROM cm.assertion WHERE run = %s AND label_type = 'fraud_disposition'"
        " AND label_value = 'FRAUD_CONFIRMED'",
        (run,),
    )
    for event, order_us in rows:
        known_us[places[event]] = order_us
    return known_us
