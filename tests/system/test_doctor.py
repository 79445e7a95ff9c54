"""`fp doctor` on a supervisor whose programs are missing, stopped, or ending again and again."""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fp_operator import doctor
from fp_operator.doctor import Finding
from fp_operator.stack import Program, Supervisor
from fp_operator.stack.complaints import ended_lately
from fp_runtime.deadline import until

ENDS = "import sys, time; time.sleep(1.2); sys.exit('ValueError: no such lane')"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """One that knows three programs, none started."""
    programs = [
        Program("rtdl-0", (sys.executable, "-c", ENDS)),
        Program("df-0", ("sleep", "1000")),
        Program("rehearsal", ("sleep", "1.5"), autorestart="never", start_retries=0),
    ]
    with tempfile.TemporaryDirectory(prefix="fp-doc-") as name:
        made = Supervisor(Path(name))
        made.launch("services", programs, die_with_caller=True)
        yield made
        made.shutdown()


def found(supervisor: Supervisor) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor.programs(supervisor.state_dir, {})}


def test_a_program_that_was_never_started_here_is_a_fault(supervisor: Supervisor) -> None:
    findings = found(supervisor)
    for name in ("program kafka", "program telemetry", "program wsp-0", "program meter-0", "program actuator"):
        assert (findings[name].fault, findings[name].fix) == ("not started", "fp up")
    assert findings["program df-0"].fault == "STOPPED"


def test_a_server_that_is_elsewhere_is_not_missed(supervisor: Supervisor) -> None:
    elsewhere = {"kafka_bootstrap": "x:1", "otlp_endpoint": "http://x"}
    names = {finding.what for finding in doctor.programs(supervisor.state_dir, elsewhere)}
    assert names & {"program kafka", "program telemetry", "program valkey"} == {"program valkey"}


def test_one_that_ends_again_and_again_is_a_fault_with_its_last_words(supervisor: Supervisor) -> None:
    log = supervisor.logs / "supervisord.log"
    supervisor.start("rtdl-0")
    until(lambda: ended_lately(log, time.time())["rtdl-0"] >= doctor.OFTEN, 60, "it ended often")
    fault = found(supervisor)["program rtdl-0"].fault or ""
    assert "times in the last 10 minutes; its log says: ValueError: no such lane" in fault


def test_a_rehearsal_that_is_over_is_no_fault(supervisor: Supervisor) -> None:
    supervisor.start("rehearsal")
    until(lambda: supervisor.states()["rehearsal"].state == "EXITED", 20, "it is over")
    assert found(supervisor)["program rehearsal"].fault is None


def test_when_nothing_runs_that_is_one_fault(tmp_path: Path) -> None:
    (finding,) = doctor.programs(tmp_path, {})
    assert finding.fault == "none answers: no server and no service runs"
