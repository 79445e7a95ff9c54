"""Drills of learning jobs, and telemetry that is read back: what the gates carry as evidence for the proof cells."""

from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.jobrun import PARITY_MEASURES, QUALITY_MEASURES
from fp_ofs_trigger import executor, seen
from fp_ofs_trigger.runners import Ended
from fp_runtime.bus import BusBroken, Producer
from fp_runtime.telemetry import Metric
from fp_runtime.telemetry_read import Point

from .conftest import LOCK, RELEASE_KEY, Lane, digest

JOB = "0123456789abcdef-7"
DRILLS = {
    phase: c.DrillRequested(drill_id=str(n) * 32, instance=job, failpoint=f"{at}:kill:1", actor="ana")
    for n, (phase, job, at) in enumerate((("P13", "fp_ofs", "ofs.after_rows"), ("P14", "fp_mf", "mf.after_fit")), 1)
}


def runtime(package: str, **changed: Any) -> dict[str, Any]:
    found = {"package": package, "instance": JOB, "build_digest": digest("code"), "environment_lock": LOCK,
             "unlocked": [], "python": "3.11.7"}  # fmt: skip
    return {**found, **changed}


@pytest.mark.parametrize(("phase", "document"), [("P13", "fingerprint"), ("P14", "eval_report")])
def test_a_drilled_job_is_killed_once_and_run_again_at_once(lane: Lane, phase: str, document: str) -> None:
    lane.tell(*DRILLS.values())
    lane.through(phase)
    before = list(lane.acted.ran)
    assert lane.close(phase) == "PASS"
    assert lane.acted.ran == [*before, phase, phase]
    ended = lane.evidence_of(phase, document)["job"]["ended"]
    killed = ended["killed"]
    assert (killed["drill_id"], killed["outcome"], killed["reason"]) == (DRILLS[phase].drill_id, "KILLED", "signal 9")
    assert (killed["stage"], killed["done"], killed["total"]) == ("publish", 1, 3)
    assert [ref["key"].rpartition("/")[2] for ref in killed["left"]] == [
        {"P13": "00000.parquet", "P14": "candidate.json"}[phase]
    ]
    assert killed["started_us"] < killed["killed_us"] < killed["restarted_us"] < ended["ended_us"]
    assert ended["outcome"] == "DONE"


def test_a_drill_is_told_on_the_control_log_once_its_job_has_ended(lane: Lane) -> None:
    lane.tell(*DRILLS.values())
    assert lane.desk.react(lane.state) == []
    lane.through("P14")
    (told,) = [event for event, _ in lane.desk.react(lane.state)]
    ended = lane.evidence_of("P13", "fingerprint")["job"]["ended"]
    assert isinstance(told, c.DrillReported)
    assert (told.instance, told.killed_us) == ("fp_ofs", ended["killed"]["killed_us"])
    assert (told.recovered_us, told.lag_at_restart) == (ended["ended_us"], 2)
    lane.tell(told)
    assert lane.desk.react(lane.state) == []


def test_without_a_drill_no_job_is_killed(lane: Lane) -> None:
    lane.through("P15")
    assert lane.acted.ran == ["P12", "P13", "P14"]
    assert lane.evidence_of("P13", "fingerprint")["job"]["ended"]["killed"] is None
    assert lane.desk.react(lane.state) == []


def test_an_end_that_cannot_be_published_ends_the_process(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(producer: Producer, *_: object) -> None:
        raise BusBroken("another producer fenced this one")

    lane.through("P13")
    lane.waiting.clear()
    monkeypatch.setattr(executor, "publish", broken)
    lane.turn("P13")
    with pytest.raises(BusBroken):
        lane.executor.check()


def test_a_job_that_ends_before_its_failpoint_was_not_drilled(lane: Lane) -> None:
    lane.tell(DRILLS["P13"])
    lane.through("P13")
    lane.acted.end["P13"] = Ended("FAILED", "why", None, b"", "acted", {})
    assert lane.close("P13") == "BLOCKED"
    assert lane.acted.ran == ["P12", "P13"]
    assert lane.desk.react(lane.state) == []


def test_a_second_run_that_fails_too_blocks_and_says_that_one_was_killed(lane: Lane) -> None:
    lane.tell(DRILLS["P13"])
    lane.through("P13")
    lane.acted.change["result"] = lambda found: found.update(status="BLOCKED")
    assert lane.close("P13") == "BLOCKED"
    assert lane.evidence_of("P13", "fingerprint")["job"]["ended"]["killed"]["drill_id"] == DRILLS["P13"].drill_id


# --- the environment that a training ran with ---


def test_a_training_is_asked_for_with_the_lock_of_the_pinned_release(lane: Lane) -> None:
    lane.through("P15")
    assert lane.evidence_of("P14", "eval_report")["request"]["environment_lock_digest"] == LOCK


def test_a_release_that_does_not_read_back_asks_for_no_training(lane: Lane) -> None:
    lane.through("P14")
    lane.evidence.objects[RELEASE_KEY] += b" "
    assert lane.close("P14") == "BLOCKED"
    assert "the pinned release does not name its lock file" in lane.blockers("P14")[0]
    assert lane.acted.ran == ["P12", "P13"]


@pytest.mark.parametrize(("lock", "state"), [(LOCK, "PASS"), (digest("another"), "BLOCKED")])
def test_a_training_in_another_environment_blocks(lane: Lane, lock: str, state: str) -> None:
    lane.through("P14")
    lane.acted.change["result"] = lambda found: found.update(runtime=runtime("fp_mf", environment_lock=lock))
    assert lane.close("P14") == state
    if state == "BLOCKED":
        assert lane.blockers("P14")[0].startswith("DFULL-RUN-B14 environment lock of the job")


# --- telemetry of the build ---


def measures(names: tuple[str, ...]) -> list[Point]:
    return [Point(Metric.JOB_QUALITY.value, 5, {"job": JOB, "measure": name}, 1) for name in names]


def build_with_telemetry(lane: Lane, points: list[Point]) -> None:
    lane.through("P13")
    lane.acted.change["result"] = lambda found: found.update(runtime=runtime("fp_ofs"))
    lane.telemetry.source, lane.telemetry.sent = "sink", points


def test_what_the_build_sent_is_evidence_as_it_reads_back(lane: Lane) -> None:
    stranger = Point(Metric.JOB_QUALITY.value, 9, {"job": "another-1", "measure": "rows"}, 1)
    build_with_telemetry(lane, [*measures((*QUALITY_MEASURES, *PARITY_MEASURES)), stranger])
    assert lane.close("P13") == "PASS"
    shown = lane.evidence_of("P13", "telemetry")
    assert (shown["source"], shown["subject"], shown["missing"]) == ("sink", JOB, [])
    assert len(shown["points"]) == len(QUALITY_MEASURES) + len(PARITY_MEASURES)


def test_the_gate_waits_for_telemetry_that_is_late_and_then_goes_on_without_it(lane: Lane) -> None:
    build_with_telemetry(lane, measures(QUALITY_MEASURES))
    assert lane.close("P13") == "OPEN"
    assert lane.waiting["P13"] == ["telemetry read back"]
    lane.clock_us += seen.GRACE_US
    assert lane.close("P13") == "PASS"
    assert lane.evidence_of("P13", "telemetry")["missing"] == list(PARITY_MEASURES)
