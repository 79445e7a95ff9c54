"""One demo at a time in a state folder, whatever became of the one before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fp_operator.cli.demo import alone
from fp_runtime.errors import UserError


def test_a_second_demo_in_a_folder_is_refused_and_another_folder_is_free(tmp_path: Path) -> None:
    first, other, second = alone(tmp_path / "one"), alone(tmp_path / "two"), alone(tmp_path / "one")
    with first, other, pytest.raises(UserError, match="another one runs"), second:
        pytest.fail("two demos in one folder")
    with alone(tmp_path / "one"):
        pass


def test_a_killed_demo_holds_nothing(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib; from fp_operator.cli.demo import alone\n"
        f"with alone(pathlib.Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    with alone(tmp_path):
        assert os.listdir(tmp_path) == ["demo.lock"]
