"""The learning agents on the real broker: faust-streaming, low rate, no tables, at least once (architecture.md §6)."""

from collections.abc import Callable

import faust

from fp_contracts import topics
from fp_runtime.bus import physical
from fp_runtime.errors import UserError
from fp_runtime.settings import RuntimeSettings

READS = (topics.OFS_EVENTS, topics.MF_EVENTS, topics.REGISTRY_EVENTS)


def make_app(settings: RuntimeSettings, work_dir: str, on_event: Callable[[str, bytes], None]) -> faust.App:
    """An app with one agent per learning topic; `on_event(topic, body)` is called for every record.

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
        _add_agent(app, settings.topic_prefix, name, on_event)
    return app


def _add_agent(app: faust.App, prefix: str, name: str, on_event: Callable[[str, bytes], None]) -> None:
    source = app.topic(physical(prefix, name), value_type=bytes, value_serializer="raw", internal=False)

    async def read(stream: faust.StreamT[bytes]) -> None:
        async for body in stream:
            on_event(name, body)

    app.agent(source, name=name)(read)
