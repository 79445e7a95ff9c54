"""The exec wrapper on real processes: nothing outlives its parent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fp_operator.stack.program import TETHER
from fp_runtime.deadline import until

TETHERED = [sys.executable, "-I", "-S", str(TETHER)]
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def ended() -> Iterator[list[psutil.Process]]:
    """Processes that a failed test may have left: ended here."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        if process.is_running():
            process.kill()


def test_a_program_dies_with_its_killed_parent(ended: list[psutil.Process]) -> None:
    command = [*TETHERED, "--death-signal", "TERM", "--", "sleep", "1000"]
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        ended.append(child)
        until(lambda: child.name() == "sleep", 10, "the tether became the program")
        assert child.is_running()
        parent.kill()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10, "the program is gone")


def test_without_a_death_signal_it_lives_on(ended: list[psutil.Process]) -> None:
    command = [*TETHERED, "--", "sleep", "1000"]
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        ended.append(child)
        until(lambda: child.name() == "sleep", 10, "the tether became the program")
        parent.kill()
        parent.wait()
        assert child.is_running()


def test_the_environment_comes_from_the_file_and_carries_the_mark(tmp_path: Path) -> None:
    variables = tmp_path / "env.json"
    variables.write_text(json.dumps({"FP_PG_DSN": "secret", "PATH": "/nowhere"}))
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    command = [*TETHERED, "--env", str(variables), "--mark", "/state", "--", sys.executable, "-c", show]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (found["FP_PG_DSN"], found["FP_STACK_MEMBER"], found["PATH"]) == ("secret", "/state", "/nowhere")


def test_a_supervised_program_needs_its_supervisor() -> None:
    orphan = {**os.environ, "FP_SUPERVISOR_PID": "1"}
    command = [*TETHERED, "--supervised", "--", "true"]
    done = subprocess.run(command, env=orphan, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the supervisor is gone" in done.stderr
    ours = {**os.environ, "FP_SUPERVISOR_PID": str(os.getpid())}
    assert subprocess.run(command, env=ours).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another account")
def test_a_change_of_account_keeps_the_tether(ended: list[psutil.Process]) -> None:
    # Not INT: a shell's background job, and all it starts, ignores that.
    command = [*TETHERED, "--user", "65534:65534", "--death-signal", "TERM", "--", "sleep", "1000"]
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        ended.append(child)
        until(lambda: child.name() == "sleep", 10, "the tether became the program")
        assert (child.uids().effective, child.gids().effective) == (65534, 65534)
        parent.send_signal(signal.SIGKILL)
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10, "the program is gone")
