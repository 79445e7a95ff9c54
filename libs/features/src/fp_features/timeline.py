"""Times in order, so that any window is two bisections; shared by all entity states."""

from bisect import bisect_right

from fp_contracts.timestamps import US_PER_DAY

# How far behind the order clock a payment may come and still see, and count in, every window exactly.
LATENESS_US = US_PER_DAY
# Dead entries are cut off the front when they are the greater part, so each is moved O(1) times.
_CUT_FROM = 32


class Timeline:
    """Sorted event times (microseconds), equal ones in order of arrival; entries before `start` are dead."""

    __slots__ = ("start", "times")

    def __init__(self) -> None:
        self.start = 0
        self.times: list[int] = []

    def add(self, ts_us: int) -> int:
        """Put a time in its place, after its equals; gives the index it has now."""
        times = self.times
        if not times or ts_us >= times[-1]:
            times.append(ts_us)
            return len(times) - 1
        at = bisect_right(times, ts_us, self.start)
        times.insert(at, ts_us)
        return at

    def end(self, ts_us: int) -> int:
        """Index behind the last entry at or before `ts_us`."""
        times = self.times
        if times and ts_us >= times[-1]:
            return len(times)
        return bisect_right(times, ts_us, self.start)

    def firsts(self, ts_us: int, end: int, widths_us: tuple[int, ...]) -> list[int]:
        """For each width (growing) the index of the first entry in (t - w, …), looked for before `end`."""
        times, start = self.times, self.start
        firsts = []
        for width_us in widths_us:
            end = bisect_right(times, ts_us - width_us, start, end)
            firsts.append(end)
        return firsts

    def prune(self, floor_us: int) -> int:
        """Kill every entry at or before `floor_us`; gives how many dead ones were cut off the front of `times`."""
        times, start = self.times, self.start
        if not times or times[start] > floor_us:
            return 0
        start = bisect_right(times, floor_us, start)
        size = len(times)
        if start < size and (start < _CUT_FROM or 2 * start < size):
            self.start = start
            return 0
        del times[:start]
        self.start = 0
        return start


def add_total(totals: list[int], at: int, amount_minor: int) -> None:
    """Keep running totals (totals[i] = sum before entry i) when an amount is put at index `at`."""
    if at == len(totals) - 1:
        totals.append(totals[at] + amount_minor)
    else:
        totals[at + 1 :] = [total + amount_minor for total in totals[at:]]
