"""A call in a process beside this one: its answer, its failure, and that nothing of it stays."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fp_runtime.beside import Beside, BesideFailed
from fp_runtime.deadline import until


def asked(beside: Beside, *args: Any) -> Any:
    beside.begin(*args)
    return beside.answer()


def test_it_answers_with_what_the_call_gives() -> None:
    with Beside("math:hypot") as beside:
        beside.begin(3.0, 4.0)
        assert beside.answer() == math.hypot(3.0, 4.0)


def test_a_call_that_raises_is_a_failure() -> None:
    with Beside("math:sqrt") as beside:
        beside.begin(-1.0)
        with pytest.raises(BesideFailed, match="math:sqrt"):
            beside.answer()


def test_a_target_that_is_not_there_is_a_failure() -> None:
    with Beside("math:nothing") as beside, pytest.raises(BesideFailed):
        asked(beside, b"x" * 2**20)


def test_what_a_library_prints_is_no_part_of_the_answer() -> None:
    with Beside("builtins:print") as beside:
        beside.begin("to whom it may concern")
        assert beside.answer() is None


def test_one_that_is_never_asked_ends_with_the_context() -> None:
    with Beside("math:hypot") as beside:
        pid = beside._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_when_the_asking_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal; from fp_runtime.beside import Beside; found = Beside('math:hypot'); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(found._process.pid)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not _runs(pid) or None, 30, "the process beside is gone")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
