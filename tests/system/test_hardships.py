"""What goes wrong around the `fp` command: servers that die in mid-run, launchers that are killed or interrupted."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fp_operator.stack import Supervisor, down
from fp_runtime.deadline import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

FP = str(Path(sys.executable).with_name("fp"))


@dataclass(frozen=True)
class Cell:
    """One state folder and the command against it."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FP_") or key == "FP_REVISION"}
        return {**kept, "FP_STATE_DIR": str(self.folder)}

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """`fp …` under way; what it says goes to `said`."""
        said = self.said.open("w")
        try:
            return subprocess.Popen([FP, *words], env=self.env, stdout=said, stderr=said, text=True)
        finally:
            said.close()

    @property
    def said(self) -> Path:
        return self.folder / "said"

    def fp(self, *words: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([FP, *words], env=self.env, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    """A state folder for all tests here; whatever runs in it is ended."""
    with tempfile.TemporaryDirectory(prefix="fp-hard-") as name:
        Path(name).chmod(0o755)
        try:
            yield Cell(Path(name))
        finally:
            down(Path(name))


@pytest.mark.parametrize("server", ["postgres", "kafka"])
def test_a_server_killed_in_mid_run_does_not_end_the_watch(cell: Cell, server: str) -> None:
    assert cell.fp("up").returncode == 0
    supervisor = Supervisor(cell.folder)
    with cell.start("run", "--world", "tiny") as running:
        until(lambda: " lines" in cell.said.read_text() or running.poll() is not None, 120, "the stream flows")
        killed = supervisor.pid(server)
        supervisor.signal(server, "KILL")
        until(lambda: supervisor.pid(server) not in (None, killed), 60, f"a new {server}")
        code = running.wait(300)
    said = cell.said.read_text()
    assert "Traceback" not in said
    assert code == 0, said
    assert said.count("does not answer") <= 1
    assert ("PostgreSQL does not answer" in said) == (server == "postgres")
