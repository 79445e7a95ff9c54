"""Figures of payments in an order, by the trainer's own functions. Pure; shares in ppm, None where they cannot tell."""

from collections.abc import Sequence


def average_precision(frauds: Sequence[bool], ranks: Sequence[float]) -> int | None:
    """Average precision of an order; None without a fraud."""
    import numpy as np

    from fp_mf import metrics  # here and below: a second to import, which no other verb shall wait for

    found = metrics.average_precision(np.array(frauds), np.array(ranks)) if frauds else None
    return None if found is None else metrics.ppm(found)


def card_precision(
    accounts: Sequence[str], times_us: Sequence[int], frauds: Sequence[bool], ranks: Sequence[float], per_day: int
) -> int | None:
    """Frauds' accounts among the `per_day` accounts of each day that rank highest, as mean over days."""
    import numpy as np

    from fp_mf import metrics

    found = metrics.card_precision(
        np.array(frauds), np.array(ranks), np.array(accounts, object), np.array(times_us, np.int64), per_day
    )
    return None if found is None else metrics.ppm(found)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> int | None:
    """Spearman's rank correlation, from −1,000,000 to 1,000,000; None when one side says the same of all."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    from fp_mf import metrics

    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return metrics.ppm(spearmanr(one, other).statistic)
