"""Learning triggers: agents bring requests to the executor and ends to the journal; gates run in the control thread."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import faust
import structlog

from fp_contracts import topics
from fp_contracts.learning import MfEnded, MfRequested, OfsEnded, OfsRequested, read_learning
from fp_contracts.records import RecordError
from fp_contracts.registry import read_registry
from fp_ofs_trigger.executor import Executor
from fp_ofs_trigger.jobs import EndSeen, JobTable

log = structlog.get_logger()
STOP_POLL_S = 0.25
REQUESTS = frozenset({topics.OFS_REQUESTS, topics.MF_REQUESTS})


class Heard(NamedTuple):
    """One record as an agent heard it."""

    topic: str
    partition: int
    offset: int
    body: bytes


class LearningEvents:
    """What the agents do with each record; runs in the agents' thread."""

    def __init__(self, table: JobTable, executor: Executor) -> None:
        self._table = table
        self._executor = executor
        self._seen: dict[str, int] = {}

    def metrics(self) -> dict[str, int]:
        """Counts by lane for the heartbeat, and the running job's progress."""
        return {**self._seen, **self._executor.metrics()}

    def on_record(self, heard: Heard) -> None:
        """Take one record; one that breaks its contract is logged and passed over."""
        name = f"{heard.topic.split('.')[3]}_{heard.topic.split('.')[4]}"
        self._seen = {**self._seen, name: self._seen.get(name, 0) + 1}
        try:
            if heard.topic == topics.REGISTRY_EVENTS:
                read_registry(heard.body)
            else:
                self._learning(heard)
        except RecordError as error:
            log.error("learning_record_refused", topic=heard.topic, offset=heard.offset, why=str(error))

    def _learning(self, heard: Heard) -> None:
        envelope, payload = read_learning(heard.body)
        if isinstance(payload, OfsRequested | MfRequested):
            self._executor.on_request(envelope, payload)
        elif isinstance(payload, OfsEnded | MfEnded):
            seen = EndSeen(payload, heard.topic, heard.partition, heard.offset)
            self._table.note_end(envelope.platform_run_id, seen)


async def serve(app: faust.App, turn: Callable[[], None], stopping: Callable[[], bool], executor: Executor) -> None:
    """Run the agents until asked to stop; raises what ended the participant, an agent's crash or a lost report."""
    app.finalize()
    await app.start()
    try:
        while not stopping():
            turn()
            executor.check()
            if app.crashed:
                raise RuntimeError("a learning agent crashed")
            await asyncio.sleep(STOP_POLL_S)
    finally:
        await app.stop()
