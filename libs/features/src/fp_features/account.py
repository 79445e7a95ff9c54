"""State of one account: its payments, and with which merchants, instruments and devices they were made."""

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate, pairwise

from fp_contracts.timestamps import US_PER_DAY
from fp_features.packed import Reader, pack_column, pack_text
from fp_features.payment import Payment
from fp_features.timeline import LATENESS_US, Timeline, add_total

LONGEST_US = 30 * US_PER_DAY
RECENT_US = 7 * US_PER_DAY
ACCOUNT_KEEP_US = LONGEST_US + LATENESS_US
MERCHANT, INSTRUMENT, DEVICE = 0, 1, 2
_PARTNERS = 3
_MAGIC = b"FPA1"
_ABSENT = 2**32 - 1


class AccountState:
    """Payments of one account, kept for the longest window + lateness (31 days).

    A *partner* of a payment is its merchant, instrument or device; each has its own timeline within the account.
    Every call of `update` first forgets what is older than its order clock by more than that; so a payment that is
    late by up to LATENESS_US sees every window exactly.
    """

    __slots__ = ("_partners", "_payments", "_recent", "_rows", "_totals")

    def __init__(self) -> None:
        self._payments = Timeline()
        self._totals = [0]
        self._rows: list[tuple[Timeline | None, ...]] = []
        self._partners: tuple[dict[str, Timeline], ...] = tuple({} for _ in range(_PARTNERS))
        self._recent: OrderedDict[Timeline | None, int] = OrderedDict()

    def update(self, payment: Payment, order_us: int) -> None:
        """Count one AUTH_REQUEST; `order_us` is the clock of the merge, which never goes back.

        Call it before asking for the features of this payment: account windows hold the current one.
        """
        floor_us = order_us - ACCOUNT_KEEP_US
        self._prune(floor_us)
        ts_us = payment.ts_us
        merchants, instruments, devices = self._partners
        row = (
            _meet(merchants, payment.merchant_id, ts_us),
            _meet(instruments, payment.instrument_id, ts_us),
            _meet(devices, payment.device_id, ts_us),
        )
        at = self._payments.add(ts_us)
        add_total(self._totals, at, payment.amount_minor)
        self._rows.insert(at, row)
        if at == len(self._rows) - 1:
            self._visit(row[MERCHANT], ts_us, max(floor_us, ts_us - RECENT_US))
        else:
            self._revisit()

    def _prune(self, floor_us: int) -> None:
        payments, rows = self._payments, self._rows
        before = payments.start
        cut = payments.prune(floor_us)
        for row in rows[before : payments.start + cut]:
            for known, partner in zip(self._partners, row, strict=True):
                if partner is not None:
                    partner.prune(floor_us)
                    if not partner.times:
                        known.pop(partner.name, None)
        if cut:
            del rows[:cut], self._totals[:cut]

    def _visit(self, merchant: Timeline | None, ts_us: int, floor_us: int) -> None:
        """Keep the merchants of the last 7 days in the order of their last payment."""
        recent = self._recent
        while recent:
            oldest = next(iter(recent))
            if recent[oldest] > floor_us:
                break
            del recent[oldest]
        recent[merchant] = ts_us
        recent.move_to_end(merchant)

    def _revisit(self) -> None:
        """The same from the rows: after a late payment and after loading."""
        self._recent.clear()
        payments = self._payments
        if not payments.times:
            return
        last_us = payments.times[-1]
        for at in range(bisect_right(payments.times, last_us - RECENT_US, payments.start), len(payments.times)):
            self._visit(self._rows[at][MERCHANT], payments.times[at], last_us - RECENT_US)

    def window(self, ts_us: int, width_us: int) -> tuple[int, int]:
        """(count, sum of amounts) of the payments in (t - w, t]."""
        payments = self._payments
        times = payments.times
        end = len(times) if times and ts_us >= times[-1] else bisect_right(times, ts_us, payments.start)
        first = bisect_right(times, ts_us - width_us, payments.start, end)
        return end - first, self._totals[end] - self._totals[first]

    def gap_us(self, ts_us: int) -> int | None:
        """Microseconds from the payment before the one at `ts_us`, None when there is none in 30 days."""
        payments = self._payments
        end = payments.end(ts_us)
        if end - payments.start < 2:
            return None
        gap = ts_us - payments.times[end - 2]
        return gap if gap < LONGEST_US else None

    def with_partner(self, kind: int, name: str | None) -> Timeline | None:
        """Times of the payments with this MERCHANT, INSTRUMENT or DEVICE; None when there are none."""
        return None if name is None else self._partners[kind].get(name)

    def recent_merchants(self, ts_us: int) -> int:
        """Distinct merchants in (t - 7 d, t]."""
        payments = self._payments
        times = payments.times
        if times and ts_us == times[-1]:
            return len(self._recent)
        end = payments.end(ts_us)
        first = bisect_right(times, ts_us - RECENT_US, payments.start, end)
        return len({row[MERCHANT] for row in self._rows[first:end]})

    def to_bytes(self) -> bytes:
        """The state as packed bytes; equal states give equal bytes."""
        start = self._payments.start
        times, totals, rows = self._payments.times[start:], self._totals[start:], self._rows[start:]
        parts = [_MAGIC, pack_column("I", (len(times),)), pack_column("q", times)]
        parts.append(pack_column("q", (after - before for before, after in pairwise(totals))))
        for column in zip(*rows, strict=True):
            codes: dict[Timeline | None, int] = {None: _ABSENT}
            names = [
                p.name for p in dict.fromkeys(column) if p is not None and codes.setdefault(p, len(codes) - 1) >= 0
            ]
            parts += (pack_column("I", (len(names),)), *map(pack_text, names))
            parts.append(pack_column("I", map(codes.__getitem__, column)))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, body: bytes) -> "AccountState":
        """The state that `to_bytes` packed; ValueError for anything else."""
        state = cls()
        reader = Reader(body, _MAGIC)
        count = reader.number()
        times = state._payments.times = reader.column("q", count)
        state._totals = list(accumulate(reader.column("q", count), initial=0))
        columns: list[list[Timeline | None]] = []
        for known in state._partners if count else ():
            names = [reader.text() for _ in range(reader.number())]
            codes = reader.column("I", count)
            columns.append(
                [
                    None if code == _ABSENT else _meet(known, names[code], ts_us)
                    for code, ts_us in zip(codes, times, strict=True)
                ]
            )
        reader.close()
        state._rows = list(zip(*columns, strict=True))
        state._revisit()
        return state


def _meet(known: dict[str, Timeline], name: str | None, ts_us: int) -> Timeline | None:
    """Add a time to the timeline of this partner, a new one at first."""
    if name is None:
        return None
    partner = known.get(name)
    if partner is None:
        partner = known[name] = Timeline(name)
    partner.add(ts_us)
    return partner
