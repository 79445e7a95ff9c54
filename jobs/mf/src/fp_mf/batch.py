"""Batch transform: a parquet file with the feature columns in, the same rows' keys and scores out."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fp_mf.progress import say_line
from fp_mf.serve import open_bundle
from fp_models import Bundle, action_of
from fp_runtime.errors import UserError

BATCH_ROWS = 8_192
KEY = "event_id"


def run(folder: Path, source: Path, target: Path) -> int:
    """Score every row of `source` into `target`; nothing is left there when it fails. UserError, NotFinite."""
    bundle, aside = open_bundle(folder), target.with_name(f".{target.name}.part")
    try:
        rows = _transform(bundle, source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    say_line({"result": {"status": "DONE", "rows": rows, "bundle_id": bundle.manifest.bundle_id}})
    return 0


def _transform(bundle: Bundle, source: Path, aside: Path) -> int:
    rows, names = 0, list(bundle.manifest.feature_names)
    reader = pq.ParquetFile(source)
    missing = {KEY, *names} - set(reader.schema_arrow.names)
    if missing:
        raise UserError(str(source), f"lacks {', '.join(sorted(missing))}", "give the columns that the bundle names")
    kinds = {KEY: pa.string(), "score": pa.float64(), "action": pa.string()}
    schema = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for batch in reader.iter_batches(BATCH_ROWS, columns=[KEY, *names]):
            matrix = np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in names])
            scores = bundle.score(np.ascontiguousarray(matrix, np.float64))
            actions = [action_of(score, bundle.manifest.thresholds) for score in scores.tolist()]
            keys = batch.column(KEY).cast(pa.string())
            writer.write_table(pa.table([keys, pa.array(scores), pa.array(actions)], schema=schema))
            rows += len(scores)
    return rows
