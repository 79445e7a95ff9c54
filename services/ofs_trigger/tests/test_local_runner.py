"""Local jobs: every end is a value, limits hold, one request is one job."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil
import pytest

from fp_contracts.learning import Limits
from fp_ofs_trigger.runners import LOG_BYTES, Ended, Job, Progress
from fp_ofs_trigger.runners.local import LocalRunner, environment
from fp_runtime.deadline import until

ID = "a" * 64
LIMITS = Limits(wall_s=60, cpu_s=60, memory_bytes=1 << 30)
Run = Callable[..., Ended]


class Jobs:
    """Jobs whose code is given by the test; the module lies in the request's folder, where the job is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[Progress] = []
        self.cancel = threading.Event()
        self.clock = time.monotonic

    def run(self, code: str, limits: Limits = LIMITS, request_id: str = ID, grace_s: float = 10.0) -> Ended:
        home = self.folder / request_id
        home.mkdir(parents=True, exist_ok=True)
        (home / "job_code.py").write_text(f"import json, os, signal, sys, time\n{code}\n")
        job = Job(request_id, "job_code", b'{"asked":1}', "file:///out", limits)
        return LocalRunner(self.folder, grace_s, self.clock).run(job, self.seen.append, self.cancel.is_set)

    def pid(self, request_id: str = ID) -> psutil.Process:
        """The job, once it has written its pid."""
        path = self.folder / request_id / "pid"
        return psutil.Process(int(until(lambda: path.read_text() if path.exists() else None, 20, "the job's pid")))


SAYS_PID = "open('pid.tmp', 'w').write(str(os.getpid())); os.replace('pid.tmp', 'pid')"


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def test_a_job_is_told_its_request_and_where_to_write_and_answers(jobs: Jobs) -> None:
    ended = jobs.run(
        "print(json.dumps({'stage': 'rows', 'done': 1, 'total': 2}), flush=True)\n"
        "print('plain words'); print('warning', file=sys.stderr)\n"
        "print(json.dumps({'result': {'argv': sys.argv[1:], 'asked': json.load(open(sys.argv[2]))}}))"
    )
    assert ended.outcome == "DONE"
    assert ended.result is not None
    assert ended.result["asked"] == {"asked": 1}
    assert ended.result["argv"] == ["run", str(jobs.folder / ID / "request.json"), "--out", "file:///out"]
    assert jobs.seen == [Progress("rows", 1, 2)]
    assert sorted(ended.log.splitlines()) == [b"plain words", b"warning"]
    assert ended.usage.keys() == {"wall_ms", "cpu_ms", "peak_rss_bytes"}
    assert ended.usage["peak_rss_bytes"] > 1_000_000


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        ("print(json.dumps({'result': {'x': 1}})); sys.exit(3)", "BLOCKED", "exit 3"),
        ("sys.exit(2)", "USAGE", "exit 2"),
        ("sys.exit(4)", "UNAVAILABLE", "exit 4"),
        ("sys.exit(1)", "FAILED", "exit 1"),
        ("raise RuntimeError('boom')", "FAILED", "exit 1"),
        ("print('no result')", "FAILED", "exit 0 without a result"),
        ("sys.exit(3)", "FAILED", "exit 3 without a result"),
        ("print('{\"result\": 7}')", "FAILED", "exit 0 without a result"),
        ("print('{\"result\": {')", "FAILED", "exit 0 without a result"),
        ("print(json.dumps({'result': {}}), flush=True); os.kill(os.getpid(), signal.SIGKILL)", "KILLED", "signal 9"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "KILLED", "signal 11"),
    ],
)
def test_every_end_is_a_value(jobs: Jobs, code: str, outcome: str, reason: str) -> None:
    ended = jobs.run(code)
    assert (ended.outcome, ended.reason) == (outcome, reason)
    assert (ended.result is not None) == (outcome == "BLOCKED")


def test_a_job_that_hangs_is_ended_at_its_deadline(jobs: Jobs) -> None:
    ended = jobs.run("time.sleep(1000)", Limits(wall_s=1, cpu_s=60, memory_bytes=1 << 30))
    assert ended.outcome == "TIMED_OUT"


def test_a_job_that_does_not_listen_is_killed_after_the_grace(jobs: Jobs) -> None:
    limits = Limits(wall_s=1, cpu_s=60, memory_bytes=1 << 30)
    ended = jobs.run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)", limits, grace_s=0.2)
    assert ended.outcome == "TIMED_OUT"


def test_a_job_that_finishes_just_after_its_deadline_keeps_its_result(jobs: Jobs) -> None:
    """It was asked to end and ended clean with everything published: throwing that away would help nobody."""
    code = (
        "def end(*_):\n    print(json.dumps({'result': {}})); sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, end)\n{SAYS_PID}\ntime.sleep(1000)"
    )
    # The deadline comes once the job listens, however long it takes to start.
    jobs.clock = lambda: 100.0 if (jobs.folder / ID / "pid").exists() else 0.0
    assert jobs.run(code).outcome == "DONE"


def test_a_job_that_burns_cpu_is_ended(jobs: Jobs) -> None:
    ended = jobs.run("while True: pass", Limits(wall_s=60, cpu_s=1, memory_bytes=1 << 30))
    assert ended.outcome == "TIMED_OUT"
    assert "1 s of CPU" in ended.reason


