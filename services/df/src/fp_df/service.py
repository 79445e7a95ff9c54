"""The loop of one df member: poll, merge, decide, commit, publish, checkpoint. Truth stage: commit, then publish."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Protocol

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.header import NONE_TS
from fp_contracts.reasons import Action
from fp_contracts.registry import BundlePublished
from fp_df.domain import Scored, Switch
from fp_df.marks import Batch, StateMark, Truth
from fp_df.partition import Case, Partition
from fp_df.plan import RunPlan
from fp_df.serving import NOTHING, Served
from fp_df.shadow import Beside, Challenger
from fp_runtime.bus import Consumer, Producer
from fp_runtime.courier import Courier
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.outbox import Published, Queued
from fp_runtime.telemetry import Metric, gauge

POLL_S = 0.02
GATHER_S = 0.01
"""Behind the first decidable payment of a wave: longest wait for what the other members of rtdl say of it."""
READ, BATCH = 2_000, 500
CHECKPOINT_S = 15.0
"""A partition's account states are saved this often: most accounts change within a second, and a restart re-feeds
thousands of heads in no time. One partition after the other, so that no turn waits for all accounts."""
PROGRESS_S = 0.1
"""Progress without effects (watermarks, our own records read back) is committed this often: it only moves offsets."""


class Store(Protocol):
    """Where truth and checkpoints live. Every method raises Unavailable; `commit` and `save` also Fenced."""

    def own(self, parts: Sequence[int]) -> None:
        """Become the one owner of these partitions."""
        ...

    def load(self, part: int) -> tuple[Truth, StateMark | None, Mapping[str, bytes]]:
        """Truth progress, state checkpoint (None before the first) and account states of a partition."""
        ...

    def unpublished(self, part: int) -> list[Queued]:
        """Committed records of a partition without a publish fact, in order."""
        ...

    def commit(self, batches: Sequence[Batch], published: Sequence[Published]) -> None:
        """All effects and progress in one transaction, with where records of earlier ones were acknowledged."""
        ...

    def record_facts(self, published: Sequence[Published]) -> None:
        """Where committed records were acknowledged."""
        ...

    def save(self, saved: Mapping[int, tuple[StateMark, int, Mapping[str, bytes]]]) -> None:
        """State checkpoints of all partitions in one transaction."""
        ...


class Models(Protocol):
    """What decides beside the guardrails: the registry up to now, and the scores of its bundles. Raises Unavailable."""

    beside: Beside
    """Scores challengers, which never raises."""

    def turn(self) -> None:
        """Look for what settles an open switch."""
        ...

    def hold_us(self) -> int | None:
        """The event time (µs) of the first pinned switch that is not settled: the merge stops there."""
        ...

    def served(self, effective_us: int) -> Served:
        """What decides from a settled switch on, or from the beginning (NONE_TS)."""
        ...

    def offered(self) -> Sequence[BundlePublished]:
        """Bundles published in the run's scope so far; also for other threads."""
        ...

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """What a bundle says of each vector, with the same bits in every batch."""
        ...


class NoModels:
    """Guardrails only."""

    def __init__(self) -> None:
        self.beside = Beside(self.score)

    def turn(self) -> None:
        """See Models."""

    def hold_us(self) -> int | None:
        """See Models."""
        return None

    def served(self, effective_us: int) -> Served:
        """See Models."""
        return NOTHING

    def offered(self) -> Sequence[BundlePublished]:
        """See Models."""
        return ()

    def score(self, bundle: BundleRef, vectors: Sequence[tuple[float, ...]]) -> list[Scored]:
        """See Models: without a registry no bundle has anything to say."""
        return [Scored(None, Action.ALLOW)] * len(vectors)


