"""A store with a made-up dataset, and places to train in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fp_contracts.bundle import DatasetRef
from fp_mf import sample
from fp_mf.job import Places
from fp_mf.tracking import NoTracker
from fp_runtime.evidence import FileStore


@pytest.fixture
def datasets(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "datasets")


@pytest.fixture
def dataset(datasets: FileStore) -> DatasetRef:
    return sample.put_dataset(datasets)


@pytest.fixture
def places(tmp_path: Path, datasets: FileStore) -> Callable[[str], Places]:
    """Places whose outputs go to a folder of this name."""

    def make(name: str = "out") -> Places:
        out = FileStore(tmp_path / name)
        return Places(datasets, out, out, NoTracker())

    return make
