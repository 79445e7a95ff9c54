"""Publishing of committed records beside the next turn: one round under way, its facts with the next commit (law 4)."""

from collections.abc import Callable, Sequence

from fp_runtime.bus import Flight, Producer
from fp_runtime.errors import Unavailable
from fp_runtime.outbox import Published, Queued, acknowledged


class Courier:
    """Takes committed records to the bus and keeps where they were acknowledged until that is recorded.

    Nobody waits for a round before its successor is committed; a crash before its facts are repeats the same bytes.
    """

    def __init__(self, producer: Producer, record: Callable[[Sequence[Published]], None]) -> None:
        """`record` makes facts durable in a transaction of its own."""
        self._producer = producer
        self._record = record
        self._flying: tuple[Sequence[Queued], Flight] | None = None
        self.facts: list[Published] = []
        """Acknowledged and not recorded yet: for the next commit, then `told`."""

    def send(self, queued: Sequence[Queued]) -> None:
        """Publish committed records, once the round before them has landed. Raises Unavailable, BusBroken."""
        if queued:
            self.land()
            self._flying = queued, self._producer.begin([item.out for item in queued])

    def land(self) -> bool:
        """Wait for what is under way; whether anything was. Unavailable when a record of it was not acknowledged."""
        if self._flying is None:
            return False
        (queued, flight), self._flying = self._flying, None
        acked = acknowledged(queued, flight.deliveries())
        self.facts += acked
        if len(acked) != len(queued):
            self.record()
            raise Unavailable(f"{len(queued) - len(acked)} of {len(queued)} records not acknowledged")
        return True

    def told(self) -> bool:
        """The facts are durable; whether there were any."""
        any_told, self.facts = bool(self.facts), []
        return any_told

    def record(self) -> bool:
        """Make the facts durable by themselves; whether there were any."""
        if self.facts:
            self._record(self.facts)
        return self.told()
