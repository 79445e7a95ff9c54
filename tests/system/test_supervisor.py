"""The supervisor with programs that cost nothing: sets of programs, restarts, signals, failures."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fp_operator.stack import Program, Supervisor, SupervisorDown
from fp_operator.stack.strays import end_strays, strays
from fp_runtime.deadline import until

SLEEPER = Program("rtdl-0", ("sleep", "1000"), env={"FP_INSTANCE": "rtdl-0"})
OTHER = Program("df-0", ("sleep", "1001"))


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor that knows the set "servers" of one sleeper, not started."""
    with tempfile.TemporaryDirectory(prefix="fp-sup-") as name:
        made = Supervisor(Path(name))
        made.launch("servers", [Program("base", ("sleep", "1002"))], die_with_caller=True)
        yield made
        if made.alive():
            made.shutdown()


def state(supervisor: Supervisor, name: str) -> str:
    return supervisor.states()[name].state


def test_a_set_of_programs_is_replaced_and_other_sets_are_left_alone(supervisor: Supervisor) -> None:
    supervisor.start("base")
    base = supervisor.pid("base")
    supervisor.update("services", [SLEEPER, OTHER])
    assert state(supervisor, "rtdl-0") == "STOPPED"
    supervisor.start("rtdl-0")
    supervisor.start("df-0")
    supervisor.start("df-0")  # runs already: no error
    first, kept = supervisor.pid("rtdl-0"), supervisor.pid("df-0")

    supervisor.update("services", [replace(SLEEPER, env={"FP_INSTANCE": "changed"}), OTHER])
    assert supervisor.pid("rtdl-0") not in (None, first)
    assert supervisor.pid("df-0") == kept

    supervisor.update("services", [OTHER])
    assert set(supervisor.states()) == {"base", "df-0"}
    assert supervisor.pid("base") == base


def test_one_that_begins_with_no_program_takes_services_later() -> None:
    """As where all servers are elsewhere."""
    with tempfile.TemporaryDirectory(prefix="fp-sup-") as name:
        bare = Supervisor(Path(name))
        bare.launch("services", [], die_with_caller=True)
        assert bare.states() == {}
        bare.update("services", [SLEEPER])
        bare.start("rtdl-0")
        assert bare.pid("rtdl-0") is not None
        bare.shutdown()


def test_a_killed_program_comes_back_and_a_stopped_one_does_not(supervisor: Supervisor) -> None:
    supervisor.update("services", [SLEEPER, replace(OTHER, autorestart="never")])
    for name in ("rtdl-0", "df-0"):
        supervisor.start(name)
        until(lambda name=name: state(supervisor, name) == "RUNNING", 10, f"{name} runs")  # type: ignore[misc]
    killed = supervisor.pid("rtdl-0")
    supervisor.signal("rtdl-0", "KILL")
    supervisor.signal("df-0", "KILL")
    until(lambda: supervisor.pid("rtdl-0") not in (None, killed), 20, "it was restarted")
    until(lambda: state(supervisor, "df-0") == "EXITED", 20, "it stayed down")

    supervisor.stop("rtdl-0")
    supervisor.stop("rtdl-0")  # stopped already: no error
    assert (state(supervisor, "rtdl-0"), supervisor.pid("rtdl-0")) == ("STOPPED", None)


def test_a_program_that_cannot_start_ends_as_fatal_with_its_words_in_the_log(supervisor: Supervisor) -> None:
    broken = Program("broken", (sys.executable, "-c", "import sys; sys.exit('no luck')"), start_retries=1)
    supervisor.update("services", [broken])
    supervisor.start("broken")
    until(lambda: state(supervisor, "broken") == "FATAL", 30, "the supervisor gives up")
    assert "no luck" in (supervisor.logs / "broken.log").read_text()


def test_a_program_stopped_right_after_its_start_stops_at_once(supervisor: Supervisor) -> None:
    supervisor.start("base")
    began = time.monotonic()
    supervisor.stop("base")
    assert time.monotonic() - began < 10  # else it was deaf and killed after its 15 s


def test_services_stop_before_servers(supervisor: Supervisor) -> None:
    say = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(99)"
    programs = [
        Program(name, (sys.executable, "-c", say), priority=p) for name, p in (("service", 500), ("server", 100))
    ]
    supervisor.update("services", programs)
    for program in programs:
        supervisor.start(program.name)
        log = supervisor.logs / f"{program.name}.log"
        until(lambda log=log: log.exists() and "up" in log.read_text(), 10, "it listens to signals")  # type: ignore[misc]
    supervisor.shutdown()
    lines = (supervisor.logs / "supervisord.log").read_text()
    assert lines.index("stopped: service") < lines.index("stopped: server (")


def test_a_deaf_program_without_a_supervisor_is_swept_away(supervisor: Supervisor) -> None:
    deaf = Program("deaf", ("sh", "-c", "trap '' TERM HUP; echo deaf; while true; do sleep 1000; done"))
    supervisor.update("services", [deaf])
    supervisor.start("deaf")
    log = supervisor.logs / "deaf.log"
    until(lambda: log.exists() and "deaf" in log.read_text(), 10, "it hears nothing any more")
    supervisor.start("base")
    os.kill(int((supervisor.folder / "supervisord.pid").read_text()), signal.SIGKILL)
    until(lambda: {process.name() for process in strays(supervisor.state_dir)} == {"sh", "sleep"}, 20, "the deaf stay")

    end_strays(supervisor.state_dir, grace_s=0.5)
    assert strays(supervisor.state_dir) == []


def test_without_a_supervisor_there_is_one_line(tmp_path: Path) -> None:
    nobody = Supervisor(tmp_path)
    assert not nobody.alive()
    with pytest.raises(SupervisorDown, match=r"does not answer: .* Fix: run `fp up`"):
        nobody.states()
