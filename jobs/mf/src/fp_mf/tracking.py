"""Where trainings are kept note of: one small port, MLflow or nothing behind it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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
    """What is noted of one training; metrics are plain numbers, files name -> bytes."""

    request_digest: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
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


def open_tracker(url: str | None) -> Tracker:
    """MLflow at `url` (http(s)://, databricks, file:///folder), or a tracker that keeps nothing."""
    return NoTracker() if url is None else MlflowTracker(url)


class NoTracker:
    """Keeps nothing, and says so."""

    def log(self, record: Record) -> TrackedRun:
        """See Tracker."""
        return TrackedRun("none", EXPERIMENT, record.request_digest, "")


class MlflowTracker:
    """MLflow by its client, which takes seconds to import and is imported here only."""

    def __init__(self, url: str) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._down = (MlflowException, OSError)  # requests' errors are OSErrors
        self._url = url
        self._client: Any = MlflowClient(tracking_uri=url)

    def log(self, record: Record) -> TrackedRun:
        """See Tracker. A run cut short by a crash is found by its tag and noted over."""
        try:
            return self._log(record)
        except self._down as error:
            raise Unavailable(f"MLflow at {self._url}: {str(error).splitlines()[0][:200]}") from error

    def _log(self, record: Record) -> TrackedRun:
        run = self._run(record)
        for key, text in record.params.items():
            self._client.log_param(run.info.run_id, key, text)
        for key, number in record.metrics.items():
            self._client.log_metric(run.info.run_id, key, number, timestamp=0, step=0)
        with tempfile.TemporaryDirectory() as folder:
            for name, body in record.files.items():
                (Path(folder) / name).write_bytes(body)
            self._client.log_artifacts(run.info.run_id, folder)
        self._client.set_terminated(run.info.run_id)
        return TrackedRun("mlflow", EXPERIMENT, run.info.run_id, run.info.artifact_uri)

    def _run(self, record: Record) -> Any:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        found = self._client.search_runs([experiment_id], f"tags.`{REQUEST_TAG}` = '{record.request_digest}'", 1)
        if found:
            return found[0]
        return self._client.create_run(
            experiment_id, run_name=record.request_digest[:12], tags={**record.tags, REQUEST_TAG: record.request_digest}
        )
