"""The Spark engine gives what the embedded one gives, byte for byte. `make test-spark` runs this where pyspark is."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pyspark", reason="pyspark is only in the environment of `make test-spark`")
pytestmark = pytest.mark.filterwarnings("default")

from pyspark.sql import SparkSession  # noqa: E402

from fp_ofs.spark import Spark  # noqa: E402


@pytest.fixture(scope="module")
def engine() -> Iterator[Spark]:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = (
        SparkSession.builder.master("local[2]").appName("fp_ofs tests").config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4").getOrCreate()
    )  # fmt: skip
    yield Spark(session)
    session.stop()


@pytest.mark.timeout(600)
def test_rows_reports_and_manifest_are_equal_byte_for_byte(kit: Any, engine: Spark) -> None:
    world = kit.world(1, 150)
    here, there = kit.bench(world), kit.bench(world)
    wanted, found = here.build(), there.build(engine=engine)
    assert (found.status, found.engine) == ("PUBLISHED", "spark")
    assert found.row_digest == wanted.row_digest
    assert there.files() == here.files()
