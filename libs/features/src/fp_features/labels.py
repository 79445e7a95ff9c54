"""What is known of each payment of a merchant: as-of resolution per event id (contracts.md §4)."""

from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

from fp_contracts.downstream import SOURCE_RANK

FRAUD = "FRAUD_CONFIRMED"
CONFLICT = "CONFLICT"


class Known(NamedTuple):
    """The word that stands: by source rank, then the latest effective (payment) time, then the latest observed."""

    rank: int
    effective_us: int
    observed_us: int
    value: str


def resolve(standing: Known | None, said: Known) -> Known:
    """The better of two words; equal standing with another value is a CONFLICT. Any order gives the same."""
    if standing is None or said[:3] > standing[:3]:
        return said
    if said[:3] < standing[:3] or said.value == standing.value:
        return standing
    return standing._replace(value=CONFLICT)


class Labels:
    """Labels in effect, and the payment times of the known frauds in order.

    Only FRAUD_CONFIRMED is a known fraud: a suspicion or a conflict is not knowledge.
    """

    __slots__ = ("_known", "_order", "frauds")

    def __init__(self) -> None:
        self.frauds: list[int] = []
        self._known: dict[str, Known] = {}
        self._order: list[tuple[int, str]] = []

    def apply(self, event_id: str, value: str, source: str, effective_us: int, observed_us: int) -> None:
        """Take one assertion; a repeat changes nothing. ValueError for an unknown source."""
        if source not in SOURCE_RANK:
            raise ValueError(f"unknown label source {source!r}")
        self._put(event_id, Known(SOURCE_RANK[source], effective_us, observed_us, value))

    def _put(self, event_id: str, said: Known) -> None:
        before = self._known.get(event_id)
        after = resolve(before, said)
        if after == before:
            return
        if before is not None:
            self._drop(event_id, before)
        self._known[event_id] = after
        insort(self._order, (after.effective_us, event_id))
        if after.value == FRAUD:
            insort(self.frauds, after.effective_us)

    def _drop(self, event_id: str, known: Known) -> None:
        del self._order[bisect_left(self._order, (known.effective_us, event_id))]
        if known.value == FRAUD:
            del self.frauds[bisect_left(self.frauds, known.effective_us)]

    def prune(self, floor_us: int) -> None:
        """Forget payments at or before `floor_us`: no window can reach them again."""
        order = self._order
        if not order or order[0][0] > floor_us:
            return
        dead = bisect_left(order, (floor_us + 1, ""))
        for _, event_id in order[:dead]:
            del self._known[event_id]
        del order[:dead]
        del self.frauds[: bisect_right(self.frauds, floor_us)]

    def rows(self) -> list[tuple[str, Known]]:
        """Every standing word in the order of (payment time, event id)."""
        return [(event_id, self._known[event_id]) for _, event_id in self._order]

    def restore(self, event_id: str, known: Known) -> None:
        """Put back what `rows` gave."""
        self._put(event_id, known)
