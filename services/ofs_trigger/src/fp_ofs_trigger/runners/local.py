"""Jobs as processes of this machine: limited, watched, ended at a deadline, one at a time per request.

Ends that a repetition cannot change (DONE, BLOCKED, USAGE) are kept in the request's folder and given out again.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import IO

import orjson

from fp_contracts.learning import Outcome
from fp_ofs_trigger.runners import Ended, Job, Progress, check_id, concluded, limited
from fp_ofs_trigger.runners.lines import JobOutput
from fp_runtime.jobrun import ENDPOINT, FAILPOINTS

GRACE_S = 10.0
POLL_S = 0.1
_FINAL: tuple[Outcome, ...] = ("DONE", "BLOCKED", "USAGE")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
_PREFIXES = ("AWS_", "MLFLOW_")


class LocalRunner:
    """runners.Runner with subprocesses under `folder`, one folder per request."""

    name = "local"

    def __init__(
        self, folder: Path, grace_s: float = GRACE_S, clock: Callable[[], float] = time.monotonic,
        otlp_endpoint: str | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._otlp_endpoint = otlp_endpoint
        self._grace_s = grace_s
        self._clock = clock

    def run(self, job: Job, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        """See Runner. A second caller of one request waits for the first one's end and gets it."""
        home = self._folder / check_id(job.request_id)
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock", cancelled) as held:
            if not held:
                return Ended("CANCELLED", "cancelled while another run of it went on", None, b"", "", {})
            kept = _kept(home / "ended.json")
            if kept is not None:
                return kept
            (home / "request.json").write_bytes(job.request)
            ended = self._run(job, home, progress, cancelled)
            if ended.outcome in _FINAL:
                _keep(home / "ended.json", ended)
            return ended

    def _run(self, job: Job, home: Path, progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Ended:
        output, started = JobOutput(progress), self._clock()
        argv = (
            sys.executable, "-I", "-S", limited.__file__, str(job.limits.memory_bytes), str(job.limits.cpu_s),
            sys.executable, "-m", job.module, "run", str(home / "request.json"), "--out", job.out_url,
        )  # fmt: skip
        own = {ENDPOINT: self._otlp_endpoint or "", FAILPOINTS: job.failpoints}
        env = environment(os.environ) | {name: value for name, value in own.items() if value}
        process = subprocess.Popen(
            argv, cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [_reading(process.stdout, output.take), _reading(process.stderr, output.note)]
        why = self._watch(process, started + job.limits.wall_s, cancelled)
        usage = _reap(process, int((self._clock() - started) * 1_000))
        for reader in readers:
            reader.join(self._grace_s)
        ended = concluded(process.returncode, output.result, output.log(), f"pid {process.pid}", usage)
        if why is not None and ended.outcome not in ("DONE", "BLOCKED"):
            return ended._replace(outcome=why, reason=f"ended after {usage['wall_ms']} ms")
        if process.returncode == -signal.SIGXCPU:
            return ended._replace(outcome="TIMED_OUT", reason=f"used its {job.limits.cpu_s} s of CPU")
        return ended

    def _watch(
        self, process: subprocess.Popen[bytes], deadline: float, cancelled: Callable[[], bool]
    ) -> Outcome | None:
        """Wait without reaping, so that the usage can be read; TERM then KILL at the deadline or when cancelled."""
        why: Outcome | None = None
        kill_at = 0.0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = self._clock()
            if why is None and (now >= deadline or cancelled()):
                why, kill_at = "TIMED_OUT" if now >= deadline else "CANCELLED", now + self._grace_s
                _signal(process.pid, signal.SIGTERM)
            elif why is not None and now >= kill_at:
                _signal(process.pid, signal.SIGKILL)
            time.sleep(POLL_S)
        # What the job started and left behind would keep its pipes open.
        _signal(process.pid, signal.SIGKILL)
        return why


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a job inherits: paths and the credentials of its stores, one thread per library, no settings of ours."""
    kept = {name: value for name, value in given.items() if name in _INHERITED or name.startswith(_PREFIXES)}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}


def _reading(pipe: IO[bytes], take: Callable[[bytes], None]) -> Thread:
    def read() -> None:
        with pipe:
            for line in pipe:
                take(line)

    thread = Thread(target=read, name="job-output", daemon=True)
    thread.start()
    return thread


def _reap(process: subprocess.Popen[bytes], wall_ms: int) -> dict[str, int]:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1_000)
    return {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "peak_rss_bytes": usage.ru_maxrss * 1_024}


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@contextlib.contextmanager
def _locked(path: Path, cancelled: Callable[[], bool]) -> Iterator[bool]:
    """Whether the lock was taken; False when cancelled first. The kernel lets go of it when this process dies."""
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if cancelled():
                    yield False
                    return
                time.sleep(POLL_S)
                continue
            yield True
            return


def _keep(path: Path, ended: Ended) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_bytes(orjson.dumps({**ended._asdict(), "log": ended.log.decode(errors="replace")}))
    aside.replace(path)


def _kept(path: Path) -> Ended | None:
    try:
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return Ended(**{**found, "log": found["log"].encode()})
