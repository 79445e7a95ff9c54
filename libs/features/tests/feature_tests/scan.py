"""The features once more, as plain scans over everything that ever came: the oracle of the property tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fp_features import Payment

HOUR = 3_600_000_000
DAY = 24 * HOUR
RANKS = {"AUTO": 1, "EXTERNAL": 2, "HUMAN": 3}


class Said(NamedTuple):
    """One label assertion, in the order of `apply_label`."""

    event_id: str
    value: str
    source: str
    effective_us: int
    observed_us: int


def within(seen: Sequence[Payment], after_us: int, upto_us: int) -> list[Payment]:
    """Payments in (after, upto]."""
    return [payment for payment in seen if after_us < payment.ts_us <= upto_us]


def account_scan(seen: Sequence[Payment]) -> tuple[float, ...]:
    """Account part of core.v1 for the last payment of `seen`, which is in order of arrival."""
    now = seen[-1]
    t = now.ts_us
    values: list[float] = []
    for width in (HOUR, DAY, 7 * DAY, 30 * DAY):
        hits = within(seen, t - width, t)
        values += (float(len(hits)), sum(hit.amount_minor for hit in hits) / len(hits))
    month = within(seen, t - 30 * DAY, t)
    others = within(seen[:-1], t - 30 * DAY, t)
    total = sum(hit.amount_minor for hit in month)
    values += (
        (t - max(hit.ts_us for hit in others)) / 1_000_000 if others else -1.0,
        now.amount_minor * len(month) / total if total else 0.0,
        float(all(hit.merchant_id != now.merchant_id for hit in others)),
        float(len({hit.merchant_id for hit in within(seen, t - 7 * DAY, t)})),
    )
    for field in ("instrument_id", "device_id"):
        name = getattr(now, field)
        same = [hit for hit in month if getattr(hit, field) == name]
        if name is None:
            values += (0.0, 0.0, -1.0)
        else:
            values += (float(len(within(same, t - HOUR, t))), float(len(within(same, t - DAY, t))))
            values.append((t - min(hit.ts_us for hit in same)) / 1_000_000)
    return tuple(values)


def is_known_fraud(said: Sequence[Said]) -> int | None:
    """Payment time when the word that stands among these (of one event) is FRAUD_CONFIRMED alone, else None."""

    def standing(one: Said) -> tuple[int, int, int]:
        return (RANKS[one.source], one.effective_us, one.observed_us)

    best = max(map(standing, said))
    values = {one.value for one in said if standing(one) == best}
    return best[1] if values == {"FRAUD_CONFIRMED"} else None


def snapshot_scan(seen: Sequence[Payment], said: Sequence[Said], now: Payment) -> tuple[float, ...]:
    """Snapshot part of core.v1 for `now`."""
    t = now.ts_us
    seconds = t // 1_000_000
    values = [float(now.amount_minor), math.copysign(math.log1p(abs(now.amount_minor)), now.amount_minor)]
    values += (float(seconds // 3600 % 24 <= 6), float((seconds // 86400 + 4) % 7 in (0, 6)))
    values += (float(now.channel == name) for name in ("CARD_PRESENT", "ECOM", "MOTO", "ATM", "TRANSFER"))
    by_event: dict[str, list[Said]] = {}
    for one in said:
        by_event.setdefault(one.event_id, []).append(one)
    frauds = [time for time in map(is_known_fraud, by_event.values()) if time is not None]
    upto = t - 7 * DAY
    counts = [len(within(seen, upto - days * DAY, upto)) for days in (1, 7, 30)]
    bad = [sum(upto - days * DAY < time <= upto for time in frauds) for days in (1, 7, 30)]
    values += map(float, counts)
    values += (fraud / count if count else 0.0 for fraud, count in zip(bad, counts, strict=True))
    return tuple(values)
