"""P8 RTDL_CAUGHT_UP: every payment has its snapshot, every fact its archive (gates.md). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts import topics
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_rtdl.checkpoint import Position

LAG, ARCHIVE = PHASES["P8"].blockers


@dataclass(frozen=True, slots=True)
class Place:
    """One topic-partition as one ingress partition `lane` reads it. Offsets exclusive-next."""

    lane: int
    topic: str
    partition: int
    start: int
    end: int
    span_breaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the topics themselves say, in distinct (source, seq), of records with order_ts inside the window."""

    requests: int
    snapshots: int
    unanswered: int
    unasked: int
    conflicts: int
    broken_hashes: int
    labels: int
    statuses: Mapping[str, int]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """Objects of ingress and snapshots against the topics: holes, and objects that say something else."""

    objects: int
    records: int
    holes: tuple[str, ...]
    mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class P8Facts:
    """Everything P8 rests on. `stream` is None while rtdl has not caught up or the archive has holes."""

    window_end_us: int
    positions: Mapping[int, Position]
    places: tuple[Place, ...]
    archive: ArchiveFacts
    stream: StreamFacts | None = None
    anomalies: Mapping[str, int] | None = None
    online: Mapping[str, int] | None = None


def caught_up(facts: P8Facts) -> bool:
    """Whether everything up to the window's end is merged and saved, so that counting the topics makes sense."""
    return all(p.ok for p in _progress(facts))


def evaluate_p8(facts: P8Facts) -> Evaluation:
    """Lag and spans first; the equations over the topics only once those hold, since they are then final."""
    predicates = _progress(facts) + _archive(facts.archive)
    if facts.stream is not None:
        predicates += _stream(facts, facts.stream)
    return Evaluation(predicates, {"core_snapshot": _core_document(facts), "archive_closure": _closure(facts.archive)})


def _progress(facts: P8Facts) -> tuple[Predicate, ...]:
    positions = facts.positions.values()
    lag = sum(_lag_of(facts, place) for place in facts.places)
    bound_us = min((position.bound_us for position in positions), default=0)
    waiting = sum(len(position.waiting) for position in positions)
    gaps = sum(position.open_gaps for position in positions)
    breaks = [f"{p.topic}[{p.partition}]: {at}" for p in facts.places for at in p.span_breaks]
    return (
        _equal("partitions with a checkpoint", len(facts.positions), len({place.lane for place in facts.places}), LAG),
        _equal("records behind the ends of the topics", lag, 0, LAG),
        Predicate(
            "merged up to", str(bound_us), f"at least {facts.window_end_us}", bound_us >= facts.window_end_us, LAG
        ),
        _equal("requests waiting for a part", waiting, 0, LAG),
        _equal("open gaps", gaps, 0, LAG),
        Predicate("spans tile", "; ".join(breaks[:5]) or "no break", "no break", not breaks, LAG),
    )


def _lag_of(facts: P8Facts, place: Place) -> int:
    """Ingress: not yet released and saved. Labels: not yet read, since some take effect after the window."""
    position = facts.positions.get(place.lane)
    if position is None:
        return place.end - place.start
    offsets = position.read if place.topic == topics.LABELS else position.resume
    return max(0, place.end - offsets[place.topic])


def _stream(facts: P8Facts, stream: StreamFacts) -> tuple[Predicate, ...]:
    positions = facts.positions.values()
    merged = sum(position.counts.get("labels", 0) for position in positions)
    pending = sum(position.pending_labels for position in positions)
    answered = stream.requests == stream.snapshots and not stream.unanswered and not stream.unasked
    return (
        Predicate("auth requests", str(stream.requests), "at least 1", stream.requests > 0, LAG, final=True),
        Predicate(
            "auth requests = snapshots",
            f"{stream.requests} = {stream.snapshots}, {stream.unanswered} unanswered, {stream.unasked} unasked",
            "equal, 0, 0", answered, LAG, final=True,
        ),
        Predicate("repeated snapshots with other bytes", str(stream.conflicts), "0", not stream.conflicts, LAG,
                  final=True),
        Predicate("snapshots whose hash does not recompute", str(stream.broken_hashes), "0", not stream.broken_hashes,
                  LAG, final=True),
        Predicate(
            "labels published = merged + pending beyond the window", f"{stream.labels} = {merged} + {pending}", "equal",
            stream.labels == merged + pending, LAG,
        ),
    )  # fmt: skip


def _archive(archive: ArchiveFacts) -> tuple[Predicate, ...]:
    return (
        Predicate("archive objects tile", "; ".join(archive.holes[:5]) or "no hole", "no hole", not archive.holes,
                  ARCHIVE),
        Predicate(
            "archive objects match the topics", "; ".join(archive.mismatches[:5]) or "no mismatch", "no mismatch",
            not archive.mismatches, ARCHIVE, final=True,
        ),
    )  # fmt: skip


def _equal(name: str, observed: int, required: int, code: str) -> Predicate:
    return Predicate(name, str(observed), str(required), observed == required, code)


def _core_document(facts: P8Facts) -> dict[str, Any]:
    stream = facts.stream
    return {
        "window_end_us": facts.window_end_us,
        "partitions": {
            str(part): {
                "merged_n": position.n,
                "bound_us": position.bound_us,
                "frontier_us": position.frontier_us,
                "counts": dict(position.counts),
                "pending_labels": position.pending_labels,
                "open_gaps": position.open_gaps,
                "snapshot_seqs": list(position.seqs),
            }
            for part, position in sorted(facts.positions.items())
        },
        "places": [
            {"lane": p.lane, "topic": p.topic, "partition": p.partition, "start": p.start, "end": p.end}
            for p in facts.places
        ],
        "anomalies": dict(facts.anomalies or {}),
        "online_copy": None if facts.online is None else dict(facts.online),
        "stream": None if stream is None else {
            "auth_requests": stream.requests,
            "snapshots": stream.snapshots,
            "labels": stream.labels,
            "join_statuses": dict(stream.statuses),
            "snapshot_fingerprint": stream.fingerprint,
        },
    }  # fmt: skip


def _closure(archive: ArchiveFacts) -> dict[str, Any]:
    return {
        "objects": archive.objects,
        "records": archive.records,
        "holes": list(archive.holes),
        "mismatches": list(archive.mismatches),
    }
