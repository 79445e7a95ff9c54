"""Who is seen in a moving window, and how often: one step per payment, however busy the account."""

from bisect import bisect_right
from collections import Counter


class Tally:
    """Counts of names over the newest `width_us` of a list of (time, name) that its owner keeps in order of time.

    `head` is the index of the oldest entry counted. All methods take the owner's lists.
    """

    __slots__ = ("counts", "head", "width_us")

    def __init__(self, width_us: int) -> None:
        self.width_us = width_us
        self.head = 0
        self.counts: dict[str, int] = {}

    def drop(self, names: list[str], upto: int) -> None:
        """Leave out every entry before index `upto`."""
        counts = self.counts
        for name in names[self.head : upto]:
            left = counts[name] - 1
            if left:
                counts[name] = left
            else:
                del counts[name]
        self.head = max(self.head, upto)

    def add(self, times: list[int], names: list[str], at: int) -> None:
        """Count the entry just put at index `at`; when it is the newest, those that fell out of the window leave."""
        oldest_us = times[-1] - self.width_us
        if times[at] <= oldest_us:
            self.head += 1
            return
        name = names[at]
        self.counts[name] = self.counts.get(name, 0) + 1
        head = self.head
        while times[head] <= oldest_us:
            head += 1
        if head > self.head:
            self.drop(names, head)

    def load(self, times: list[int], names: list[str]) -> None:
        """Count the window that ends with the newest entry."""
        self.head = bisect_right(times, times[-1] - self.width_us) if times else 0
        self.counts = dict(Counter(names[self.head :]))
