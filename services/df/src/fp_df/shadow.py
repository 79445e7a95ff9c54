"""The challenger: scored beside the decisions of a batch, told in their records, no part of what they come to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from fp_contracts.bundle import BundleRef
from fp_contracts.derive import vector_bytes
from fp_contracts.reasons import Action, Unscored
from fp_contracts.registry import bundle_text
from fp_df.domain import Scored
from fp_features import unpack

log = structlog.get_logger()
Score = Callable[[BundleRef, Sequence[tuple[float, ...]]], list[Scored]]


class Challenger(NamedTuple):
    """The bundle to score beside; `fault` = why it cannot serve, empty when it can."""

    bundle: BundleRef
    fault: str = ""


class Shadow(NamedTuple):
    """What a decision's record says of the challenger; without a score there is a reason."""

    bundle_ref: str
    score: float | None
    action: Action | None
    reason: str | None


def shadow_of(bundle: BundleRef, scored: Scored | None) -> Shadow:
    """What to tell of one payment; `scored` None = the challenger cannot serve."""
    ref = bundle_text(bundle)
    if scored is None or scored.score is None:
        why = Unscored.CHALLENGER_UNUSABLE if scored is None else Unscored.CHALLENGER_ERRORED
        return Shadow(ref, None, None, why.value)
    return Shadow(ref, scored.score, scored.action, None)


def recorded_shadow(entry: Mapping[str, Any]) -> Shadow:
    """As a record tells it; KeyError, TypeError or ValueError when it does not."""
    score = None if entry["score"] is None else unpack(vector_bytes(entry["score"]))[0]
    action = None if entry["action"] is None else Action(entry["action"])
    return Shadow(entry["bundle_ref"], score, action, entry["reason"])


class Beside:
    """Scores challengers; one that fails is not asked again by this process, so that no turn waits for it twice."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self._given_up: set[str] = set()
        self.scored = 0
        self.unscored = 0

    def shadows(self, challenger: Challenger, vectors: Sequence[tuple[float, ...]]) -> list[Shadow]:
        """One per vector, whatever the challenger does: it raises nothing."""
        scored = self._scored(challenger, vectors)
        found = [shadow_of(challenger.bundle, one) for one in scored]
        with_score = sum(one.score is not None for one in found)
        self.scored += with_score
        self.unscored += len(found) - with_score
        return found

    def _scored(self, challenger: Challenger, vectors: Sequence[tuple[float, ...]]) -> Sequence[Scored | None]:
        name = challenger.bundle.bundle_id
        nothing = [None] * len(vectors)
        if challenger.fault or name in self._given_up:
            return nothing
        try:
            found = self._score(challenger.bundle, vectors)
            if len(found) != len(vectors):
                raise ValueError(f"{len(found)} scores for {len(vectors)} payments")
        except Exception as error:  # noqa: BLE001  # whatever it is, the decisions go on without the challenger
            self._given_up.add(name)
            log.error("challenger_given_up", bundle_id=name, why=str(error)[:300])
            return nothing
        return found
