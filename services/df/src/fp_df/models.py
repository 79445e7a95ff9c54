"""Bundles of the learning store, verified once, and the scores that they give to micro-batches of payments."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fp_contracts.bundle import BundleRef
from fp_contracts.reasons import Action
from fp_df.domain import Scored
from fp_features import CORE_V1
from fp_runtime.errors import Unavailable
from fp_runtime.evidence import EvidenceKeyError, EvidenceMissing, EvidenceStore

if TYPE_CHECKING:  # numpy and xgboost cost a start 1 s and 60 MB that only a bundle needs
    from fp_models import Bundle

_ERRORED = Scored(None, Action.ALLOW)


class Models:
    """What a process can score with. One thread."""

    def __init__(self, open_store: Callable[[], EvidenceStore]) -> None:
        self._open_store = open_store
        self._opened: dict[str, Bundle | str] = {}

    @cached_property
    def _store(self) -> EvidenceStore:
        return self._open_store()

    def fault(self, bundle: BundleRef) -> str | None:
        """Why a bundle cannot serve, None when it can; the same answer as long as the process lives.

        Unavailable when the store does not answer, which says nothing of the bundle.
        """
        opened = self._open(bundle)
        return opened if isinstance(opened, str) else None

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """Score and action per vector, with the same bits in every batch; those it cannot score have none.

        Unavailable when the bundle decided before and cannot be opened now: never another decision instead.
        """
        from fp_models import NotFinite

        opened = self._open(bundle)
        if isinstance(opened, str):
            raise Unavailable(f"bundle {bundle.bundle_id} is in use and cannot be opened: {opened}")
        scored, left = [_ERRORED] * len(vectors), list(range(len(vectors)))
        while left:
            try:
                found = _scores(opened, [vectors[at] for at in left])
            except NotFinite as error:
                bad = set(error.rows)
                left = [at for place, at in enumerate(left) if place not in bad]
            else:
                for at, one in zip(left, found, strict=True):
                    scored[at] = one
                break
        return scored

    def _open(self, bundle: BundleRef) -> "Bundle | str":
        if bundle.bundle_id not in self._opened:
            self._opened[bundle.bundle_id] = self._fetch(bundle)
        return self._opened[bundle.bundle_id]

    def _fetch(self, bundle: BundleRef) -> "Bundle | str":
        from fp_models import BundleBroken, fetch

        try:
            return fetch(self._get, bundle, schema_digest=CORE_V1.schema_digest)
        except BundleBroken as error:
            return str(error)

    def _get(self, key: str) -> bytes:
        try:
            return self._store.get(key)
        except (EvidenceMissing, EvidenceKeyError) as error:
            raise KeyError(key) from error


def _scores(bundle: "Bundle", vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
    import numpy as np

    from fp_models import action_of

    thresholds = bundle.manifest.thresholds
    scores = bundle.score(np.array(vectors, np.float64))
    return [Scored(score, Action(action_of(score, thresholds))) for score in scores.tolist()]
