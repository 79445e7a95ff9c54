"""Times in order, so that any window is two bisections; shared by all entity states."""

from bisect import bisect_right

from fp_contracts.timestamps import US_PER_DAY

# How far behind the order clock a payment may come and still see, and count in, every window exactly.
LATENESS_US = US_PER_DAY


def floor_of(order_us: int, keep_us: int) -> int:
    """What is at or before this time is forgotten: `keep_us` behind the order clock, in whole UTC days.

    Whole days make forgetting rare (once a day per entity), so that it costs next to nothing per payment.
    """
    return (order_us - keep_us) // US_PER_DAY * US_PER_DAY


class Timeline:
    """Sorted event times (microseconds), equal ones in order of arrival."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times: list[int] = []

    def add(self, ts_us: int) -> int:
        """Put a time in its place, after its equals; gives the index it has now."""
        times = self.times
        if not times or ts_us >= times[-1]:
            times.append(ts_us)
            return len(times) - 1
        at = bisect_right(times, ts_us)
        times.insert(at, ts_us)
        return at

    def end(self, ts_us: int) -> int:
        """Index behind the last entry at or before `ts_us`."""
        times = self.times
        if times and ts_us >= times[-1]:
            return len(times)
        return bisect_right(times, ts_us)

    def firsts(self, ts_us: int, end: int, widths_us: tuple[int, ...]) -> list[int]:
        """For each width (growing) the index of the first entry after t - w, looked for before index `end`."""
        times = self.times
        firsts = []
        for width_us in widths_us:
            end = bisect_right(times, ts_us - width_us, 0, end)
            firsts.append(end)
        return firsts

    def prune(self, floor_us: int) -> int:
        """Forget every entry at or before `floor_us`; gives their number."""
        times = self.times
        if not times or times[0] > floor_us:
            return 0
        gone = bisect_right(times, floor_us)
        del times[:gone]
        return gone


def add_total(totals: list[int], at: int, amount_minor: int) -> None:
    """Keep running totals (totals[i] = sum before entry i) when an amount is put at index `at`."""
    if at == len(totals) - 1:
        totals.append(totals[at] + amount_minor)
    else:
        totals[at + 1 :] = [total + amount_minor for total in totals[at:]]
