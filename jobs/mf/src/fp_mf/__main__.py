"""The model job: `run REQUEST.json --out DIR_OR_URL [--dry-run]`, `serve BUNDLE_DIR`, `transform BUNDLE_DIR IN OUT`.

Progress is JSON lines on stdout, the last line is {"result": …}. Exit 0 done (also when it is published already),
2 usage, 3 blocked, 4 unavailable, 143 cancelled by SIGTERM or SIGINT. A run that was killed is simply run again.
"""

import argparse
import os
import resource
import signal
import sys
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from fp_contracts.bundle import MfResult, TrainJob
from fp_contracts.jobrun import JobRuntime
from fp_mf import batch, serve
from fp_mf.errors import Cancelled
from fp_mf.job import PICTURES, Places, run
from fp_mf.progress import say_line, speaker
from fp_mf.tracking import open_tracker
from fp_models import BundleBroken, NotFinite
from fp_runtime import jobrun
from fp_runtime.beside import Beside
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.evidence import EvidenceMissing, open_store

DONE, USAGE, BLOCKED, UNAVAILABLE, CANCELLED = 0, 2, 3, 4, 143
_MS = 1_000


def main(arguments: list[str]) -> int:
    """Do what is asked; the exit code."""
    given = _parser().parse_args(arguments)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    try:
        match given.verb:
            case "run":
                return _run(given.request, given.out, given.dry_run, stop)
            case "serve":
                return serve.run(given.bundle, given.host, given.port, stop)
            case _:
                return batch.run(given.bundle, given.input, given.output)
    except (UserError, OSError, ValidationError, BundleBroken, NotFinite, EvidenceMissing) as error:
        sys.stderr.write(f"fp_mf: {str(error)[:600]}\n")
        return USAGE
    except Unavailable as error:
        sys.stderr.write(f"fp_mf: {error}\n")
        return UNAVAILABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fp_mf", description="Train, serve and apply model bundles")
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("run", help="train what a request names")
    training.add_argument("request", help="file, or file:// or s3:// URL")
    training.add_argument("--out", required=True, help="folder, file:// or s3:// URL")
    training.add_argument("--dry-run", action="store_true", help="train and examine; put nothing")
    serving = verbs.add_parser("serve", help="answer /ping and /invocations")
    serving.add_argument("bundle", type=Path)
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=8080)
    applying = verbs.add_parser("transform", help="score the rows of a parquet file")
    applying.add_argument("bundle", type=Path)
    applying.add_argument("input", type=Path)
    applying.add_argument("output", type=Path)
    return parser


def _run(request: str, out: str, dry: bool, stop: threading.Event) -> int:
    body = _read(request)
    job = TrainJob.model_validate_json(body)
    with jobrun.running("fp_mf", body) as runtime:
        return _train(job, runtime, out, dry, stop)


def _train(job: TrainJob, runtime: JobRuntime, out: str, dry: bool, stop: threading.Event) -> int:
    datasets = open_store(job.dataset_url, job.s3_endpoint)
    active = open_store(job.active_url, job.s3_endpoint) if job.active_url else datasets
    places = Places(datasets, active, open_store(_url(out), job.s3_endpoint), open_tracker(job.tracking_url))
    started = time.perf_counter()
    try:
        # Beside: matplotlib takes a second to import, and the checks need no pictures.
        with nullcontext() if dry else Beside(PICTURES) as drawing:
            progress = speaker(stop, partial(jobrun.show_progress, runtime.instance))
            result = run(job.request, places, progress, dry=dry, drawing=drawing)
    except Cancelled:
        result = MfResult(
            platform_run_id=job.request.platform_run_id, train_request_digest=job.request.digest,
            status="CANCELLED", eligible=False, reasons=("cancelled",), blockers=(),
        )  # fmt: skip
    _tell(result, runtime, int((time.perf_counter() - started) * _MS))
    return {"BLOCKED": BLOCKED, "CANCELLED": CANCELLED}.get(result.status, DONE)


def _url(place: str) -> str:
    return place if "://" in place else Path(place).absolute().as_uri()


def _read(request: str) -> bytes:
    folder, _, name = _url(request).rpartition("/")
    return open_store(folder).get(name) if "://" in request else Path(request).read_bytes()


def _tell(result: MfResult, runtime: JobRuntime, wall_ms: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {
        "wall_ms": wall_ms,
        "cpu_ms": int((used.ru_utime + used.ru_stime) * _MS),
        "peak_rss_bytes": used.ru_maxrss * 1_024,
    }
    told = result.model_copy(update={"metrics": {**result.metrics, **spent}, "runtime": runtime})
    say_line({"result": told.model_dump(mode="json")})


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # after a cancel native threads may still run, and their destructors abort an orderly exit
