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

    def add(self, times: list[int], names: list[str], at: int) -> None:
        """Count the entry just put at index `at`; when it is the newest, those that fell out of the window leave."""
        oldest_us = times[-1] - self.width_us
        if times[at] <= oldest_us:
            self.head += 1
            return
        counts, name = self.counts, names[at]
        counts[name] = counts.get(name, 0) + 1
        head = self.head
        while times[head] <= oldest_us:
            self._leave(names[head])
            head += 1
        self.head = head

    def _leave(self, name: str) -> None:
        left = self.counts[name] - 1
        if left:
            self.counts[name] = left
        else:
            del self.counts[name]

    def cut(self, names: list[str], gone: int) -> None:
        """The owner is about to cut the first `gone` entries off its lists."""
        for name in names[self.head : gone]:
            self._leave(name)
        self.head = max(self.head - gone, 0)

    def load(self, times: list[int], names: list[str]) -> None:
        """Count the window that ends with the newest entry."""
        self.head = bisect_right(times, times[-1] - self.width_us) if times else 0
        self.counts = dict(Counter(names[self.head :]))
