"""What was known of each payment at the as-of, and what that makes of it. Pure; the fold is that of the services."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from fp_contracts.dataset import LabelRule, RowFilter
from fp_contracts.downstream import SOURCE_RANK
from fp_contracts.timestamps import US_PER_DAY
from fp_features.labels import CONFLICT, Known, resolve
from fp_ofs.records import Label


class Outcome(StrEnum):
    """The one fate of a payment in a build; only FRAUD and LEGIT become rows."""

    FRAUD = "fraud"
    LEGIT = "legit"
    FILTERED = "filtered"
    IMMATURE = "immature"
    CONFLICT = "conflict"
    SUSPECTED = "suspected"
    UNLABELLED = "unlabelled"


_WORDS: Mapping[str, Outcome] = {
    "FRAUD_CONFIRMED": Outcome.FRAUD,
    "LEGIT_CONFIRMED": Outcome.LEGIT,
    "FRAUD_SUSPECTED": Outcome.SUSPECTED,
    CONFLICT: Outcome.CONFLICT,
}
CENSORED = (Outcome.CONFLICT, Outcome.SUSPECTED, Outcome.UNLABELLED)


class Fate(NamedTuple):
    """A payment's outcome, and when the word that decided it was observed (µs); None when nobody spoke."""

    outcome: Outcome
    observed_us: int | None


def known_at(labels: Iterable[Label], rule: LabelRule) -> dict[str, Known]:
    """Per payment the word that stood at the as-of: later words count for nothing, whatever they say."""
    standing: dict[str, Known] = {}
    for label in labels:
        if label.label_type != rule.label_type or label.observed_us > rule.as_of_us:
            continue
        said = Known(SOURCE_RANK[label.source], label.effective_us, label.observed_us, label.value)
        standing[label.event_id] = resolve(standing.get(label.event_id), said)
    return standing


def fate(event_us: int, degraded: bool, known: Known | None, rule: LabelRule, filters: RowFilter) -> Fate:
    """What becomes of a payment: filtered, else immature, else what is known of it."""
    observed_us = known.observed_us if known else None
    if not _wanted(event_us, degraded, filters):
        return Fate(Outcome.FILTERED, observed_us)
    if event_us + rule.maturity_days * US_PER_DAY > rule.as_of_us:
        return Fate(Outcome.IMMATURE, observed_us)
    if known is None:
        return Fate(Outcome.LEGIT if rule.unlabelled == "legit" else Outcome.UNLABELLED, None)
    # A word outside the vocabulary is no knowledge of fraud or of its absence.
    return Fate(_WORDS.get(known.value, Outcome.SUSPECTED), observed_us)


def _wanted(event_us: int, degraded: bool, filters: RowFilter) -> bool:
    if degraded and filters.degraded == "drop":
        return False
    after = filters.event_from_us is None or event_us >= filters.event_from_us
    return after and (filters.event_until_us is None or event_us < filters.event_until_us)


def label_horizon_us(frontier_us: int, rule: LabelRule) -> int:
    """Up to here (µs, inclusive) every observation is in the basis: an as-of beyond it is in the future.

    `frontier_us` is the lowest order_ts the label lane may still send; a label's order_ts is at least its observed
    time plus the effect delay.
    """
    return frontier_us - rule.effect_delay_us - 1