class Decider:
    """One member's partitions of one run. `announced(rev, effective_us)` tells whether a switch may take effect."""

    def __init__(
        self,
        plan: RunPlan,
        parts: Sequence[int],
        store: Store,
        consumer: Consumer,
        producer: Producer,
        announced: Callable[[Switch], bool],
        clock: Callable[[], float],
        models: Models | None = None,
    ) -> None:
        self._plan = plan
        self._models = models or NoModels()
        self._store = store
        self._consumer = consumer
        self._announced = announced
        self._clock = clock
        self._courier = Courier(producer, store.record_facts)
        store.own(parts)
        for part in parts:
            self._courier.send(store.unpublished(part))
        self._land()
        self._record_facts()
        served = self._models.served
        self.partitions = {part: Partition(plan, part, *store.load(part), served) for part in parts}
        self._shown: dict[int, list[dict[str, str | int]]] = {}
        consumer.assign({(topics.RTDL, part): p.start for part, p in self.partitions.items()})
        self._saved_at = self._committed_at = clock()
        self._to_save = cycle(self.partitions)
        self._behind = False

    def turn(self) -> int:
        """One turn; the number of records read and of payments taken in order."""
        read = 0 if self._behind else self._read(POLL_S)
        self._models.turn()
        hold_us = self._held_at()
        released = self._advance(hold_us)
        until_s = self._clock() + GATHER_S
        while self._half_a_wave() and (left_s := until_s - self._clock()) > 0 and (more := self._read(left_s)):
            read += more
            released += self._advance(hold_us)
        if self._plan.bundles is not None:
            self._score()
        self._commit()
        if self.partitions and self._clock() - self._saved_at >= CHECKPOINT_S / len(self.partitions):
            self._save([next(self._to_save)])
        return read + released

    def _read(self, timeout_s: float) -> int:
        records = self._consumer.poll(READ, timeout_s)
        for record in records:
            self.partitions[record.partition].take(record)
        return len(records)

    def _advance(self, hold_us: int | None) -> int:
        """Take what is decidable in order; what is left over by the limit is decided before more is read."""
        released = [partition.advance(BATCH, hold_us) for partition in self.partitions.values()]
        self._behind = BATCH in released
        return sum(released)

    def _half_a_wave(self) -> bool:
        """Whether there is something to commit and some input that said nothing since the last commit: one commit for
        a whole wave costs half of two."""
        if self._behind:
            return False
        partitions = self.partitions.values()
        return any(one.has_effects() for one in partitions) and not all(one.all_rose() for one in partitions)

    def _held_at(self) -> int | None:
        """The event time of the first pinned switch that is not announced yet: the merge stops there."""
        hold_us = self._models.hold_us()
        for switch in self._plan.switches:
            if switch.effective_us != NONE_TS and not self._announced(switch):
                return switch.effective_us if hold_us is None else min(hold_us, switch.effective_us)
        return hold_us

    def _score(self) -> None:
        """One call per bundle for all partitions together: a call costs as much as dozens of its rows."""
        asked: dict[str, tuple[BundleRef, list[Case]]] = {}
        shadowed: dict[tuple[str, str], tuple[Challenger, list[Case]]] = {}
        for partition in self.partitions.values():
            for case in partition.cases:
                if (bundle := case.served.bundle) is not None:
                    asked.setdefault(bundle.bundle_id, (bundle, []))[1].append(case)
                if (named := case.served.challenger) is not None:
                    shadowed.setdefault((named.bundle.bundle_id, named.fault), (named, []))[1].append(case)
        for bundle, cases in asked.values():
            scores = self._models.score(bundle, [case.vector for case in cases])
            for case, scored in zip(cases, scores, strict=True):
                case.scored = scored
        for named, cases in shadowed.values():
            told = self._models.beside.shadows(named, [case.vector for case in cases])
            for case, shadow in zip(cases, told, strict=True):
                case.shadow = shadow

    def _commit(self) -> None:
        effects = any(partition.has_effects() for partition in self.partitions.values())
        if not effects and self._clock() - self._committed_at < PROGRESS_S:
            return
        self._committed_at = self._clock()
        self._land()
        drained = (partition.drain() for partition in self.partitions.values())
        batches = [batch for batch in drained if batch is not None]
        if not batches:
            self._record_facts()
            return
        hit(Failpoint.DF_BEFORE_COMMIT)
        self._store.commit(batches, self._courier.facts)
        hit(Failpoint.DF_AFTER_COMMIT)
        if self._courier.told():
            hit(Failpoint.DF_AFTER_FACT)
        self._show_in_use()
        self._courier.send([queued for batch in batches for queued in batch.queued])

    def _show_in_use(self) -> None:
        """fp.bundle.active of each partition moves where the bundle does: at the position, in the log's order."""
        for part, partition in self.partitions.items():
            shown = self._shown.setdefault(part, [])
            for using in partition.uses()[len(shown) :]:
                if shown:
                    gauge(Metric.ACTIVE_BUNDLE).set(0, shown[-1])
                shown.append({"run": self._plan.run, "partition": part, **using})
                gauge(Metric.ACTIVE_BUNDLE).set(1, shown[-1])

    def _land(self) -> None:
        if self._courier.land():
            hit(Failpoint.DF_AFTER_PUBLISH)

    def _record_facts(self) -> None:
        if self._courier.record():
            hit(Failpoint.DF_AFTER_FACT)

    def finish(self) -> None:
        """Before an orderly end: nothing that only memory knows is left."""
        self._land()
        self._record_facts()
        self.checkpoint()

    def checkpoint(self) -> None:
        """Save the account states that changed; derived, so it only shortens the next start."""
        self._save(self.partitions)

    def _save(self, parts: Iterable[int]) -> None:
        saved: dict[int, tuple[StateMark, int, Mapping[str, bytes]]] = {}
        for part in parts:
            mark = self.partitions[part].checkpoint()
            if mark is not None:
                saved[part] = mark
        if saved:
            self._store.save(saved)
            self._consumer.commit({(topics.RTDL, part): mark[0].resume_offset for part, mark in saved.items()})
        self._saved_at = self._clock()

    def offered(self) -> Sequence[BundlePublished]:
        """Bundles that may be promoted in this run, for the control thread."""
        return self._models.offered()

    def metrics(self) -> dict[str, int]:
        """Numbers for the heartbeat; read from the control thread."""
        partitions = tuple(self.partitions.values())
        counts = {f"action_{action.lower()}": 0 for action in ("ALLOW", "STEP_UP", "REVIEW", "BLOCK")}
        for partition in partitions:
            for action, n in tuple(partition.counts.items()):
                counts[f"action_{action.lower()}"] += n
        return {
            **counts,
            "decided": sum(counts.values()),
            "waiting": sum(partition.waiting() for partition in partitions),
            "foreign": sum(partition.foreign for partition in partitions),
            "challenger_scored": self._models.beside.scored,
            "challenger_unscored": self._models.beside.unscored,
            "bundle_revision": min((partition.in_use.revision for partition in partitions), default=0),
            "watermark_us": min((partition.horizon_us() for partition in partitions), default=NONE_TS),
        }