def test_a_job_gets_no_more_memory_than_its_limit(jobs: Jobs) -> None:
    ended = jobs.run("bytearray(1 << 30)", Limits(wall_s=60, cpu_s=60, memory_bytes=1 << 28))
    assert ended.outcome == "FAILED"
    assert b"MemoryError" in ended.log


def test_a_cancelled_job_is_ended_and_so_is_what_it_started(jobs: Jobs) -> None:
    found: list[Ended] = []
    code = f"import subprocess\nsubprocess.Popen(['sleep', '1000'])\n{SAYS_PID}\ntime.sleep(1000)"
    thread = threading.Thread(target=lambda: found.append(jobs.run(code)))
    thread.start()
    children = jobs.pid().children()
    jobs.cancel.set()
    thread.join(30)
    assert [ended.outcome for ended in found] == ["CANCELLED"]
    assert [child.name() for child in children] == ["sleep"]
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_killed_job_runs_again_and_a_finished_one_does_not(jobs: Jobs) -> None:
    code = "n = os.path.exists('once'); open('once', 'a').write('x')\n"
    assert jobs.run(f"{code}os.kill(os.getpid(), signal.SIGKILL)").outcome == "KILLED"
    again = f"{code}print(json.dumps({{'result': {{'again': n}}}}))"
    first, second = jobs.run(again), jobs.run(again)
    assert first == second
    assert first.result == {"again": True}
    assert (jobs.folder / ID / "once").read_text() == "xx"


def test_two_runs_of_one_request_at_once_are_one_job(jobs: Jobs) -> None:
    found: list[Ended] = []
    code = (
        f"open('once', 'a').write('x'); {SAYS_PID}\n"
        "while not os.path.exists('go'): time.sleep(0.01)\nprint(json.dumps({'result': {}}))"
    )
    threads = [threading.Thread(target=lambda: found.append(jobs.run(code))) for _ in range(2)]
    for thread in threads:
        thread.start()
    jobs.pid()
    (jobs.folder / ID / "go").touch()
    for thread in threads:
        thread.join(30)
    assert [ended.outcome for ended in found] == ["DONE", "DONE"]
    assert (jobs.folder / ID / "once").read_text() == "x"


def test_a_waiting_run_can_be_cancelled(jobs: Jobs) -> None:
    thread = threading.Thread(target=lambda: jobs.run(f"{SAYS_PID}\ntime.sleep(1000)"))
    thread.start()
    job = jobs.pid()
    other = Jobs(jobs.folder)
    other.cancel.set()
    assert other.run("pass").outcome == "CANCELLED"
    assert job.is_running()
    jobs.cancel.set()
    thread.join(30)


def test_a_job_dies_with_the_process_that_runs_it(jobs: Jobs, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        jobs.run(f"{SAYS_PID}\ntime.sleep(1000)")
        os._exit(0)
    job = jobs.pid()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    psutil.wait_procs([job], timeout=10)
    assert not job.is_running() or job.status() == psutil.STATUS_ZOMBIE


def test_only_the_end_of_a_long_log_is_kept(jobs: Jobs) -> None:
    ended = jobs.run("for n in range(40_000): print('line', n)")
    assert len(ended.log) <= LOG_BYTES
    assert ended.log.endswith(b"line 39999")


@pytest.mark.parametrize("name", ["", "../up", "A" * 64, "a" * 63])
def test_a_request_id_names_no_other_folder(jobs: Jobs, name: str) -> None:
    with pytest.raises(ValueError, match="not hex64"):
        LocalRunner(jobs.folder).run(Job(name, "x", b"", "", LIMITS), jobs.seen.append, jobs.cancel.is_set)


def test_a_job_is_told_of_failpoints_and_of_the_collector_only_when_there_are_any(tmp_path: Path) -> None:
    names = ("FP_FAILPOINTS", "OTEL_EXPORTER_OTLP_ENDPOINT")
    say = f"print(json.dumps({{'result': {{n: os.environ.get(n) for n in {names}}}}}))"
    found = []
    for request_id, endpoint, failpoints in (("b" * 64, "http://h:1", "ofs.after_rows:kill:1"), ("c" * 64, None, "")):
        home = tmp_path / request_id
        home.mkdir()
        (home / "job_code.py").write_text(f"import json, os\n{say}\n")
        job = Job(request_id, "job_code", b"{}", "file:///out", LIMITS, failpoints)
        found.append(LocalRunner(tmp_path, otlp_endpoint=endpoint).run(job, lambda _: None, lambda: False).result)
    assert found == [
        {"FP_FAILPOINTS": "ofs.after_rows:kill:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:1"},
        {"FP_FAILPOINTS": None, "OTEL_EXPORTER_OTLP_ENDPOINT": None},
    ]


def test_a_job_inherits_no_settings_of_the_service() -> None:
    given = {"FP_PG_DSN": "secret", "PATH": "/bin", "AWS_REGION": "eu-west-2", "MLFLOW_TRACKING_TOKEN": "t", "X": "y"}
    found = environment(given)
    assert "FP_PG_DSN" not in found
    assert "X" not in found
    assert {name: found[name] for name in ("PATH", "AWS_REGION", "MLFLOW_TRACKING_TOKEN")} == {
        name: given[name] for name in ("PATH", "AWS_REGION", "MLFLOW_TRACKING_TOKEN")
    }
    assert orjson.dumps(found)
