"""Start the learning triggers."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

from fp_ofs_trigger import adapters, service
from fp_ofs_trigger.aliases import open_aliases
from fp_ofs_trigger.corridor import Corridor
from fp_ofs_trigger.drill import drill_of
from fp_ofs_trigger.evaluators import LearningDesk, Places
from fp_ofs_trigger.executor import Executor
from fp_ofs_trigger.jobs import JobDesk
from fp_ofs_trigger.registry_desk import RegistryDesk
from fp_ofs_trigger.settings import OfsTriggerSettings
from fp_ofs_trigger.store import PgJobs, PgMarks, PgRegistry
from fp_runtime import settings
from fp_runtime.bus import FetchProfile
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.participant import Participant, now_us
from fp_runtime.postgres import connect
from fp_runtime.process import running
from fp_runtime.telemetry import Metric
from fp_runtime.telemetry_read import open_telemetry

READ_BACK = (Metric.JOB_PROGRESS, Metric.JOB_QUALITY, Metric.ACTIVE_BUNDLE)


def main() -> None:
    """Hear the learning topics, run jobs, close P12–P15 of full runs, until asked to stop."""
    config = settings.load(OfsTriggerSettings)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(config.agent_dir or scratch)
        learning_url = config.learning_url or config.archive_url
        learning = open_store(learning_url, config.s3_endpoint)
        jobs = PgJobs(connect(config.pg_dsn, f"{config.instance}/jobs"))
        participants: list[Participant] = []

        def open_run() -> str | None:
            state = participants[0].state() if participants else None
            over = state is None or state.closed is not None or state.stopped is not None
            return None if over or state is None else state.platform_run_id

        executor = Executor(
            jobs, learning, open_producer(config), adapters.open_runners(config, folder / "jobs"), config.instance,
            now_us, open_run, lambda phase: drill_of(participants[0].state() if participants else None, phase),
        )  # fmt: skip
        events = service.LearningEvents(jobs, executor)
        desk = open_desk(config, learning_url)
        gates = {"P12": desk.p12, "P13": desk.p13, "P14": desk.p14, "P15": desk.p15}

        def make() -> Participant:
            participants.append(Participant(config, gates, desk.react, events.metrics))
            return participants[0]

        with running(config, make, alone=True) as process:
            app = adapters.make_app(config, str(folder), events.on_record)
            try:
                asyncio.run(service.serve(app, process.turn, process.stopping, executor))
            finally:
                executor.close()


def open_desk(config: OfsTriggerSettings, learning_url: str) -> LearningDesk:
    """P12–P15 over connections of their own."""
    conn = connect(config.pg_dsn, f"{config.instance}/gates")
    producer, evidence = open_producer(config), open_store(config.evidence_url, config.s3_endpoint)
    learning = open_store(learning_url, config.s3_endpoint)
    # One record at a time: gathering 100 kB would wait half a second for each.
    reader = partial(open_consumer, config, "fp.ofs_trigger.gates", fetch=FetchProfile.CONTROL)
    registry = RegistryDesk(PgRegistry(conn), producer, reader, config.instance, now_us)
    # A folder keeps trainings, which their jobs put there; nobody serves aliases from it, and the client costs 80 MB.
    served = "" if config.tracking_url.startswith("file:") else config.tracking_url
    corridor = Corridor(registry, PgMarks(conn), open_aliases(served), now_us)
    places = Places(config.archive_url, learning_url, config.s3_endpoint, config.tracking_url, config.job_memory_bytes)
    return LearningDesk(
        places, JobDesk(PgJobs(conn), learning, producer, learning_url, config.instance, now_us), learning, evidence,
        adapters.PgArchive(conn, evidence), registry, corridor, now_us, open_telemetry(config.telemetry_url, READ_BACK),
    )  # fmt: skip


if __name__ == "__main__":
    main()
