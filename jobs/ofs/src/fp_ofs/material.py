"""All that a build reads and recomputes: payments with their whole vectors, labels, and the served side."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from fp_contracts import topics
from fp_contracts.dataset import BuildIntent
from fp_contracts.header import HeaderError, Kind, kind_of, unpack
from fp_contracts.ids import run_tag
from fp_features import FeatureSet
from fp_ofs.archive import ArchiveReader
from fp_ofs.engine import Engine, vectors
from fp_ofs.errors import BASIS, Blocked
from fp_ofs.features import FEATURE_SETS, step_table
from fp_ofs.join import LaneJoin
from fp_ofs.labels import label_horizon_us
from fp_ofs.lanes import read_lane, shape_of
from fp_ofs.parity import Served
from fp_ofs.payments import fact_table
from fp_ofs.records import Broken, Label, ServedDecision, ServedSnapshot, decode

_SERVED = (Kind.FEATURE_SNAPSHOT, Kind.DECISION)
Say = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Material:
    """`steps` in the order of the stream; `payments` = FACTS + `vector` + `known_us`, by (lane, n). Times in µs."""

    steps: pa.Table
    payments: pa.Table
    labels: tuple[Label, ...]
    horizon_us: int
    stream: dict[str, int]


def feature_set_of(intent: BuildIntent) -> FeatureSet:
    """The feature set an intent names; Blocked B12.1 when this build computes another."""
    features = FEATURE_SETS.get(intent.feature_set)
    if features is None or features.schema_digest != intent.feature_schema_digest:
        raise Blocked(BASIS, f"feature set {intent.feature_set} by this digest is not what this build computes")
    return features


def gather(reader: ArchiveReader, intent: BuildIntent, engine: Engine, say: Say) -> Material:
    """Merge, join and feature every lane again. Blocked B12.1 when the basis is no whole one."""
    features = feature_set_of(intent)
    shape = shape_of(intent.basis)
    tag = run_tag(intent.platform_run_id)
    steps, facts, horizons, labels = [], [], [], list[Label]()
    stream = dict.fromkeys(("records", "broken", "foreign", "duplicates", "beyond"), 0)
    say("read", 0, shape.lanes)
    for part in range(shape.lanes):
        lane = read_lane(reader.rows, part, tag, intent.join.window_ends_us[-1], shape)
        for name in stream:
            stream[name] += getattr(lane, name)
        labels += lane.labels
        horizons.append(label_horizon_us(lane.label_frontier_us, intent.labels))
        found = list(LaneJoin(lane, intent.join).steps())
        steps.append(step_table(part, found))
        facts.append(fact_table(part, found))
        say("read", part + 1, shape.lanes)
    table = pa.concat_tables(steps)
    whole = vectors(engine, table, features, lambda done, total: say("features", done, total))
    payments = pa.concat_tables(facts)
    for name in ("vector", "known_us"):
        payments = payments.append_column(name, whole.column(name))
    return Material(table, payments, tuple(labels), min(horizons), stream)


def read_served(reader: ArchiveReader, intent: BuildIntent, say: Say) -> Served:
    """Snapshots and decisions of the run as the bus holds them, up to the end of the last window."""
    served, tag, end_us = Served(), run_tag(intent.platform_run_id), intent.join.window_ends_us[-1]
    parts = shape_of(intent.basis).rtdl_parts
    for part in range(parts):
        for row in reader.rows(topics.RTDL, part):
            if len(row.header) < 2 or kind_of(row.header) not in _SERVED:
                continue
            try:
                header = unpack(row.header)
                ours = header.run_tag == tag and header.order_us < end_us
                value = decode(header.kind, row.value) if ours else None
            except (Broken, HeaderError):
                continue  # nobody could read it, so it was never served: its payment is missing one
            if isinstance(value, ServedSnapshot | ServedDecision):
                served.take(value)
        say("served", part + 1, parts)
    return served
