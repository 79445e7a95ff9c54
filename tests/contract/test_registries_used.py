"""What a registry names is there: each failpoint is passed somewhere, each metric is emitted somewhere."""

from enum import StrEnum
from pathlib import Path

import pytest

from fp_runtime.failpoint import Failpoint
from fp_runtime.telemetry import Metric

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for part in ("libs", "services", "jobs", "operator") for path in (ROOT / part).rglob("src/**/*.py")
]  # fmt: skip
REGISTRIES = {Failpoint: "failpoint.py", Metric: "telemetry.py"}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_member_is_used_outside_its_registry(registry: type[StrEnum]) -> None:
    text = "\n".join(path.read_text() for path in SOURCES if path.name != REGISTRIES[registry])
    assert [one.name for one in registry if f"{registry.__name__}.{one.name}" not in text] == []
