"""The tracker against a real MLflow server, which lives in an environment of its own: `make test-mlflow`."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fp_contracts.canonical import parse_strict
from fp_mf import sample
from fp_mf.job import Places, run
from fp_mf.progress import silent
from fp_mf.tracking import open_tracker
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import FileStore

SERVER = os.environ.get("FP_MLFLOW_COMMAND")
START_S = 400.0  # it imports and migrates for minutes on a busy machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason="FP_MLFLOW_COMMAND names no mlflow: run make test-mlflow"),
]


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server on SQLite with its artifacts in `folder`."""
    url = f"http://127.0.0.1:{port}"
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with subprocess.Popen([str(SERVER), *arguments, *stores], env=environment, start_new_session=True) as process:
        try:
            wait_for(url, process)
            yield url
        finally:
            os.killpg(process.pid, 15)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline, transport = time.monotonic() + START_S, httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=transport) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                continue
    raise AssertionError("the MLflow server did not come up")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(600)
def test_a_training_is_kept_by_a_real_server_and_one_that_is_down_publishes_nothing(tmp_path: Path) -> None:
    store, port = FileStore(tmp_path / "store"), free_port()
    request = sample.request(sample.put_dataset(store))

    def places(url: str, out: str) -> Places:
        return Places(store, store, FileStore(tmp_path / out), open_tracker(url))

    with server(tmp_path, port) as url:
        first, second = (run(request, places(url, out), silent) for out in ("one", "two"))
        assert first.status == second.status == "TRAINED"
        assert first.mlflow_refs == second.mlflow_refs
        assert first.mlflow_refs is not None
        refs: Any = parse_strict(FileStore(tmp_path / "one").get(first.mlflow_refs.key))
        told = httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": refs["run_id"]}).json()["run"]
        assert told["info"]["status"] == "FINISHED"
        numbers = {metric["key"]: metric["value"] for metric in told["data"]["metrics"]}
        assert first.summary is not None
        assert round(numbers["candidate_average_precision"] * 1e6) == first.summary.candidate.average_precision_ppm
        files = httpx.get(f"{url}/api/2.0/mlflow/artifacts/list", params={"run_id": refs["run_id"]}).json()["files"]
        assert {"eval_report.json", "curves.png"} <= {file["path"] for file in files}
    with pytest.raises(Unavailable, match="MLflow at"):
        run(request, places(url, "three"), silent)
    assert not [stored.key for stored in FileStore(tmp_path / "three").list("") if "result" in stored.key]
