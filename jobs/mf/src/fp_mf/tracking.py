"""Where trainings are kept note of: one small port, MLflow or nothing behind it."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fp_contracts.bundle import PPM
from fp_runtime.errors import Unavailable

EXPERIMENT = "fp-mf"
REQUEST_TAG = "fp.train_request_digest"
# Before mlflow is imported: it would call home, look for git, retry for minutes, and refuse a folder as its store.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}


class Record(NamedTuple):
    """What is noted of one training; metrics in parts per million, files name -> bytes."""

    request_digest: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, int]
    files: Mapping[str, bytes]


class TrackedRun(NamedTuple):
    """Where the note stands."""

    tracker: str
    experiment: str
    run_id: str
    artifact_uri: str


class Tracker(Protocol):
    """Keeps note of trainings. The same request digest twice is one run."""

    def log(self, record: Record) -> TrackedRun:
        """Keep note; Unavailable when the store is down: then nothing of the training is published."""
        ...

    def read_back(self, run: TrackedRun) -> Mapping[str, int]:
        """The metrics of a run (ppm) as the store has them now, asked anew; Unavailable."""
        ...


def open_tracker(url: str | None) -> Tracker:
    """MLflow at `url` (http(s)://, databricks, file:///folder), or a tracker that keeps nothing."""
    return NoTracker() if url is None else MlflowTracker(url)


class NoTracker:
    """Keeps nothing, and says so."""

    def log(self, record: Record) -> TrackedRun:
        """See Tracker."""
        return TrackedRun("none", EXPERIMENT, record.request_digest, "")

    def read_back(self, run: TrackedRun) -> Mapping[str, int]:
        """See Tracker."""
        return {}


class MlflowTracker:
    """MLflow by its client, which takes seconds to import and is imported here only."""

    def __init__(self, url: str) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        self._url = url
        # Imported while the training fits, which leaves the interpreter to others: it takes seconds.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._opened = self._pool.submit(_open_client, url)

    def log(self, record: Record) -> TrackedRun:
        """See Tracker. A run cut short by a crash is found by its tag and noted over."""
        with self._asked() as client:
            return self._log(client, record)

    def read_back(self, run: TrackedRun) -> Mapping[str, int]:
        """See Tracker."""
        with self._asked() as client:
            metrics = client.get_run(run.run_id).data.metrics
        return {name: round(value * PPM) for name, value in metrics.items()}

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        client, down = self._opened.result()
        try:
            yield client
        except down as error:
            raise Unavailable(f"MLflow at {self._url}: {str(error).splitlines()[0][:200]}") from error

    def _log(self, client: Any, record: Record) -> TrackedRun:
        run = self._run(client, record)
        for key, text in record.params.items():
            client.log_param(run.info.run_id, key, text)
        for key, number in record.metrics.items():
            client.log_metric(run.info.run_id, key, number / PPM, timestamp=0, step=0)
        with tempfile.TemporaryDirectory() as folder:
            for name, body in record.files.items():
                (Path(folder) / name).write_bytes(body)
            client.log_artifacts(run.info.run_id, folder)
        client.set_terminated(run.info.run_id)
        return TrackedRun("mlflow", EXPERIMENT, run.info.run_id, run.info.artifact_uri)

    def _run(self, client: Any, record: Record) -> Any:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        found = client.search_runs([experiment_id], f"tags.`{REQUEST_TAG}` = '{record.request_digest}'", 1)
        if found:
            return found[0]
        return client.create_run(
            experiment_id, run_name=record.request_digest[:12], tags={**record.tags, REQUEST_TAG: record.request_digest}
        )


def _open_client(url: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """The client and the errors that mean the store is down; requests' errors are OSErrors."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=url), (MlflowException, OSError)
