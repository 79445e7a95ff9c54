"""What a checkpoint of one partition holds, and how it is written as bytes. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fp_rtdl.context import Kept
from fp_rtdl.decode import Anchor, Arrival, Auth, Entities
from fp_rtdl.domain import Rebind, Waiting
from fp_runtime.eventtime.merge import Cursor, InputKey
from fp_runtime.quarantine import Quarantined
from fp_runtime.spans import Span


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition stands: progress and all small state. Offsets are exclusive-next, times µs.

    resume: per topic the lowest offset not yet released; read: the next one to read; pending_labels: read, in effect
    later; seqs: last snapshot sequence per target partition.
    """

    n: int
    clock_us: int
    bound_us: int
    frontier_us: int
    cursors: Mapping[InputKey, Cursor]
    resume: Mapping[str, int]
    read: Mapping[str, int]
    seqs: tuple[int, ...]
    waiting: tuple[Waiting, ...]
    pending_labels: int
    open_gaps: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of one partition: its position, and what changed since the last one (from `expected_n`)."""

    part: int
    expected_n: int
    position: Position
    merchants: Mapping[str, bytes]
    context: tuple[Kept, ...]
    spans: tuple[Span, ...]
    quarantined: tuple[Quarantined, ...]
    rebinds: tuple[Rebind, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restart gets back."""

    position: Position
    merchants: Mapping[str, bytes]
    context: tuple[Kept, ...]


def position_bytes(position: Position) -> bytes:
    """The document of ops.progress."""
    doc: dict[str, Any] = {
        "n": position.n,
        "clock_us": position.clock_us,
        "bound_us": position.bound_us,
        "frontier_us": position.frontier_us,
        "cursors": [[*key, *cursor] for key, cursor in position.cursors.items()],
        "resume": position.resume,
        "read": position.read,
        "seqs": position.seqs,
        "waiting": [[list(entry.auth), entry.at_us, entry.reason] for entry in position.waiting],
        "pending_labels": position.pending_labels,
        "open_gaps": position.open_gaps,
        "counts": position.counts,
    }
    return orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)


def read_position(raw: bytes) -> Position:
    """What `position_bytes` wrote."""
    doc = orjson.loads(raw)
    return Position(
        n=doc["n"],
        clock_us=doc["clock_us"],
        bound_us=doc["bound_us"],
        frontier_us=doc["frontier_us"],
        cursors={InputKey(topic, source): Cursor(seq, at) for topic, source, seq, at in doc["cursors"]},
        resume=doc["resume"],
        read=doc["read"],
        seqs=tuple(doc["seqs"]),
        waiting=tuple(Waiting(Auth(*auth), at_us, reason) for auth, at_us, reason in doc["waiting"]),
        pending_labels=doc["pending_labels"],
        open_gaps=doc["open_gaps"],
        counts=Counter(doc["counts"]),
    )


def context_bytes(entries: Iterable[Kept]) -> bytes:
    """Entries of the context as bytes, in their order."""
    return orjson.dumps(
        [
            [kept.expires_us, kept.table, kept.value if isinstance(kept.value, str) else tuple(kept.value)]
            for kept in entries
        ]
    )


def read_context(raw: bytes) -> list[Kept]:
    """What `context_bytes` wrote."""
    return [Kept(expires_us, table, _value(table, value)) for expires_us, table, value in orjson.loads(raw)]


def _value(table: str, value: Any) -> Arrival | Entities | Anchor | str:
    match table:
        case "arrival":
            key, *rest = value
            return Arrival((key[0], key[1]), *rest)
        case "entities":
            key, *rest = value
            return Entities((key[0], key[1]), *rest)
        case "anchor":
            flow_id, key, *rest = value
            return Anchor(flow_id, (key[0], key[1]), *rest)
        case _:
            return str(value)
