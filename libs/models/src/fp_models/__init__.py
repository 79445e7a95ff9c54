"""Model bundles: their format, verified loading, and scores with the same bits in trainer, server and df.

bundle = load_folder(Path("bundle"), schema_digest=CORE_V1.schema_digest)     # or fetch(store.get, ref, …)
scores = bundle.score(matrix)                 # float64 [rows, features] -> float64 [rows], each in [0, 1]
action = action_of(scores[0], bundle.manifest.thresholds)
"""

from fp_models.bundle import Bundle, fetch, load, load_folder, pack
from fp_models.errors import BundleBroken, NotFinite
from fp_models.model import Model, open_model
from fp_models.thresholds import action_of, score_text

__all__ = [
    "Bundle", "BundleBroken", "Model", "NotFinite", "action_of", "fetch", "load", "load_folder", "open_model",
    "pack", "score_text",
]  # fmt: skip
