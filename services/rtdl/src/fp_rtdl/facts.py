"""Gathers the facts of P8 from tables, topics and objects: never from a member's memory (law 12)."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

from fp_contracts import topics
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.runconfig import RunHeader
from fp_rtdl.adapters import label_stage
from fp_rtdl.archive import Archived
from fp_rtdl.archive_store import load_objects
from fp_rtdl.audit import AUDITED, ArchiveAudit, StreamAudit, covering
from fp_rtdl.checkpoint import Position, read_position
from fp_rtdl.gates import ArchiveFacts, P8Facts, Place, caught_up, evaluate_p8
from fp_rtdl.parquet import content_digest, from_parquet
from fp_rtdl.plan import STAGE, RunPlan, plan_of
from fp_rtdl.settings import RtdlSettings
from fp_runtime import progress, quarantine, spans
from fp_runtime.bus import Consumer, FetchProfile, TopicPartition
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore, open_store, read
from fp_runtime.kafka import open_consumer
from fp_runtime.online import OnlineReader
from fp_runtime.postgres import Connection
from fp_runtime.readback import read_back


def evaluator(settings: RtdlSettings, conn: Connection) -> Callable[[RunState], Evaluation | None]:
    """The evaluation of P8 for a participant; runs in a thread of its own, on its own connection and consumer."""
    snapshot_ends: dict[str, Mapping[TopicPartition, int]] = {}

    def evaluate(state: RunState) -> Evaluation | None:
        assert state.header is not None
        store = open_store(settings.archive_url, settings.s3_endpoint)
        with closing(open_consumer(settings, "fp.rtdl.gate", fetch=FetchProfile.READBACK)) as consumer:
            facts = gather(state.header, conn, consumer, store, snapshot_ends)
        if facts.stream is not None and settings.redis_url:
            facts = replace(facts, online=_online(settings.redis_url, conn, state.platform_run_id))
        return evaluate_p8(facts)

    return evaluate


def gather(
    header: RunHeader, conn: Connection, consumer: Consumer, store: EvidenceStore,
    snapshot_ends: dict[str, Mapping[TopicPartition, int]],
) -> P8Facts:  # fmt: skip
    """All facts; the topics are read only once rtdl has caught up and the archive has no hole.

    `snapshot_ends` keeps, per run, where the rtdl topic ended when rtdl was first seen caught up: all snapshots of the
    window lie before, and what df adds later is not P8's.
    """
    plan = plan_of(header)
    places = _places(plan, conn, consumer)
    positions = {part: read_position(at.doc) for part, at in progress.load_all(conn, plan.run, STAGE).items()}
    window_end_us = plan.rules.window_ends[0]
    facts = P8Facts(window_end_us, positions, places, ArchiveFacts(0, 0, ("not looked at yet",)))
    if not caught_up(facts):
        return facts
    if plan.run not in snapshot_ends:
        rtdl = [(topics.RTDL, part) for part in header.starts(topics.RTDL)]
        snapshot_ends[plan.run] = consumer.ends(rtdl)
    needed = {(p.topic, p.partition): (p.start, p.end) for p in places if p.topic != topics.LABELS}
    for place, end in snapshot_ends[plan.run].items():
        needed[place] = (header.starts(place[0])[place[1]], end)
    objects, holes = covering(load_objects(conn, plan.run), needed)
    facts = replace(
        facts, archive=_archive_facts(objects, holes), anomalies=_anomalies(conn, plan.run)
    )  # fmt: skip
    if holes:
        return facts
    return _with_streams(facts, plan, consumer, store, objects)


def _with_streams(
    facts: P8Facts, plan: RunPlan, consumer: Consumer, store: EvidenceStore, objects: list[Archived]
) -> P8Facts:
    stream, archive = StreamAudit(plan.tag, facts.window_end_us), ArchiveAudit(objects)
    extents: dict[TopicPartition, tuple[int, int]] = {}
    for found in objects:
        first, _ = extents.get(found.range.place, (found.range.first, 0))
        extents[found.range.place] = (first, found.range.next_offset)
    for place in facts.places:
        if place.topic == topics.LABELS:
            extents[place.topic, place.partition] = (place.start, place.end)
    starts, ends = ({place: extent[at] for place, extent in extents.items()} for at in (0, 1))
    for record in read_back(consumer, starts, ends):
        stream.take(record)
        if record.topic in AUDITED:
            archive.take(record)
    mismatches = archive.mismatches() + [fault for found in objects if (fault := _fault(store, found))]
    return replace(facts, stream=stream.facts(), archive=_archive_facts(objects, [], mismatches))


def _places(plan: RunPlan, conn: Connection, consumer: Consumer) -> tuple[Place, ...]:
    wanted = {(topic, place) for lane in range(plan.lanes) for topic, place in plan.places(lane).items()}
    ends = consumer.ends(sorted(wanted))
    positions = progress.load_all(conn, plan.run, STAGE)
    ingress = spans.load(conn, plan.run, STAGE)
    found = []
    for lane in range(plan.lanes):
        labels = spans.load(conn, plan.run, label_stage(lane))
        saved = read_position(positions[lane].doc) if lane in positions else None
        for topic, partition in plan.places(lane).items():
            start, end = plan.starts[topic][partition], ends[topic, partition]
            own = [s for s in (labels if topic == topics.LABELS else ingress)
                   if (s.topic, s.partition) == (topic, partition)]  # fmt: skip
            upto = _upto(saved, topic, start, end)
            found.append(Place(lane, topic, partition, start, end, tuple(spans.breaks(own, start, upto))))
    return tuple(found)


def _upto(saved: Position | None, topic: str, start: int, end: int) -> int:
    """Where the spans must reach: ingress to the end; labels to what is released, the rest is in effect later."""
    if topic != topics.LABELS:
        return end
    return start if saved is None else saved.resume[topic]


def _fault(store: EvidenceStore, found: Archived) -> str | None:
    try:
        table = from_parquet(read(store, found.ref))
    except EvidenceMissing:
        return f"{found.ref.key}: missing"
    except (EvidenceBroken, ValueError, OSError) as error:
        return f"{found.ref.key}: {error}"
    says_it = table.num_rows == found.records and content_digest(table) == found.content_digest
    return None if says_it else f"{found.ref.key}: content digest does not recompute"


def _archive_facts(objects: list[Archived], holes: list[str], mismatches: list[str] | None = None) -> ArchiveFacts:
    records = sum(found.records for found in objects)
    return ArchiveFacts(len(objects), records, tuple(holes), tuple(mismatches or ()))


def _anomalies(conn: Connection, run: str) -> dict[str, int]:
    rebinds = conn.execute("SELECT count(*) FROM rtdl.rebind WHERE run = %s", (run,)).fetchone()
    assert rebinds is not None
    return {"FLOW_REBIND": int(rebinds[0]), **quarantine.counts(conn, run, STAGE)}


def _online(redis_url: str, conn: Connection, run: str) -> dict[str, int]:
    """How the online copy differs from the checkpoints: told, never a reason to block, since nothing reads it."""
    rows = conn.execute("SELECT merchant_id, state FROM rtdl.merchant WHERE run = %s", (run,))
    truth: dict[str, bytes] = dict(rows.fetchall())
    with closing(OnlineReader(redis_url)) as reader:
        return reader.compare(run, "merchant", truth)._asdict()
