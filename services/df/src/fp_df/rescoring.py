"""Train/serve parity: the evaluation of a published bundle scored again by df, from the vectors that df served itself.

The trainer's rows come from the archive and its model from memory; these come from what was decided and from the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

import orjson
from pydantic import ValidationError

from fp_contracts.bundle import BundleRef, EvalRows
from fp_contracts.control import BundleRescored
from fp_contracts.derive import vector_bytes
from fp_contracts.registry import BundlePublished
from fp_df.domain import Scored
from fp_features import pack, unpack
from fp_runtime import evidence
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore

_BATCH = 2_000


class Scorer(Protocol):
    """df's own way to scores."""

    def fault(self, bundle: BundleRef) -> str | None:
        """Why a bundle cannot serve."""
        ...

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """What it says of each vector."""
        ...


def rescore(
    offered: BundlePublished, store: EvidenceStore, bodies: Iterable[bytes], models: Scorer
) -> BundleRescored:  # fmt: skip
    """The answer for one bundle; `bodies` are df's decisions. Unavailable when the store does not answer."""
    bundle, rows = offered.bundle, 0
    missing, digest, reason = 0, None, ""
    try:
        assert offered.eval_rows is not None
        wanted = EvalRows.model_validate_json(evidence.read(store, offered.eval_rows)).event_ids
    except (EvidenceMissing, EvidenceBroken, ValidationError) as error:
        reason = f"the rows of the evaluation do not read back: {type(error).__name__}"
    else:
        rows, served = len(wanted), vectors_of(bodies, set(wanted))
        missing = sum(event_id not in served for event_id in wanted)
        reason = f"{missing} rows were never decided" if missing else models.fault(bundle) or ""
        if not reason:
            digest, reason = _digest(bundle, [served[event_id] for event_id in wanted], models)
    return BundleRescored(
        bundle_id=bundle.bundle_id, model_digest=bundle.model_digest, rows=rows, missing=missing,
        scores_sha256=digest, reason=reason[:200],
    )  # fmt: skip


def vectors_of(bodies: Iterable[bytes], wanted: set[str]) -> Mapping[str, bytes]:
    """Event id -> the whole packed feature vector that its decision rested on."""
    found: dict[str, bytes] = {}
    for body in bodies:
        payload = orjson.loads(body)["payload"]
        event_id = payload["source_event"]["event_id"]
        if event_id in wanted:
            found[event_id] = vector_bytes(payload["feature_vector"])
    return found


def _digest(bundle: BundleRef, packed: Sequence[bytes], models: Scorer) -> tuple[str | None, str]:
    """sha256 of the float64 scores in order, or why there is none."""
    digest, unscored = sha256(), 0
    for start in range(0, len(packed), _BATCH):
        scored = models.score(bundle, [unpack(one) for one in packed[start : start + _BATCH]])
        scores = [one.score for one in scored if one.score is not None]
        unscored += len(scored) - len(scores)
        digest.update(pack(scores))
    return (None, f"{unscored} rows have no score") if unscored else (digest.hexdigest(), "")
