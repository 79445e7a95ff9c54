"""SageMaker script mode: the same training with a folder for everything. The same file runs locally.

SM_CHANNEL_TRAIN  folder of one dataset (its manifest.json and files), as a copy of `datasets/<fingerprint>/`
SM_HPS            JSON with `request`: the TrainRequest, as text or as an object
SM_MODEL_DIR      gets the bundle's files; what SageMaker packs as model.tar.gz
SM_OUTPUT_DATA_DIR gets reports and pictures; optional
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from fp_contracts.bundle import TrainRequest
from fp_contracts.canonical import canonical_bytes
from fp_contracts.dataset import dataset_key
from fp_mf import documents
from fp_mf.errors import QUALITY, Blocked
from fp_mf.evaluate import train
from fp_mf.pictures import draw
from fp_mf.progress import say_line, speaker
from fp_mf.table import read_dataset

BLOCKED = 3


def main(environment: Mapping[str, str], stop: threading.Event) -> int:
    """Train from folders named by the environment; the exit code. There is no active bundle to compare with here."""
    asked = json.loads(environment["SM_HPS"])["request"]
    request = TrainRequest.model_validate_json(asked if isinstance(asked, str) else json.dumps(asked))
    channel, prefix = Path(environment["SM_CHANNEL_TRAIN"]), dataset_key(request.dataset.dataset_fingerprint, "")

    def get(key: str) -> bytes:
        try:
            return (channel / key.removeprefix(prefix)).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(key) from error

    try:
        dataset, table = read_dataset(get, request, speaker(stop))
        trained = train(request, table, None, speaker(stop))
        files = documents.bundle_files(request, dataset, trained)
        documents.safe_disable(request, files)
        reports = {"eval_report.json": canonical_bytes(documents.report(request, dataset, trained, {}))}
        _write(environment.get("SM_OUTPUT_DATA_DIR"), {**reports, **draw(trained, {})})
        if trained.failed:
            raise Blocked(QUALITY, "; ".join(check.name for check in trained.failed))
    except Blocked as blocked:
        say_line({"result": {"status": "BLOCKED", "blockers": [{"code": blocked.code, "reason": blocked.reason}]}})
        return BLOCKED
    _write(environment["SM_MODEL_DIR"], files)
    manifest = documents.manifest_of(files)
    say_line({"result": {"status": "TRAINED", "bundle_id": manifest.bundle_id, "model_digest": manifest.model_digest}})
    return 0


def _write(folder: str | None, files: Mapping[str, bytes]) -> None:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, body in files.items():
            (Path(folder) / name).write_bytes(body)


if __name__ == "__main__":
    sys.exit(main(os.environ, threading.Event()))
