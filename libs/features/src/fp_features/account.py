"""State of one account: its payments, and with which merchants, instruments and devices they were made."""

from bisect import bisect_right
from itertools import accumulate, pairwise
from sys import intern

from fp_contracts.timestamps import US_PER_DAY
from fp_features.packed import Reader, pack_column, pack_texts
from fp_features.payment import Payment
from fp_features.tally import Tally
from fp_features.timeline import LATENESS_US, Timeline, add_total, floor_of

LONGEST_US = 30 * US_PER_DAY
RECENT_US = 7 * US_PER_DAY
ACCOUNT_KEEP_US = LONGEST_US + LATENESS_US
_MAGIC = b"FPA1"
_ABSENT = 2**32 - 1


class AccountState:
    """Payments of one account, kept for the longest window + lateness (31 days, in whole days).

    Every `update` first forgets what is older than that, by its order clock; so a payment that is late by up to
    LATENESS_US sees every window exactly, and a later one sees itself and what was not yet forgotten.
    """

    __slots__ = ("_devices", "_instruments", "_merchants", "_met", "_payments", "_recent", "_totals")

    def __init__(self) -> None:
        self._payments = Timeline()
        self._totals = [0]
        self._merchants: list[str] = []
        self._met = Tally(LONGEST_US)
        self._recent = Tally(RECENT_US)
        self._instruments = Partners()
        self._devices = Partners()

    def update(self, payment: Payment, order_us: int) -> None:
        """Count one AUTH_REQUEST; `order_us` is the clock of the merge, which never goes back.

        Call it before asking for the features of this payment: account windows hold the current one.
        """
        payments = self._payments
        floor_us = floor_of(order_us, ACCOUNT_KEEP_US)
        if payments.times and payments.times[0] <= floor_us:
            self._prune(floor_us)
        ts_us, amount_minor, _, merchant_id, instrument_id, device_id = payment
        at = payments.add(ts_us)
        add_total(self._totals, at, amount_minor)
        self._merchants.insert(at, intern(merchant_id))
        self._met.add(payments.times, self._merchants, at)
        self._recent.add(payments.times, self._merchants, at)
        self._instruments.add(at, instrument_id, ts_us)
        self._devices.add(at, device_id, ts_us)

    def _prune(self, floor_us: int) -> None:
        gone = self._payments.prune(floor_us)
        self._met.cut(self._merchants, gone)
        self._recent.cut(self._merchants, gone)
        self._instruments.prune(gone, floor_us)
        self._devices.prune(gone, floor_us)
        del self._merchants[:gone], self._totals[:gone]

    def windows(self, ts_us: int, widths_us: tuple[int, ...]) -> list[tuple[int, int]]:
        """(count, sum of amounts) of the payments in (t - w, t] for each of the growing widths."""
        times, totals = self._payments.times, self._totals
        end = first = len(times) if ts_us >= times[-1] else bisect_right(times, ts_us)
        total = totals[end]
        found = []
        for width_us in widths_us:
            first = bisect_right(times, ts_us - width_us, 0, first)
            found.append((end - first, total - totals[first]))
        return found

    def gap_us(self, ts_us: int) -> int | None:
        """Microseconds between the payment at `ts_us` and the one before it; None when none came in 30 days."""
        payments = self._payments
        end = payments.end(ts_us)
        if end < 2:
            return None
        gap = ts_us - payments.times[end - 2]
        return gap if gap < LONGEST_US else None

    def met(self, merchant_id: str, ts_us: int) -> int:
        """Payments with this merchant in (t - 30 d, t]."""
        if ts_us == self._payments.times[-1]:
            return self._met.counts.get(merchant_id, 0)
        return self._merchants_in(ts_us, LONGEST_US).count(merchant_id)

    def recent_merchants(self, ts_us: int) -> int:
        """Distinct merchants in (t - 7 d, t]."""
        if ts_us == self._payments.times[-1]:
            return len(self._recent.counts)
        return len(set(self._merchants_in(ts_us, RECENT_US)))

    def _merchants_in(self, ts_us: int, width_us: int) -> list[str]:
        payments = self._payments
        end = payments.end(ts_us)
        return self._merchants[bisect_right(payments.times, ts_us - width_us, 0, end) : end]

    def with_instrument(self, instrument_id: str | None) -> Timeline | None:
        """Times of the payments with this instrument; None when there are none."""
        return self._instruments.known.get(instrument_id)

    def with_device(self, device_id: str | None) -> Timeline | None:
        """Times of the payments on this device; None when there are none."""
        return self._devices.known.get(device_id)

    def to_bytes(self) -> bytes:
        """The state as packed bytes; equal states give equal bytes."""
        times, amounts = self._payments.times, [b - a for a, b in pairwise(self._totals)]
        parts = [_MAGIC, pack_column("I", (len(times),)), pack_column("q", times), pack_column("q", amounts)]
        for names in (self._merchants, self._instruments.names, self._devices.names):
            parts += _pack_names(names)
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, body: bytes) -> "AccountState":
        """The state that `to_bytes` packed; ValueError for bytes of another format or size."""
        reader = Reader(body, _MAGIC)
        state = cls()
        count = reader.number()
        times = state._payments.times = reader.column("q", count)
        state._totals = list(accumulate(reader.column("q", count), initial=0))
        state._merchants = [name for name in _read_names(reader, count) if name is not None]
        state._instruments.load(times, _read_names(reader, count))
        state._devices.load(times, _read_names(reader, count))
        reader.close()
        if len(state._merchants) != count:
            raise ValueError("a payment without a merchant")
        for tally in (state._met, state._recent):
            tally.load(times, state._merchants)
        return state


class Partners:
    """The instruments (or the devices) of an account: which one each payment used, and the times of each."""

    __slots__ = ("known", "names")

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.known: dict[str | None, Timeline] = {}

    def add(self, at: int, name: str | None, ts_us: int) -> None:
        """The payment put at index `at` used this one, or none."""
        if name is not None:
            name = intern(name)
            self._meet(name, ts_us)
        self.names.insert(at, name)

    def _meet(self, name: str, ts_us: int) -> None:
        timeline = self.known.get(name)
        if timeline is None:
            timeline = self.known[name] = Timeline()
        timeline.add(ts_us)

    def load(self, times: list[int], names: list[str | None]) -> None:
        """Take over these columns."""
        self.names = names
        for ts_us, name in zip(times, names, strict=True):
            if name is not None:
                self._meet(name, ts_us)

    def prune(self, gone: int, floor_us: int) -> None:
        """Forget the first `gone` payments, which are those at or before `floor_us`."""
        for name in set(self.names[:gone]) - {None}:
            timeline = self.known[name]
            timeline.prune(floor_us)
            if not timeline.times:
                del self.known[name]
        del self.names[:gone]


def _pack_names(column: list[str] | list[str | None]) -> list[bytes]:
    """A column of names as the table of the distinct ones, in order of appearance, and an index per entry."""
    names = [name for name in dict.fromkeys(column) if name is not None]
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
    codes[None] = _ABSENT
    return [
        pack_column("I", (len(names),)),
        pack_texts(names),
        pack_column("I", map(codes.__getitem__, column)),
    ]


def _read_names(reader: Reader, count: int) -> list[str | None]:
    """The column that `_pack_names` packed."""
    names: dict[int, str | None] = dict(enumerate(map(intern, reader.texts(reader.number()))))
    names[_ABSENT] = None
    return list(map(names.__getitem__, reader.column("I", count)))
