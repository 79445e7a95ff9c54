"""The dataset job over a run's archive, asked for as the platform asks: stage input, then stage dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from psycopg import Connection

from bench.handbook.telling import Paced, tell
from fp_contracts.canonical import canonical_bytes, sha256_hex
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import OfsRequest, OfsResult
from fp_contracts.fold import RunState
from fp_ofs_trigger import domain
from fp_ofs_trigger.runners import Job, Progress
from fp_ofs_trigger.runners.local import LocalRunner
from fp_ofs_trigger.settings import OfsTriggerSettings
from fp_ofs_trigger.store import archived_objects

MEMORY_BYTES = int(OfsTriggerSettings.model_fields["job_memory_bytes"].default)


class Built(NamedTuple):
    """One stage of the job. Rows of its dataset, payments of its basis; seconds; largest resident memory."""

    stage: str
    status: str
    rows: int
    payments: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    digest: str


def build(state: RunState, conn: "Connection[tuple[object, ...]]", archive_url: str, folder: Path) -> list[Built]:
    """Both stages, each in a process of its own under the platform's limits; the first that is blocked is the last."""
    assert state.header is not None
    objects = archived_objects(conn, state.platform_run_id)
    request = OfsRequest(
        intent=domain.intent_of(state.header, domain.basis_of(objects, state.header)), archive_url=archive_url,
        archive_objects=tuple(found.ref for found in objects), stage="input", requested_by="bench",
    )  # fmt: skip
    first, material = _run(request, state, folder)
    if first.status != "INPUT_READY":
        return [first]
    second, _ = _run(request.model_copy(update={"stage": "dataset", "material": material}), state, folder)
    return [first, second]


def _run(request: OfsRequest, state: RunState, folder: Path) -> tuple[Built, EvidenceRef | None]:
    assert state.header is not None
    body = canonical_bytes(request.model_dump(mode="json"))
    limits = domain.limits_of({"input": "P12", "dataset": "P13"}[request.stage], state.header.config, MEMORY_BYTES)
    job = Job(sha256_hex(body), "fp_ofs", body, (folder / "learning").as_uri(), limits)
    tell(f"dataset job, stage {request.stage}: begins")
    ended = LocalRunner(folder / "jobs").run(job, _told(request.stage), lambda: False)
    used = ended.usage["wall_ms"] / 1e3, ended.usage["cpu_ms"] / 1e3, ended.usage["peak_rss_bytes"]
    if ended.result is None:
        tell(f"dataset job, stage {request.stage}: {ended.outcome} {ended.reason}\n{ended.log.decode()[-2_000:]}")
        return Built(request.stage, ended.outcome, 0, 0, *used, ""), None
    result = OfsResult.model_validate_json(canonical_bytes(ended.result))
    for blocker in result.blockers:
        tell(f"dataset job, stage {request.stage}: {blocker.code} {blocker.reason}")
    found = result.metrics
    rows, payments = found.get("rows", 0), found.get("payments", 0)
    built = Built(request.stage, result.status, rows, payments, *used, result.row_digest or "")
    return built, result.material


def _told(stage: str) -> Callable[[Progress], None]:
    paced = Paced()

    def told(progress: Progress) -> None:
        if paced.due():
            tell(f"dataset job, stage {stage}: {progress.stage} {progress.done:,} of {progress.total:,}")

    return told
