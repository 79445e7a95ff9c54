"""The job as the runner starts it: arguments, progress, result, exit codes, kill and cancel."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from fp_contracts.dataset import OfsResult
from fp_ofs import __main__ as job

SECONDS = 90


def written(bench: Any, **changes: Any) -> str:
    path: Path = bench.root / "request.json"
    path.write_text(bench.request(**changes).model_dump_json())
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = job.main([*arguments])
    return code, [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def _signals_as_before() -> Any:
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def test_progress_then_result_then_exit_0_twice(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    arguments = ("run", written(bench), "--out", str(bench.root / "out"))
    code, lines = ran(capsys, *arguments)
    assert code == 0
    assert all(set(line) == {"stage", "done", "total"} and line["done"] <= line["total"] for line in lines[:-1])
    result = OfsResult.model_validate_json(orjson.dumps(lines[-1]["result"]))
    assert result.status == "PUBLISHED"
    assert {"rows", "payments", "rows_per_s", "peak_rss_bytes", "wall_ms", "cpu_ms"} <= set(result.metrics)
    code, lines = ran(capsys, *arguments)
    assert (code, lines[-1]["result"]["status"]) == (0, "ALREADY_PUBLISHED")


def test_out_may_be_a_url_and_a_dry_run_puts_nothing(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    out = (bench.root / "out").as_uri()
    code, lines = ran(capsys, "run", written(bench), "--out", out, "--dry-run")
    assert (code, lines[-1]["result"]["status"], bench.files()) == (0, "DRY_RUN", {})


def test_a_blocked_build_exits_3_with_its_blockers(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    code, lines = ran(capsys, "run", written(bench, as_of_us=kit.end_us), "--out", str(bench.root / "out"))
    assert code == 3
    assert [blocker["code"] for blocker in lines[-1]["result"]["blockers"]] == ["DFULL-RUN-B12"]


def test_usage_exits_2_with_one_line(kit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert job.main(["run", str(broken), "--out", str(tmp_path / "out")]) == 2
    assert job.main(["run", str(tmp_path / "none.json"), "--out", str(tmp_path / "out")]) == 2
    assert job.main(["run", written(bench), "--out", "ftp://somewhere"]) == 2
    assert job.main(["run", written(bench), "--out", str(broken)]) == 2
    with pytest.raises(SystemExit) as caught:
        job.main(["run"])
    assert caught.value.code == 2
    assert not (tmp_path / "out").exists()


def test_a_store_that_is_down_exits_4(kit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    nobody = {"archive_url": "s3://nowhere/run", "archive_endpoint": "http://127.0.0.1:9"}
    path = tmp_path / "request.json"
    path.write_text(bench.request().model_copy(update=nobody).model_dump_json())
    assert job.main(["run", str(path), "--out", str(tmp_path / "out")]) == 4
    assert capsys.readouterr().err.startswith("fp_ofs: evidence store s3://nowhere/run")
    assert not (tmp_path / "out").exists()


def started(bench: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fp_ofs", "run", written(bench), "--out", str(bench.root / "out")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def until(process: subprocess.Popen[bytes], stage: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if orjson.loads(line).get("stage") == stage:
            return
    raise AssertionError(f"the job ended before stage {stage}")


@pytest.mark.parametrize("stage", ["features", "publish", "rollback"])
def test_a_killed_build_ends_in_the_same_bytes(kit: Any, stage: str) -> None:
    whole, bench = kit.bench(), kit.bench()
    wanted = whole.build()
    process = started(bench)
    until(process, stage)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    again = bench.build()
    assert (again.dataset_fingerprint, again.row_digest) == (wanted.dataset_fingerprint, wanted.row_digest)
    assert bench.files() == whole.files()


def test_a_drill_kills_a_build_once_its_rows_are_put_and_the_next_run_gives_the_same_bytes(kit: Any) -> None:
    whole, bench = kit.bench(), kit.bench()
    wanted = whole.build()
    command = [sys.executable, "-m", "fp_ofs", "run", written(bench), "--out", str(bench.root / "out")]
    armed = {**os.environ, "FP_FAILPOINTS": "ofs.after_rows:kill:1"}
    killed = subprocess.run(command, env=armed, capture_output=True, check=False, timeout=SECONDS)
    assert killed.returncode == -signal.SIGKILL
    left = bench.files()
    assert any("/rows/" in key for key in left)
    assert not any(key.endswith("manifest.json") for key in left)
    again = bench.build()
    assert again.row_digest == wanted.row_digest
    assert bench.files() == whole.files()
    assert left.items() <= bench.files().items()


def test_a_result_says_what_ran_what_it_read_and_what_it_found(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = kit.bench()
    code, lines = ran(capsys, "run", written(bench), "--out", str(bench.root / "out"))
    result = OfsResult.model_validate_json(orjson.dumps(lines[-1]["result"]))
    assert code == 0
    assert result.runtime is not None
    assert (result.runtime.package, result.runtime.instance.rpartition("-")[2]) == ("fp_ofs", str(os.getpid()))
    assert 0 < sum(one.objects for one in result.inputs.values()) <= result.metrics["archive_objects"]
    assert {"fp.bus.traffic.fraud.v1", "fp.bus.rtdl.v1", "fp.bus.labels.events.v1"} <= set(result.inputs)


def test_sigterm_cancels_cleanly(kit: Any) -> None:
    bench = kit.bench()
    process = started(bench)
    until(process, "read")
    process.terminate()
    rest, _ = process.communicate(timeout=SECONDS)
    result = orjson.loads(rest.splitlines()[-1])["result"]
    assert (process.returncode, result["status"]) == (143, "CANCELLED")
    assert not any(key.endswith("manifest.json") for key in bench.files())
