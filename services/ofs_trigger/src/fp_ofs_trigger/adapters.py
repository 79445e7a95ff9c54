"""The edges: learning agents on the real broker, the archive's rows, runners by setting.

Agents are faust-streaming: low rate, no tables, at least once (architecture.md §6).
"""

from collections.abc import Callable
from pathlib import Path

import faust

from fp_contracts import topics
from fp_contracts.control import GatePassed
from fp_contracts.fold import RunState
from fp_ofs_trigger.domain import ArchivedObject
from fp_ofs_trigger.runners import Runner
from fp_ofs_trigger.runners.local import LocalRunner
from fp_ofs_trigger.service import Heard
from fp_ofs_trigger.settings import OfsTriggerSettings
from fp_ofs_trigger.store import archived_objects, reconciled_records
from fp_runtime.bus import physical
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore, read
from fp_runtime.postgres import Connection
from fp_runtime.settings import RuntimeSettings

READS = (topics.OFS_REQUESTS, topics.MF_REQUESTS, topics.OFS_EVENTS, topics.MF_EVENTS, topics.REGISTRY_EVENTS)


def make_app(settings: RuntimeSettings, work_dir: str, on_record: Callable[[Heard], None]) -> faust.App:
    """An app with one agent per learning topic; `on_record` is called for every record.

    UserError in dev_full: the agents' MSK IAM login is not built yet.
    """
    if settings.profile == "dev_full":
        raise UserError("ofs_trigger", "its agents cannot log in to MSK yet", "run with profile local")
    app = faust.App(
        "fp-ofs-trigger",
        broker=f"kafka://{settings.kafka_bootstrap}",
        datadir=work_dir,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_create=False,
        autodiscover=False,
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
    )
    for name in READS:
        _add_agent(app, settings.topic_prefix, name, on_record)
    return app


def _add_agent(app: faust.App, prefix: str, name: str, on_record: Callable[[Heard], None]) -> None:
    source = app.topic(physical(prefix, name), value_type=bytes, value_serializer="raw", internal=False)

    async def hear(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            on_record(Heard(name, event.message.partition, event.message.offset, event.value))

    app.agent(source, name=name)(hear)


class PgArchive:
    """evaluators.Archive: recorded objects in PostgreSQL, the reconciliation in P11's evidence."""

    def __init__(self, conn: Connection, evidence: EvidenceStore) -> None:
        self._conn = conn
        self._evidence = evidence

    def objects(self, run: str) -> list[ArchivedObject]:
        """See Archive."""
        return archived_objects(self._conn, run)

    def reconciled(self, state: RunState) -> dict[str, int]:
        """See Archive."""
        attempt = state.attempts.get("P11")
        event = attempt.event if attempt is not None else None
        refs = event.evidence if isinstance(event, GatePassed) else ()
        for ref in refs:
            if ref.key.endswith("/reconciliation.json"):
                try:
                    return reconciled_records(read(self._evidence, ref))
                except (EvidenceMissing, EvidenceBroken):
                    return {}
        return {}


def open_runners(settings: OfsTriggerSettings, folder: Path) -> dict[str, Runner]:
    """The runner of each job's package. UserError when a remote one lacks a setting or its SDK."""
    local = LocalRunner(folder, otlp_endpoint=settings.otlp_endpoint)
    runners: dict[str, Runner] = {"fp_ofs": local, "fp_mf": local}
    if settings.ofs_runner == "databricks":
        from fp_ofs_trigger.runners.databricks import open_databricks  # here: the SDK is an optional extra

        runners["fp_ofs"] = open_databricks(settings.databricks_host, settings.databricks_job_id)
    if settings.mf_runner == "sagemaker":
        from fp_ofs_trigger.runners.sagemaker import open_sagemaker  # here: boto3 takes 0.3 s to import

        runners["fp_mf"] = open_sagemaker(settings)
    return runners
