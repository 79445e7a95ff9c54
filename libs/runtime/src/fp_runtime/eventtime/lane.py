"""The writer's side of a lane: order_ts as the running maximum of what the lane admitted (dataflow.md §2-3)."""

from dataclasses import dataclass

from fp_contracts.header import NONE_TS


@dataclass(slots=True)
class LaneOrder:
    """The lowest order_ts (µs) the lane may still give. Rises with admitted records and with declared frontiers.

    Work on a copy inside a claim transaction: a rolled-back batch must leave no trace. A replayed lane declares only
    frontiers at or below the order_ts of its next record, so that `declare` never changes an order there; the order
    would else depend on where the batches were cut.
    """

    floor_us: int = NONE_TS

    def order_of(self, ts_us: int) -> int:
        """order_ts of an admitted record: never below what was given or declared before; above ts_us = LATE."""
        self.floor_us = max(self.floor_us, ts_us)
        return self.floor_us

    def declare(self, frontier_us: int) -> None:
        """The source promised that nothing below `frontier_us` comes any more."""
        self.floor_us = max(self.floor_us, frontier_us)
