"""The registry topic as df follows it: from its beginning, slot by slot, only while a switch is open."""

from collections.abc import Callable, Sequence

import structlog

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.records import RecordError
from fp_contracts.registry import BundlePublished, read_registry
from fp_df.domain import Scored
from fp_df.models import Models
from fp_df.serving import BundlePlan, Served, Switchboard
from fp_df.shadow import Beside
from fp_runtime.bus import Consumer, Record
from fp_runtime.readback import read_back

log = structlog.get_logger()
LOOK_S = 0.1


class Bundles:
    """What decides beside the guardrails, over one run. Reads the topic to its end before anything is decided."""

    def __init__(self, plan: BundlePlan, consumer: Consumer, models: Models, clock: Callable[[], float]) -> None:
        self._slot = plan.scope.bundle_slot
        self._consumer = consumer
        self._models = models
        self._clock = clock
        self._looked_at = clock()
        self._board = Switchboard(plan, models.fault)
        self.beside = Beside(models.score)
        """Scores challengers; see Beside.shadows."""
        place = (topics.REGISTRY_EVENTS, plan.partition)
        ends = consumer.ends([place])
        for record in read_back(consumer, consumer.begins([place]), ends):
            self._take(record)
        self._board.caught_up()
        consumer.assign(ends)

    def turn(self) -> None:
        """Look for what settles an open switch; without one nothing more is of interest."""
        now = self._clock()
        if self._board.open_us() is None or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        for record in self._consumer.poll(500, 0.0):
            self._take(record)

    def _take(self, record: Record) -> None:
        if record.key != self._slot.encode():
            return
        try:
            event = read_registry(record.value)[1]
        except RecordError as error:
            log.error("registry_record_refused", offset=record.offset, why=str(error))
        else:
            self._board.take(event, record.offset)

    def hold_us(self) -> int | None:
        """The event time of the first pinned switch that is not settled: the merge stops there."""
        return self._board.open_us()

    def served(self, effective_us: int) -> Served:
        """What decides from a settled switch on, or from the beginning (NONE_TS)."""
        return self._board.served(effective_us)

    def offered(self) -> Sequence[BundlePublished]:
        """Bundles published in the run's scope so far; also for other threads."""
        return self._board.offered()

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """See Models.score."""
        return self._models.score(bundle, vectors)
