"""One process of rtdl or of its archive through one run: connections, loop, end."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.runconfig import RunHeader
from fp_contracts.windows import flowing
from fp_rtdl.adapters import PgCheckpoints
from fp_rtdl.archive import Archive
from fp_rtdl.archive_store import PgRanges
from fp_rtdl.drill import Recovery
from fp_rtdl.plan import plan_of
from fp_rtdl.service import Stage
from fp_rtdl.settings import RtdlSettings
from fp_runtime.bus import FetchProfile, TopicPartition
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer
from fp_runtime.kafka_rounds import open_rounds
from fp_runtime.logs import logger
from fp_runtime.online import OnlineWriter
from fp_runtime.participant import now_us
from fp_runtime.postgres import connect
from fp_runtime.process import Process

LAG_S = 5.0  # a request to the broker each time, for the heartbeat every 10 s

log = logger("fp_rtdl")
Numbers = dict[str, int]


def serve(settings: RtdlSettings, process: Process, state: RunState, numbers: Numbers) -> None:
    """Work on a run's owned partitions until it is over or we are asked to stop. Crashes on any failure."""
    assert state.header is not None
    plan = plan_of(state.header)
    parts = plan.owned(settings.ordinal)
    log.info("run_started", run=plan.run, partitions=parts)
    online = OnlineWriter(settings.redis_url) if settings.redis_url else None
    with (
        connect(settings.pg_dsn, f"{settings.instance}/data") as conn,
        closing(open_consumer(settings, "fp.rtdl")) as ingress,
        # Asked once a turn, for which the ingress consumer has waited: a pause of its own would stop a backlog.
        closing(open_consumer(settings, f"fp.rtdl.labels.{settings.instance}", fetch=FetchProfile.CONTROL)) as labels,
        closing(open_rounds(settings)) as producer,
    ):
        checkpoints = PgCheckpoints(conn, plan.run, settings.instance)
        stage = Stage(plan, parts, checkpoints, ingress, labels, producer, time.monotonic, online)
        resumed = stage.ingress_offsets()
        recovery = Recovery(conn, plan.run, settings.instance, parts, ingress.ends(resumed), resumed, now_us)
        lag_at = time.monotonic()
        while not process.stopping() and not process.participant.run_over():
            process.turn()
            stage.turn()
            if recovery.open:
                recovery.check(stage.ingress_offsets())
            if time.monotonic() >= lag_at:
                lag_at = time.monotonic() + LAG_S
                lag = _lag(ingress.ends(resumed), stage.read())
                numbers.update(stage.metrics(), lag_records=lag, **_copied(online))
        stage.checkpoint()
        numbers.update(stage.metrics())
    if online is not None:
        online.close()


def _copied(online: OnlineWriter | None) -> dict[str, int]:
    """What became of the entries of the online copy: it may lag or lose some, and says so."""
    if online is None:
        return {}
    counts = online.counts()
    return {"online_written": counts.written, "online_dropped": counts.dropped}


def _lag(ends: dict[TopicPartition, int], read: dict[TopicPartition, int]) -> int:
    return sum(max(0, end - read[place]) for place, end in ends.items())


def serve_archive(settings: RtdlSettings, process: Process, state: RunState, numbers: Numbers) -> None:
    """Archive the data topics of a run until it is over or we are asked to stop. Crashes on any failure."""
    assert state.header is not None
    run = state.platform_run_id
    log.info("run_started", run=run)
    with (
        connect(settings.pg_dsn, f"{settings.instance}/data") as conn,
        closing(open_consumer(settings, "fp.archive", fetch=FetchProfile.BULK)) as consumer,
        ThreadPoolExecutor(4, thread_name_prefix="put") as pool,
    ):
        store = open_store(settings.archive_url, settings.s3_endpoint)
        ranges = PgRanges(conn, run, settings.instance)
        archive = Archive(
            run, data_starts(state.header), ranges, store, consumer, pool, time.monotonic,
            max_records=settings.archive_records, max_held=settings.archive_held, flush_s=settings.archive_flush_s,
        )  # fmt: skip
        while not process.stopping() and not process.participant.run_over():
            process.turn()
            archive.turn(hurry=_stream_ended(process.participant.state))
            numbers["archived"] = archive.archived
        archive.flush()


def _stream_ended(state_now: Callable[[], RunState | None]) -> bool:
    """Whether a window ended and no other one flows."""
    state = state_now()
    return state is not None and bool(state.windows_ended) and flowing(state) is None


def data_starts(header: RunHeader) -> dict[TopicPartition, int]:
    """Where the run starts in every partition of the data topics."""
    return {(topic, part): offset for topic in topics.DATA for part, offset in header.starts(topic).items()}
