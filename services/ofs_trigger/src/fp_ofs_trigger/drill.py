"""A drill of a learning job: its first run is killed at a failpoint in mid-work, the second one has to end it."""

from collections.abc import Callable
from typing import NamedTuple

import structlog

from fp_contracts.bundle import BUNDLES, TrainJob, training_key
from fp_contracts.control import DrillReported, DrillRequested, EvidenceRef
from fp_contracts.dataset import OfsRequest, dataset_fingerprint, dataset_key
from fp_contracts.fold import RunState
from fp_contracts.learning import DRILLED, KilledRun
from fp_ofs_trigger.jobs import EndSeen
from fp_ofs_trigger.runners import Ended, Job, Progress, Runner
from fp_runtime.evidence import EvidenceStore, ref_of

log = structlog.get_logger()
Standing = Callable[[bytes], dict[str, EvidenceRef]]
"""Request to the objects that stand where its job puts them, by key."""


class Go(NamedTuple):
    """One runner with who hears of progress and who may cancel; called with a job it runs it to the end."""

    runner: Runner
    note: Callable[[Progress], None]
    cancelled: Callable[[], bool]

    def __call__(self, job: Job) -> Ended:
        """Run it."""
        return self.runner.run(job, self.note, self.cancelled)


def drilled(
    go: Go, job: Job, drill: DrillRequested, look: Standing, now_us: Callable[[], int]
) -> tuple[Ended, KilledRun | None]:
    """Run a job that a drill kills, then run it again at once; the end that counts, and what the kill was.

    A job that ends before its failpoint was not killed: its end counts, and there is no drill to tell of.
    """
    last = Progress("start", 0, 0)

    def heard(progress: Progress) -> None:
        nonlocal last
        last = progress
        go.note(progress)

    before, started_us = look(job.request), now_us()
    first = go._replace(note=heard)(job._replace(failpoints=drill.failpoint))
    killed_us = now_us()
    if first.outcome != "KILLED":
        return first, None
    log.info("job_killed_by_drill", request_id=job.request_id, drill_id=drill.drill_id, stage=last.stage)
    left = look(job.request)
    restarted_us = now_us()
    killed = KilledRun(
        drill_id=drill.drill_id, failpoint=drill.failpoint, outcome=first.outcome, reason=first.reason,
        runner_ref=first.ref, stage=last.stage, done=last.done, total=last.total,
        left=tuple(left[key] for key in sorted(left.keys() - before.keys())),
        started_us=started_us, killed_us=killed_us, restarted_us=restarted_us, usage=dict(first.usage),
    )  # fmt: skip
    return go(job), killed


def standing(store: EvidenceStore, phase: str, request: bytes) -> dict[str, EvidenceRef]:
    """See Standing. Objects of other jobs in the same folders are among them."""
    prefixes: tuple[str, ...]
    if phase == "P14":
        digest = TrainJob.model_validate_json(request).request.digest
        prefixes = (training_key(digest, ""), f"{BUNDLES}/")
    else:
        intent = OfsRequest.model_validate_json(request).intent
        prefixes = (dataset_key(dataset_fingerprint(intent), ""),)
    keys = [stored.key for prefix in prefixes for stored in store.list(prefix)]
    return {key: ref_of(key, store.get(key)) for key in keys}


def drill_of(state: RunState | None, phase: str) -> DrillRequested | None:
    """The drill that a run asks of the phase's job."""
    drills = () if state is None else state.drills.values()
    return next((drill for drill in drills if drill.instance == DRILLED.get(phase)), None)


def report_of(drill: DrillRequested, seen: EndSeen | None) -> DrillReported | None:
    """What a drill did, once the job has ended and was killed by it before."""
    killed = seen.event.killed if seen is not None else None
    if seen is None or killed is None or killed.drill_id != drill.drill_id:
        return None
    return DrillReported(
        drill_id=drill.drill_id, instance=drill.instance, killed_us=killed.killed_us,
        restarted_us=killed.restarted_us, recovered_us=seen.event.ended_us, lag_at_restart=killed.total - killed.done,
    )  # fmt: skip
