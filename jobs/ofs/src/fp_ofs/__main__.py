"""The dataset job: `python -m fp_ofs run REQUEST.json --out DIR_OR_URL [--dry-run] [--engine spark]`.

Progress is JSON lines on stdout, the last line is {"result": …}. Exit 0 done (also when the dataset stands already),
2 usage, 3 blocked, 4 unavailable, 143 cancelled by SIGTERM or SIGINT. A run that was killed is simply run again.
"""

import argparse
import gc
import resource
import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import orjson
from pydantic import ValidationError

from fp_contracts.dataset import OfsRequest, OfsResult
from fp_contracts.jobrun import JobRuntime
from fp_ofs.build import PICTURES, Build
from fp_ofs.engine import Embedded, Engine
from fp_ofs.errors import Cancelled
from fp_ofs.progress import Progress
from fp_runtime import jobrun
from fp_runtime.beside import Beside
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.evidence import open_store

EXIT_DONE, EXIT_USAGE, EXIT_BLOCKED, EXIT_UNAVAILABLE, EXIT_CANCELLED = 0, 2, 3, 4, 143
_MS = 1_000


def main(arguments: list[str]) -> int:
    """Run one build; the exit code."""
    parser = argparse.ArgumentParser(prog="fp_ofs", description="Build a training dataset from a run's archive")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="build the dataset that a request names")
    run.add_argument("request", type=Path)
    run.add_argument("--out", required=True, help="folder, file:// or s3:// URL")
    run.add_argument("--engine", choices=("embedded", "spark"), default="embedded")
    run.add_argument("--dry-run", action="store_true", help="read, recompute and check; put nothing")
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    try:
        body = given.request.read_bytes()
        request = OfsRequest.model_validate_json(body)
        with jobrun.running("fp_ofs", body) as runtime:
            return _run(request, given, runtime, stop)
    except (UserError, OSError, ValidationError) as error:
        sys.stderr.write(f"fp_ofs: {str(error)[:600]}\n")
        return EXIT_USAGE
    except Unavailable as error:
        sys.stderr.write(f"fp_ofs: {error}\n")
        return EXIT_UNAVAILABLE


def _engine(name: str) -> Engine:
    if name == "embedded":
        return Embedded()
    try:
        from fp_ofs.spark import Spark  # here, because only those who run it have pyspark
    except ImportError as error:
        raise UserError("--engine spark", str(error), "install pyspark and a Java 17 beside this package") from error
    return Spark()


def _run(request: OfsRequest, given: argparse.Namespace, runtime: JobRuntime, stop: threading.Event) -> int:
    out, engine = given.out, _engine(given.engine)
    if Path(out).is_file():
        raise UserError(f"--out {out}", "it is a file", "name a folder or a store")
    url = out if "://" in out else Path(out).absolute().as_uri()
    archive = open_store(request.archive_url, request.archive_endpoint)
    progress = Progress(_say, stop, partial(jobrun.show_progress, runtime.instance))
    started = time.perf_counter()
    with ExitStack() as stack:
        drawn = request.stage == "dataset" and not given.dry_run
        # Beside: matplotlib takes a second to import, and the pictures as long again to draw.
        drawing = stack.enter_context(Beside(PICTURES)) if drawn else None
        out_store = open_store(url, request.out_endpoint)
        build = Build(request, archive, out_store, engine, progress, dry=given.dry_run, drawing=drawing)
        try:
            result = build.run()
        except Cancelled:
            result = OfsResult(status="CANCELLED", dataset_fingerprint=build.fingerprint, engine=engine.name)
    jobrun.show_quality(runtime.instance, build.quality)
    _tell(result, runtime, int((time.perf_counter() - started) * _MS))
    return {"BLOCKED": EXIT_BLOCKED, "CANCELLED": EXIT_CANCELLED}.get(result.status, EXIT_DONE)


def _tell(result: OfsResult, runtime: JobRuntime, wall_ms: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    metrics = {
        **result.metrics,
        "wall_ms": wall_ms,
        "cpu_ms": int((used.ru_utime + used.ru_stime) * _MS),
        "peak_rss_bytes": used.ru_maxrss * 1_024,
        "rows_per_s": result.metrics.get("rows", 0) * _MS // max(wall_ms, 1),
    }
    told = result.model_copy(update={"metrics": metrics, "runtime": runtime})
    _say(orjson.dumps({"result": told.model_dump(mode="json")}).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # A build makes millions of objects that live until it ends: looking for garbage among them is wasted.
    gc.disable()
    sys.exit(main(sys.argv[1:]))
