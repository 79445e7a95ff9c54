"""Samples progress and ends for the alert rules, in the main thread on its own connections."""

from collections.abc import Callable

import orjson

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_runtime import progress
from fp_runtime.bus import Consumer
from fp_runtime.logs import logger
from fp_runtime.postgres import Connection
from fp_verdict import adapters
from fp_verdict.watch import Sample, Watch

log = logger(__name__)
_STAGE = "rtdl"


class Watchman:
    """Watches the run that is open; a new run starts with fresh rules."""

    def __init__(self, conn: Connection, reader: Consumer, now_us: Callable[[], int]) -> None:
        self._conn = conn
        self._reader = reader
        self._now_us = now_us
        self._run = ""
        self._watch = Watch(1)

    def look(self, state: RunState) -> None:
        """One sample of an open run; what fires is journaled and logged."""
        if state.header is None or state.closed is not None or state.stopped is not None:
            return
        if state.platform_run_id != self._run:
            self._run = state.platform_run_id
            self._watch = Watch(state.header.config.members.get(_STAGE, 1))
        for alert in self._watch.observe(self._sample(state)):
            adapters.journal_alert(self._conn, self._run, alert)
            log.warning("alert_fired", rule=alert.rule, subject=alert.instance, observed=alert.observed)

    def _sample(self, state: RunState) -> Sample:
        found = progress.load_all(self._conn, state.platform_run_id, _STAGE)
        places = [(topic, part) for topic in topics.INGRESS for part in found]
        ends = self._reader.ends(places) if places else {}
        resumes = {part: orjson.loads(at.doc)["resume"] for part, at in found.items()}
        return Sample(
            at_us=self._now_us(),
            positions={part: at.n for part, at in found.items()},
            lags={
                part: sum(max(0, ends[topic, part] - resume[topic]) for topic in topics.INGRESS)
                for part, resume in resumes.items()
            },
            heartbeats={name: beat.at_us for name, beat in state.heartbeats.items()},
            epochs=adapters.epochs_of(self._conn, state.platform_run_id),
        )
