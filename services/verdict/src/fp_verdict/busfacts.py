"""Reads topics and archive objects back for the equations: what lies where, and whether both say the same."""

from collections.abc import Callable, Mapping, Sequence

from fp_contracts import topics
from fp_contracts.control import EvidenceRef
from fp_contracts.header import Header
from fp_runtime import evidence
from fp_runtime.bus import Consumer, Record
from fp_runtime.evidence import EvidenceStore
from fp_runtime.postgres import Connection
from fp_runtime.readback import read_back
from fp_verdict.buscount import ArchiveObject, BusCount, Place, holes
from fp_verdict.reconcile import ArchiveState


def _nothing(header: Header, record: Record) -> None:
    """See nothing."""


def load_objects(conn: Connection, run: str) -> list[ArchiveObject]:
    """Every recorded archive object of a run, by topic, partition and offset."""
    rows = conn.execute(
        "SELECT topic, part, first_offset, next_offset, key, sha256, size, records, content_digest"
        " FROM rtdl.archive_object WHERE run = %s ORDER BY topic, part, first_offset",
        (run,),
    )
    return [ArchiveObject(*row) for row in rows.fetchall()]


def archive_state(
    objects: Sequence[ArchiveObject], starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> tuple[dict[str, ArchiveState], dict[Place, tuple[int, int]]]:
    """(archive per topic, [start, end) of each topic-partition: to what the archive reached, beyond the end)."""
    reached = {place: max([end, *_reaches(objects, place)]) for place, end in ends.items()}
    found = {}
    for topic in topics.DATA:
        own = {place: at for place, at in starts.items() if place[0] == topic}
        of_topic = [item for item in objects if item.topic == topic]
        found[topic] = ArchiveState(
            on_bus=sum(reached[place] - at for place, at in own.items()),
            archived=sum(item.records for item in of_topic),
            holes=tuple(holes(of_topic, own, ends)),
        )
    return found, {place: (at, reached[place]) for place, at in starts.items()}


def count(
    reader: Consumer, archive: EvidenceStore, counted: BusCount, extents: Mapping[Place, tuple[int, int]],
    see: Callable[[Header, Record], None] = _nothing,
) -> list[str]:  # fmt: skip
    """Feed the topics that `counted` hashes; objects that are broken or say something else than the topics.

    `see` is given each record that is counted for the first time.
    """
    hashed = {place: extent for place, extent in extents.items() if place[0] in counted.hashed}
    starts, ends = ({place: extent[side] for place, extent in hashed.items()} for side in (0, 1))
    for r in read_back(reader, starts, ends):
        header = counted.take(r.topic, r.partition, r.offset, r.key, r.header, r.value, r.traceparent)
        if header is not None:
            see(header, r)
    broken = [fault for item in counted.objects if (fault := _fault(archive, item)) is not None]
    return counted.mismatches() + broken


def _fault(archive: EvidenceStore, item: ArchiveObject) -> str | None:
    try:
        evidence.read(archive, EvidenceRef(key=item.key, sha256=item.sha256, size=item.size))
    except (evidence.EvidenceMissing, evidence.EvidenceBroken) as error:
        return f"{item.key}: {type(error).__name__}"
    return None


def _reaches(objects: Sequence[ArchiveObject], place: Place) -> list[int]:
    return [item.next_offset for item in objects if (item.topic, item.partition) == place]
