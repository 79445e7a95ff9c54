"""What a learning job measures of itself, and what is read back of what it sent."""

import hashlib
import os
from pathlib import Path

import pytest

from fp_runtime import failpoint, jobrun
from fp_runtime.builds import JOBS, job_digest, lock_file
from fp_runtime.errors import UserError
from fp_runtime.telemetry import Metric
from fp_runtime.telemetry_read import NoTelemetry, open_telemetry

LINE = (
    '{"name":"fp.job.quality","unit":"1","gauge":{"dataPoints":[{"attributes":[{"key":"job","value":{"stringValue":'
    '"a-1"}},{"key":"total","value":{"intValue":"6"}}],"timeUnixNano":"9","asInt":VALUE}]}}\n'
)


def test_a_job_measures_its_own_process() -> None:
    found = jobrun.measure("fp_ofs", b"request")
    lock = lock_file()
    assert lock is not None
    assert found.environment_lock == hashlib.sha256(lock.read_bytes()).hexdigest()
    assert found.build_digest == job_digest("fp_ofs") != job_digest("fp_mf")
    assert found.instance == f"{hashlib.sha256(b'request').hexdigest()[:16]}-{os.getpid()}"
    assert found.unlocked == ()
    assert set(JOBS) == {"fp_ofs", "fp_mf"}


def test_a_distribution_of_another_version_is_named() -> None:
    lock = '[[package]]\nname = "a-b"\nversion = "1.0"\n\n[[package]]\nname = "c"\nversion = "2"\n'
    assert list(jobrun.other_versions(lock, {"a-b": "1.0", "c": "3", "own": "9"})) == ["c 3"]
    twice = lock + '\n[[package]]\nname = "c"\nversion = "3"\n'  # one per platform
    assert list(jobrun.other_versions(twice, {"c": "3"})) == []


def test_what_is_installed_is_named_as_the_lock_does() -> None:
    assert "opentelemetry-sdk" in jobrun.installed()


def test_a_failpoint_is_armed_for_the_job_and_a_wrong_one_is_refused() -> None:
    try:
        with jobrun.running("fp_ofs", b"request", {jobrun.FAILPOINTS: "ofs.after_rows:raise:1"}):
            assert failpoint.armed()
            with pytest.raises(failpoint.FailpointRaised):
                failpoint.hit(failpoint.Failpoint.OFS_AFTER_ROWS)
        with pytest.raises(UserError), jobrun.running("fp_ofs", b"", {jobrun.FAILPOINTS: "ofs.nowhere:kill:1"}):
            pass
    finally:
        failpoint.disarm()


def test_points_are_read_on_from_where_the_reader_was(tmp_path: Path) -> None:
    path = tmp_path / "otlp.ndjson"
    told = open_telemetry(path.as_uri(), (Metric.JOB_QUALITY,))
    assert told.points({}) == []
    whole = LINE.replace("VALUE", "5")
    path.write_text("Listening\n" + whole + whole.replace("fp.job.quality", "fp.gates") + whole[:40])
    (point,) = told.points({"job": "a-1"})
    assert (point.metric, point.value, dict(point.attributes), point.at_ns) == (
        "fp.job.quality", 5, {"job": "a-1", "total": 6}, 9
    )  # fmt: skip
    with path.open("a") as file:
        file.write(whole[40:] + whole.replace('"asInt":5', '"asDouble":0.5'))
    assert len(told.points({"job": "a-1"})) == 2
    assert told.points({"job": "another"}) == []
    path.write_text(LINE.replace("VALUE", "7"))  # the sink began anew
    assert [point.value for point in told.points({})] == [7]


def test_telemetry_that_cannot_be_read_back_is_said() -> None:
    assert isinstance(open_telemetry("", ()), NoTelemetry)
    assert open_telemetry("", ()).points({}) == []
    with pytest.raises(UserError, match="cannot be read back"):
        open_telemetry("https://collector", ())
