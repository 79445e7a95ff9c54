"""The Spark engine: the same row functions behind `applyInArrow`, on `local[*]` or a Databricks job cluster.

pyspark is no dependency of this package: whoever runs this engine brings it (Databricks does; here `make test-spark`).
"""

import os
import sys

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, IntegerType, LongType, StructField, StructType

from fp_ofs.engine import Order, RowFunction, Tick, sorted_by
from fp_ofs.features import PART

_KINDS = {"int32": IntegerType, "int64": LongType, "binary": BinaryType}


class Spark:
    """Groups are spread over the executors; `tick` hears only the beginning and the end."""

    name = "spark"

    def __init__(self, session: SparkSession | None = None) -> None:
        # Workers must see the packages of this interpreter; a cluster that says otherwise has its own way.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        self._session = session or SparkSession.builder.appName("fp_ofs").getOrCreate()

    def map_groups(self, table: pa.Table, key: str, order: Order, function: RowFunction, tick: Tick) -> pa.Table:
        """See engine.Engine. Spark gives a group in no order, so it is sorted where it is worked on."""
        tick(0, table.num_rows)
        if not table.num_rows:
            return PART.empty_table()

        def in_order(group: pa.Table) -> pa.Table:
            return function(sorted_by(group.cast(table.schema), order))

        # Of a table in many chunks createDataFrame loses rows (seen with pyspark 4.3), so it gets one.
        frame: DataFrame = self._session.createDataFrame(table.combine_chunks())
        if frame.count() != table.num_rows:
            raise AssertionError("Spark does not hold the rows that it was given")
        found: pa.Table = frame.groupBy(key).applyInArrow(in_order, schema=_schema()).toArrow()
        tick(table.num_rows, table.num_rows)
        return found.cast(PART)


def _schema() -> StructType:
    return StructType([StructField(field.name, _KINDS[str(field.type)]()) for field in PART])
