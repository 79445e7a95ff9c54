"""What every learning job does around its work: it measures itself, arms failpoints and exports telemetry.

The runner sets OTEL_EXPORTER_OTLP_ENDPOINT and, for a drill, FP_FAILPOINTS; without them nothing is exported or armed.
"""

import hashlib
import os
import platform
import re
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fp_contracts.jobrun import JobRuntime
from fp_runtime import failpoint, telemetry
from fp_runtime.builds import job_digest, lock_file
from fp_runtime.telemetry import Metric, gauge

ENDPOINT, FAILPOINTS = "OTEL_EXPORTER_OTLP_ENDPOINT", "FP_FAILPOINTS"
_FEW = 20
_LOCKED = re.compile(r'^name = "([^"]+)"\nversion = "([^"]+)"$', re.MULTILINE)


@contextmanager
def running(package: str, request: bytes, environ: Mapping[str, str] = os.environ) -> Iterator[JobRuntime]:
    """Around the work of a job; telemetry that is still held is sent at the end. UserError for a wrong failpoint."""
    failpoint.arm(environ.get(FAILPOINTS, ""))
    runtime = measure(package, request)
    exported = telemetry.configure(package, runtime.instance, environ.get(ENDPOINT) or None)
    try:
        yield runtime
    finally:
        if exported is not None:
            exported.close()


def show_progress(instance: str, stage: str, done: int, total: int) -> None:
    """The progress of a stage as a metric."""
    gauge(Metric.JOB_PROGRESS).set(done, {"job": instance, "stage": stage, "total": total})


def show_quality(instance: str, measures: Mapping[str, int]) -> None:
    """What was found of the result, as metrics."""
    for name, value in measures.items():
        gauge(Metric.JOB_QUALITY).set(value, {"job": instance, "measure": name})


def measure(package: str, request: bytes) -> JobRuntime:
    """Of this process. KeyError for a package that is no job."""
    lock = lock_file()
    body = None if lock is None else lock.read_bytes()
    unlocked = () if body is None else tuple(other_versions(body.decode(), installed()))
    return JobRuntime(
        package=package,
        instance=f"{hashlib.sha256(request).hexdigest()[:16]}-{os.getpid()}",
        build_digest=job_digest(package),
        environment_lock=None if body is None else hashlib.sha256(body).hexdigest(),
        unlocked=unlocked[:_FEW],
        python=platform.python_version(),
    )


def installed() -> dict[str, str]:
    """Normalised name to version of what is installed beside this process, by the names of its metadata folders."""
    found = (path.name.removesuffix(".dist-info").partition("-") for path in _metadata())
    return {_normal(name): version for name, _, version in found}


def other_versions(lock: str, found: Mapping[str, str]) -> Iterator[str]:
    """`name version` of each distribution that the lock names, and names in other versions only."""
    locked: dict[str, set[str]] = {}
    for name, version in _LOCKED.findall(lock):
        locked.setdefault(_normal(name), set()).add(version)
    for name, version in sorted(found.items()):
        if name in locked and version not in locked[name]:
            yield f"{name} {version}"


def _metadata() -> Iterator[Path]:
    return Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
