"""A store with a made-up dataset, and places to train in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fp_contracts.bundle import DatasetRef, MfResult, TrainRequest
from fp_mf import sample
from fp_mf.job import Places, run
from fp_mf.progress import silent
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


@dataclass(frozen=True)
class Published:
    """A training that was published once for all tests that only read it."""

    root: Path
    request: TrainRequest
    result: MfResult

    @property
    def bundle_folder(self) -> Path:
        """The folder of its bundle."""
        assert self.result.bundle is not None
        return self.root / self.result.bundle.manifest.key.rpartition("/")[0]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    root = tmp_path_factory.mktemp("published")
    store = FileStore(root)
    request = sample.request(sample.put_dataset(store))
    return Published(root, request, run(request, Places(store, store, store, NoTracker()), silent))


@pytest.fixture(scope="session")
def matrix() -> np.ndarray:
    """The features of the made-up dataset."""
    table = sample.World().table()
    return np.column_stack([table.column(name).to_numpy() for name in sample.FEATURES]).astype(np.float64)
