"""State and features of one merchant: how busy it is and how risky it proved, seen with the label delay."""

from bisect import bisect_right
from itertools import accumulate, pairwise

from fp_contracts.timestamps import US_PER_DAY
from fp_features.labels import Known, Labels
from fp_features.packed import Reader, pack_column, pack_texts
from fp_features.payment import Payment
from fp_features.timeline import LATENESS_US, Timeline, add_total, floor_of

# Adjudication takes 6 days and a label one more to take effect.
DELAY_US = 7 * US_PER_DAY
MERCHANT_DAYS = (1, 7, 30)
MERCHANT_KEEP_US = DELAY_US + MERCHANT_DAYS[-1] * US_PER_DAY + LATENESS_US
_WIDTHS_US = tuple(days * US_PER_DAY for days in MERCHANT_DAYS)
_NO_RISK = (0.0,) * len(MERCHANT_DAYS)
_MAGIC = b"FPM1"


class MerchantState:
    """Payments of one merchant and what is known of them, kept for delay + longest window + lateness (38 days).

    Every `update` first forgets what is older than that, by its order clock; so a payment that is late by up to
    LATENESS_US sees every window exactly, and a later one sees what was not yet forgotten.
    """

    __slots__ = ("_labels", "_payments", "_totals")

    def __init__(self) -> None:
        self._payments = Timeline()
        self._totals = [0]
        self._labels = Labels()

    def update(self, ts_us: int, amount_minor: int, order_us: int) -> None:
        """Count one AUTH_REQUEST; `order_us` is the clock of the merge, which never goes back."""
        floor_us = floor_of(order_us, MERCHANT_KEEP_US)
        gone = self._payments.prune(floor_us)
        if gone:
            del self._totals[:gone]
        self._labels.prune(floor_us)
        add_total(self._totals, self._payments.add(ts_us), amount_minor)

    def apply_label(self, event_id: str, value: str, source: str, effective_us: int, observed_us: int) -> None:
        """Take a `fraud_disposition` in effect now; `effective_us` is the time of the payment it speaks of.

        HUMAN overrides EXTERNAL overrides AUTO, then the later one counts. ValueError for an unknown source.
        """
        self._labels.apply(event_id, value, source, effective_us, observed_us)

    def counts(self, ts_us: int) -> list[int]:
        """Payments in (t - delay - w, t - delay] for each window width, shortest first."""
        upto_us = ts_us - DELAY_US
        end = self._payments.end(upto_us)
        return [end - first for first in self._payments.firsts(upto_us, end, _WIDTHS_US)]

    def frauds(self, ts_us: int) -> list[int]:
        """Known frauds in the same windows."""
        known = self._labels.frauds
        if not known:
            return [0] * len(_WIDTHS_US)
        upto_us = ts_us - DELAY_US
        end = bisect_right(known, upto_us)
        return [end - bisect_right(known, upto_us - width_us, 0, end) for width_us in _WIDTHS_US]

    def to_bytes(self) -> bytes:
        """The state as packed bytes; equal states give equal bytes."""
        times = self._payments.times
        rows = self._labels.rows()
        parts = [_MAGIC, pack_column("I", (len(times), len(rows))), pack_column("q", times)]
        parts.append(pack_column("q", (after - before for before, after in pairwise(self._totals))))
        for event_id, known in rows:
            parts += (pack_column("q", known[:3]), pack_texts((event_id, known.value)))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, body: bytes) -> "MerchantState":
        """The state that `to_bytes` packed; ValueError for bytes of another format or size."""
        state = cls()
        reader = Reader(body, _MAGIC)
        payments, labels = reader.column("I", 2)
        state._payments.times = reader.column("q", payments)
        state._totals = list(accumulate(reader.column("q", payments), initial=0))
        for _ in range(labels):
            rank, effective_us, observed_us = reader.column("q", 3)
            event_id, value = reader.texts(2)
            state._labels.restore(event_id, Known(rank, effective_us, observed_us, value))
        reader.close()
        return state


def merchant_velocity(payment: Payment, state: MerchantState) -> tuple[float, ...]:
    """Payments of the merchant over each delayed window."""
    return tuple(map(float, state.counts(payment.ts_us)))


def merchant_risk(payment: Payment, state: MerchantState) -> tuple[float, ...]:
    """Known frauds ÷ payments over each delayed window; 0 when the window is empty."""
    frauds = state.frauds(payment.ts_us)
    if not frauds[-1]:
        return _NO_RISK
    counts = state.counts(payment.ts_us)
    return tuple(fraud / count if count else 0.0 for fraud, count in zip(frauds, counts, strict=True))
