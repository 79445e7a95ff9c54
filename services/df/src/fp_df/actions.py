"""The action layer: executes each intent of each decision once, and records how it ended. Truth stage.

Decisions are worked off in log order per rtdl partition; an action's effect is made idempotent by its key, so a crash
between the call and the commit repeats the call and changes nothing at the actuator.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from fp_contracts import topics
from fp_df.actmarks import Asked, Effects, Executed, Progress
from fp_df.desk import Desk
from fp_df.plan import RunPlan
from fp_runtime.bus import Consumer, Producer
from fp_runtime.courier import Courier
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.outbox import Published, Queued

POLL_S = 0.2  # longer than the broker gathers: a poll without a record means that none is there
BATCH = 2_000
PROGRESS_S = 1.0
"""Progress without effects is committed this often, and when nothing comes: nearly all decisions ask for nothing."""


class Actuator(Protocol):
    """Who carries intents out. Unavailable while it cannot be reached: then nothing is decided about the outcomes."""

    def execute(self, asked: Sequence[Asked]) -> list[Executed]:
        """Carry out intents, in order; an idempotency key is carried out once, whenever it is asked for again."""
        ...


class Store(Protocol):
    """Where the action layer's truth lives. Every method raises Unavailable; `commit` also Fenced."""

    def own(self, parts: Sequence[int]) -> None:
        """Become the one owner of these partitions."""
        ...

    def load(self, part: int) -> Progress | None:
        """Progress of a partition, None before the first commit."""
        ...

    def unpublished(self, part: int) -> list[Queued]:
        """Committed records of a partition without a publish fact, in order."""
        ...

    def commit(self, effects: Sequence[Effects], published: Sequence[Published]) -> None:
        """All effects and progress in one transaction, with where records of earlier ones were acknowledged."""
        ...

    def record_facts(self, published: Sequence[Published]) -> None:
        """Where committed records were acknowledged."""
        ...


class Actor:
    """The loop of one member of the action layer."""

    def __init__(
        self, plan: RunPlan, parts: Sequence[int], store: Store, consumer: Consumer, producer: Producer,
        actuator: Actuator, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._consumer = consumer
        self._actuator = actuator
        self._clock = clock
        self._courier = Courier(producer, store.record_facts)
        store.own(parts)
        for part in parts:
            self._courier.send(store.unpublished(part))
        self._courier.land()
        self._courier.record()
        self.desks = {part: Desk(plan, part, store.load(part)) for part in parts}
        consumer.assign({(topics.RTDL, part): desk.start for part, desk in self.desks.items()})
        self._committed_at = clock()

    def turn(self) -> int:
        """One turn; the number of records read."""
        records = self._consumer.poll(BATCH, POLL_S)
        for record in records:
            self.desks[record.partition].take(record)
        self._execute()
        effects = any(desk.has_effects() for desk in self.desks.values())
        if effects or not records or self._clock() - self._committed_at >= PROGRESS_S:
            self._commit()
        return len(records)

    def _execute(self) -> None:
        """All that is asked for in one call. Unavailable leaves it unworked: nothing of it is committed."""
        asked = {part: desk.asked() for part, desk in self.desks.items()}
        together = [one for ones in asked.values() for one in ones]
        if not together:
            return
        _hit_each(Failpoint.AL_BEFORE_CALL, together)
        executed = self._actuator.execute(together)
        _hit_each(Failpoint.AL_AFTER_CALL, together)
        at = 0
        for part, ones in asked.items():
            self.desks[part].ended(executed[at : at + len(ones)])
            at += len(ones)

    def _commit(self) -> None:
        self._committed_at = self._clock()
        self._courier.land()
        drained = [effects for desk in self.desks.values() if (effects := desk.drain()) is not None]
        if not drained:
            self._courier.record()
            return
        self._store.commit(drained, self._courier.facts)
        self._courier.told()
        hit(Failpoint.AL_AFTER_COMMIT)
        self._courier.send([queued for effects in drained for queued in effects.queued])
        self._consumer.commit({(topics.RTDL, e.part): e.progress.next_offset for e in drained})

    def finish(self) -> None:
        """Before an orderly end: nothing that only memory knows is left."""
        self._commit()
        self._courier.land()
        self._courier.record()

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat; read from the control thread."""
        total: Counter[str] = Counter()
        for desk in self.desks.values():
            total.update(desk.counts)
        return {f"outcome_{status.lower()}": n for status, n in total.items()}


def _hit_each(point: Failpoint, asked: Iterable[Asked]) -> None:
    for _ in asked:
        hit(point)
