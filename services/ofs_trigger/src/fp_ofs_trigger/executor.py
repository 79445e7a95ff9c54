"""Runs what the learning topics ask for, one job at a time, and publishes how each ended."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from fp_contracts.canonical import CanonicalError, canonical_bytes
from fp_contracts.control import Blocker, DrillRequested, EvidenceRef
from fp_contracts.envelope import Envelope
from fp_contracts.learning import KilledRun, MfEnded, MfRequested, OfsEnded
from fp_contracts.records import Pins
from fp_ofs_trigger.domain import MODULE_OF
from fp_ofs_trigger.drill import Go, drilled, standing
from fp_ofs_trigger.jobs import Ended, JobTable, Requested, publish
from fp_ofs_trigger.runners import Ended as RunEnded
from fp_ofs_trigger.runners import Job, Progress, Runner
from fp_runtime.bus import Producer
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore, read

log = structlog.get_logger()
_BLOCKERS: TypeAdapter[tuple[Blocker, ...]] = TypeAdapter(tuple[Blocker, ...])


class Executor:
    """Jobs of the open run. `open_run()` names it; what is asked for another run is passed over.

    `drill_of(phase)`: the drill that the open run asks of the phase's job; its first run is then killed, really.
    """

    def __init__(
        self, table: JobTable, store: EvidenceStore, producer: Producer, runners: Mapping[str, Runner], name: str,
        now_us: Callable[[], int], open_run: Callable[[], str | None],
        drill_of: Callable[[str], DrillRequested | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._table = table
        self._store = store
        self._producer = producer
        self._runners = runners
        self._name = name
        self._now_us = now_us
        self._open_run = open_run
        self._drill_of = drill_of
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._taken: set[str] = set()
        self._stop = threading.Event()
        self.progress: Progress | None = None
        self.failed: Exception | None = None

    def on_request(self, envelope: Envelope, event: Requested) -> None:
        """Take a job unless it has ended, is taken already, or belongs to a run that is not open."""
        run = envelope.platform_run_id
        if run != self._open_run() or event.request_id in self._taken:
            return
        if self._table.end(run, event.request_id) is not None:
            return
        self._taken.add(event.request_id)
        pins = Pins(run, envelope.scenario_run_id, envelope.manifest_fingerprint, envelope.run_config_digest)
        self._pool.submit(self._guarded, pins, event)

    def close(self) -> None:
        """Cancel what runs and wait for it; a job that was cancelled so is run again by the next process."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def join(self) -> None:
        """Wait until everything taken so far has ended."""
        self._pool.submit(lambda: None).result()

    def check(self) -> None:
        """Raise what a job's publication failed with: the process must not go on as if nothing was asked."""
        if self.failed is not None:
            raise self.failed

    def metrics(self) -> dict[str, int]:
        """Progress of the running job for the heartbeat."""
        progress = self.progress
        return {} if progress is None else {"job_done": progress.done, "job_total": progress.total}

    def _guarded(self, pins: Pins, event: Requested) -> None:
        try:
            self._run(pins, event)
        except Exception as error:  # noqa: BLE001  # whatever it is, the job has no end: `check` raises it
            log.error("job_not_reported", request_id=event.request_id, why=str(error))
            self.failed = error
        finally:
            self.progress = None

    def _run(self, pins: Pins, event: Requested) -> None:
        started_us, run = self._now_us(), pins.platform_run_id
        killed: KilledRun | None = None
        runner = self._runners[MODULE_OF[event.phase]]
        log.info("job_started", phase=event.phase, request_id=event.request_id, runner=runner.name)
        try:
            request = read(self._store, event.request)
        except (EvidenceMissing, EvidenceBroken) as error:
            ended = RunEnded("FAILED", f"request {type(error).__name__}: {error}", None, b"", "", {})
        else:
            job = Job(event.request_id, MODULE_OF[event.phase], request, event.out_url, event.limits)
            go = Go(runner, self._note, lambda: self._stop.is_set() or self._open_run() != run)
            drill = self._drill_of(event.phase)
            if drill is None:
                ended = go(job)
            else:
                ended, killed = drilled(go, job, drill, partial(standing, self._store, event.phase), self._now_us)
        if ended.outcome == "CANCELLED":
            self._taken.discard(event.request_id)
            log.info("job_cancelled", phase=event.phase, request_id=event.request_id)
            return
        log.info("job_ended", phase=event.phase, request_id=event.request_id, outcome=ended.outcome, why=ended.reason)
        payload = self._ended(event, ended, runner.name, started_us, killed)
        publish(self._producer, pins, payload, self._name, self._now_us())

    def _note(self, progress: Progress) -> None:
        self.progress = progress

    def _ended(
        self, event: Requested, ended: RunEnded, runner: str, started_us: int, killed: KilledRun | None
    ) -> Ended:  # fmt: skip
        result, ended = self._kept(event, ended, started_us)
        folder = f"jobs/{event.request_id}/{started_us}"
        kind = MfEnded if isinstance(event, MfRequested) else OfsEnded
        return kind.model_validate(
            {
                "request_id": event.request_id, "phase": event.phase, "attempt": event.attempt,
                "outcome": ended.outcome, "reason": ended.reason[:400], "result": result,
                "log": self._store.put(f"{folder}/log.txt", ended.log) if ended.log else None,
                "blockers": _blockers(ended), "runner": runner, "runner_ref": ended.ref,
                "started_us": started_us, "ended_us": self._now_us(), "usage": dict(ended.usage), "killed": killed,
            }
        )  # fmt: skip

    def _kept(self, event: Requested, ended: RunEnded, started_us: int) -> tuple[EvidenceRef | None, RunEnded]:
        """The result as an object; a result without a canonical form is a failure, not a result."""
        if ended.result is None:
            return None, ended
        try:
            body = canonical_bytes(ended.result)
        except CanonicalError as error:
            return None, ended._replace(outcome="FAILED", reason=f"its result is not canonical: {error}", result=None)
        return self._store.put(f"jobs/{event.request_id}/{started_us}/result.json", body), ended


def _blockers(ended: RunEnded) -> tuple[Blocker, ...]:
    try:
        return _BLOCKERS.validate_json(orjson.dumps((ended.result or {}).get("blockers", [])))
    except ValidationError:
        return ()
