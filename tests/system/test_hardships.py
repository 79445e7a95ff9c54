"""What goes wrong around the `fp` command: servers that die in mid-run, launchers that are killed or interrupted."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fp_operator.stack import Supervisor, SupervisorDown, down
from fp_operator.stack.strays import strays
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


@pytest.fixture
def fresh(cell: Cell) -> Cell:
    """The same folder with nothing running."""
    down(cell.folder)
    assert strays(cell.folder) == []
    return cell


def has_begun(cell: Cell, program: str) -> bool:
    """Whether the supervisor has a process for it."""
    try:
        return Supervisor(cell.folder).pid(program) is not None
    except SupervisorDown:
        return False


@pytest.mark.parametrize("stage", ["kafka", "df-0"])
@pytest.mark.parametrize("verb", [("up",), ("demo", "--scope", "spine", "--world", "tiny")])
def test_a_launcher_killed_before_all_is_ready_leaves_nothing(fresh: Cell, verb: tuple[str, ...], stage: str) -> None:
    with fresh.start(*verb) as launcher:
        until(lambda: has_begun(fresh, stage), 60, f"{stage} is being started")
        launcher.kill()
    until(lambda: strays(fresh.folder) == [], 60, "nothing of the stack is left")


@pytest.mark.parametrize("stage", ["kafka", "df-0"])
def test_an_interrupted_launcher_leaves_nothing_and_says_so(fresh: Cell, stage: str) -> None:
    with fresh.start("up") as launcher:
        until(lambda: has_begun(fresh, stage), 60, f"{stage} is being started")
        launcher.send_signal(signal.SIGINT)
        code = launcher.wait(60)
    said = fresh.said.read_text()
    assert (code, "Traceback" in said) == (130, False)
    assert "stack              stopped" in said
    assert "nothing of it is left running" in said
    assert strays(fresh.folder) == []


def test_what_is_ready_outlives_its_launcher_and_an_interrupted_second_one(fresh: Cell) -> None:
    assert fresh.fp("up").returncode == 0
    before = {name: state.pid for name, state in Supervisor(fresh.folder).states().items()}
    with fresh.start("up") as again:
        until(lambda: "P(-1)" in fresh.said.read_text(), 60, "it is under way")
        again.send_signal(signal.SIGINT)
        code = again.wait(60)
    assert (code, "goes on" in fresh.said.read_text()) == (130, True)
    assert {name: state.pid for name, state in Supervisor(fresh.folder).states().items()} == before


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


@pytest.fixture(scope="module")
def torn_down(cell: Cell) -> Cell:
    """A run with a verdict, and everything stopped by `fp down`."""
    assert cell.fp("up").returncode == 0
    cell.fp("run", "--world", "tiny", "--no-drill")
    assert cell.fp("down").returncode == 0
    return cell


def evidence_of(cell: Cell) -> dict[str, bytes]:
    """Every object of the evidence store."""
    root = cell.folder / "evidence"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("words", [("status",), ("why",), ("cost",), ("watch",), ("models", "list")])
def test_a_verb_that_reads_stops_the_servers_it_had_to_start(torn_down: Cell, words: tuple[str, ...]) -> None:
    before = evidence_of(torn_down)
    done = torn_down.fp(*words)
    assert done.returncode == (3 if words == ("watch",) else 0), done.stderr
    assert done.stderr.count("servers started to read; stopped again") == 1
    assert "stopped again" not in done.stdout
    assert strays(torn_down.folder) == []
    assert evidence_of(torn_down) == before
    assert torn_down.fp("doctor").returncode == 4


def test_a_verb_that_is_killed_while_it_reads_leaves_nothing(torn_down: Cell) -> None:
    with torn_down.start("status") as reader:
        until(lambda: has_begun(torn_down, "postgres"), 60, "it starts the servers")
        reader.kill()
    until(lambda: strays(torn_down.folder) == [], 60, "nothing is left")


def test_a_verb_that_reads_leaves_servers_alone_that_ran(fresh: Cell) -> None:
    assert fresh.fp("up").returncode == 0
    before = {name: state.pid for name, state in Supervisor(fresh.folder).states().items()}
    done = fresh.fp("models", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: state.pid for name, state in Supervisor(fresh.folder).states().items()} == before
