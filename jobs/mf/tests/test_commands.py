"""The job as a process: exit codes, progress, cancel; the same training in SageMaker's script mode."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fp_contracts.bundle import CANDIDATE, MfResult, TrainJob, candidate_note, training_key
from fp_mf import sample, train
from fp_mf.tracking import MlflowTracker, NoTracker, Record, open_tracker
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import FileStore

DOWN = "http://127.0.0.1:9"


def job_file(folder: Path, store: Path, request: Any, **places: str) -> Path:
    job = TrainJob(request=request, dataset_url=store.as_uri(), **places)
    path = folder / "request.json"
    path.write_text(job.model_dump_json())
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fp_mf", *map(str, arguments)]


def ran(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_run_tells_its_progress_and_last_its_result(published: Any, tmp_path: Path) -> None:
    code, lines, _ = ran("run", job_file(tmp_path, published.root, published.request), "--out", tmp_path / "out")
    assert code == 0
    assert {line["stage"] for line in lines[:-1]} == {"read", "fit", "shuffle", "publish"}
    assert all(0 <= line["done"] <= line["total"] for line in lines[:-1])
    result = MfResult.model_validate_json(json.dumps(lines[-1]["result"]))
    assert result.status == "TRAINED"
    assert result.bundle == published.result.bundle
    assert {"wall_ms", "cpu_ms", "peak_rss_bytes"} < set(result.metrics)


def test_a_drill_kills_a_training_once_it_has_fitted_and_the_next_run_gives_the_same_bundle(
    published: Any, tmp_path: Path
) -> None:
    path, out = job_file(tmp_path, published.root, published.request), FileStore(tmp_path / "out")
    armed = {**os.environ, "FP_FAILPOINTS": "mf.after_fit:kill:1"}
    killed = subprocess.run(
        command("run", path, "--out", tmp_path / "out"), env=armed, capture_output=True, timeout=110, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    note = training_key(published.request.digest, CANDIDATE)
    assert [stored.key for stored in out.list("")] == [note]
    code, lines, _ = ran("run", path, "--out", tmp_path / "out")
    result = MfResult.model_validate_json(json.dumps(lines[-1]["result"]))
    assert (code, result.bundle) == (0, published.result.bundle)
    assert result.runtime is not None
    assert result.runtime.package == "fp_mf"
    assert result.bundle is not None
    bundle = json.loads(out.get(result.bundle.manifest.key))
    assert json.loads(out.get(note)) == candidate_note(published.request.digest, bundle["model_sha256"])


def test_a_dry_run_writes_nothing(published: Any, tmp_path: Path) -> None:
    path = job_file(tmp_path, published.root, published.request)
    code, lines, _ = ran("run", path.as_uri(), "--out", (tmp_path / "out").as_uri(), "--dry-run")
    assert (code, lines[-1]["result"]["status"]) == (0, "DRY_RUN")
    assert not (tmp_path / "out").exists()


def test_a_blocked_run_exits_3_with_its_blockers(published: Any, tmp_path: Path) -> None:
    request = published.request.model_copy(update={"feature_schema_digest": "00" * 32})
    code, lines, _ = ran("run", job_file(tmp_path, published.root, request), "--out", tmp_path / "out")
    assert code == 3
    assert lines[-1]["result"]["blockers"][0]["code"] == "DFULL-RUN-B14"


@pytest.mark.parametrize("body", ["", "{}", '{"request": 3}'])
def test_a_request_that_is_none_exits_2_with_one_line(body: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(body)
    code, lines, told = ran("run", tmp_path / "request.json", "--out", tmp_path / "out")
    assert (code, lines) == (2, [])
    assert told.startswith("fp_mf: ")


def test_a_request_that_is_not_there_exits_2(tmp_path: Path) -> None:
    assert ran("run", tmp_path / "none.json", "--out", tmp_path)[0] == 2
    assert ran("run", (tmp_path / "none.json").as_uri(), "--out", tmp_path)[0] == 2


def test_mlflow_that_is_down_exits_4_and_nothing_can_be_promoted(published: Any, tmp_path: Path) -> None:
    path = job_file(tmp_path, published.root, published.request, tracking_url=DOWN)
    code, _, told = ran("run", path, "--out", tmp_path / "out")
    assert code == 4
    assert told.startswith(f"fp_mf: MLflow at {DOWN}")
    out = FileStore(tmp_path / "out")
    assert not [stored.key for stored in out.list("bundles/")]
    assert not [stored.key for stored in out.list("training/") if stored.key.endswith("result.json")]


def test_a_job_has_one_blas_thread_so_that_a_memory_limit_cannot_hang_it() -> None:
    program = (
        "import json, threadpoolctl, fp_mf.job\n"
        "print(json.dumps([it['num_threads'] for it in threadpoolctl.threadpool_info() if 'blas' in it['user_api']]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=True, env=environment
    )
    threads = json.loads(told.stdout)
    assert threads
    assert set(threads) == {1}


def test_a_cancelled_run_says_so_and_leaves_no_result(published: Any, tmp_path: Path) -> None:
    path = job_file(tmp_path, published.root, published.request)
    with subprocess.Popen(
        command("run", path, "--out", tmp_path / "out"), stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        process.send_signal(signal.SIGTERM)
        lines = process.stdout.readlines()
        assert process.wait(100) == 143
    assert json.loads(lines[-1])["result"]["status"] == "CANCELLED"
    assert not list((tmp_path / "out").rglob("result.json"))


def environment(published: Any, tmp_path: Path, request: Any) -> dict[str, str]:
    """Folders as SageMaker names them; the channel is a copy of the dataset's own folder."""
    return {
        "SM_CHANNEL_TRAIN": str(next((published.root / "datasets").iterdir())),
        "SM_HPS": json.dumps({"request": request.model_dump_json()}),
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DATA_DIR": str(tmp_path / "output"),
    }


def test_script_mode_gives_the_same_bundle(published: Any, tmp_path: Path) -> None:
    assert train.main(environment(published, tmp_path, published.request), threading.Event()) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert made == {path.name: path.read_bytes() for path in published.bundle_folder.iterdir()}
    assert (tmp_path / "output" / "eval_report.json").exists()


def test_script_mode_leaves_no_model_when_blocked(published: Any, tmp_path: Path) -> None:
    request = published.request.model_copy(update={"feature_schema_digest": "00" * 32})
    assert train.main(environment(published, tmp_path, request), threading.Event()) == 3
    assert not (tmp_path / "model").exists()


RECORD = Record("ab" * 32, {"fp.run": sample.RUN}, {"seed": "7"}, {"ap": 500_001}, {"report.json": b"{}"})


def test_mlflow_keeps_a_training_once(tmp_path: Path) -> None:
    tracker = open_tracker((tmp_path / "mlruns").as_uri())
    assert isinstance(tracker, MlflowTracker)
    first = tracker.log(RECORD)
    assert tracker.log(RECORD) == first
    other = tracker.log(RECORD._replace(request_digest="cd" * 32))
    assert other.run_id != first.run_id
    assert other.experiment == first.experiment == "fp-mf"
    assert (Path(first.artifact_uri.removeprefix("file://")) / "report.json").read_bytes() == b"{}"
    assert tracker.read_back(first) == {"ap": 500_001}


def test_mlflow_that_is_down_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="MLflow at"):
        open_tracker(DOWN).log(RECORD)


def test_no_tracker_says_that_it_keeps_nothing() -> None:
    assert isinstance(open_tracker(None), NoTracker)
    kept = open_tracker(None).log(RECORD)
    assert (kept.tracker, open_tracker(None).read_back(kept)) == ("none", {})
