"""Which bundle decides from which event time on: the registry, read up to what settles each pinned switch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fp_contracts.bundle import BundleRef
from fp_contracts.header import NONE_TS
from fp_contracts.reasons import Degrade
from fp_contracts.registry import BundlePublished, RegistryPayload, Scope, bundle_text
from fp_contracts.resolution import Registry, Serving, challenger_at, fold, incompatibilities, resolve
from fp_df.domain import GUARDRAILS, Advice, Scored
from fp_df.shadow import Challenger
from fp_runtime.errors import Unavailable

Source = Literal["tenant", "global", "fallback", "guardrails"]


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What a run pins of its bundles: scope, switch times (µs, ascending), what can be served.

    `partition` of the registry topic holds the slot; what lies there before `start_offset` is older than the run.
    """

    scope: Scope
    times: tuple[int, ...]
    serving: Serving
    partition: int
    start_offset: int


class Served(NamedTuple):
    """What decides from a switch on: a registry revision (0 = none yet) and the bundle that it comes to.

    `bundle` None = guardrails only. `skipped` = bundle id and why it cannot serve. `challenger`: scored, never acting.
    """

    revision: int
    source: Source
    bundle: BundleRef | None
    skipped: tuple[tuple[str, str], ...] = ()
    challenger: Challenger | None = None

    @property
    def ref(self) -> str | None:
        """The bundle_ref of its decisions."""
        return None if self.bundle is None else bundle_text(self.bundle)

    @property
    def reason(self) -> str:
        """Why the bundle that was named does not decide; empty when it does."""
        told = "; ".join(f"{bundle_id}: {why}" for bundle_id, why in self.skipped)
        return told or ("" if self.bundle is not None else "rolled back" if self.revision else "nothing promoted")

    def document(self) -> list[Any]:
        """As it is journaled with the progress that it decides."""
        bundle = None if self.bundle is None else self.bundle.model_dump(mode="json")
        beside = self.challenger
        named = () if beside is None else ([beside.bundle.model_dump(mode="json"), beside.fault],)
        return [self.revision, self.source, bundle, self.skipped, *named]

    @classmethod
    def of_document(cls, document: Sequence[Any]) -> "Served":
        """What `document` gave."""
        revision, source, bundle, skipped, *named = document
        found = None if bundle is None else BundleRef.model_validate(bundle)
        beside = Challenger(BundleRef.model_validate(named[0][0]), named[0][1]) if named else None
        return cls(revision, source, found, tuple((bundle_id, why) for bundle_id, why in skipped), beside)


NOTHING = Served(0, "guardrails", None)
_UNUSABLE = Advice(None, None, Degrade.MODEL_UNUSABLE.value)


def advice(served: Served, scored: Scored | None) -> Advice:
    """What the model side says of one payment; ValueError when a bundle decides and the payment was not scored."""
    if served.bundle is None:
        return _UNUSABLE if served.skipped else GUARDRAILS
    if scored is None:
        raise ValueError(f"not scored by {served.ref}")
    return Advice(served.ref, scored, Degrade.MODEL_FALLBACK.value if served.source == "fallback" else None)


class Switchboard:
    """The fold of the registry over a run. `load(bundle)` tells why a bundle's bytes cannot serve, None = they can.

    A switch is resolved on the records up to the one that settled it, so it comes to the same whenever they are read.
    """

    def __init__(self, plan: BundlePlan, load: Callable[[BundleRef], str | None]) -> None:
        self._plan = plan
        self._load = load
        self._registry = Registry()
        self._served: dict[int, Served] = {}

    def take(self, event: RegistryPayload, offset: int) -> None:
        """The next record of the slot and its offset."""
        before = self._registry
        self._registry = fold(before, event)
        if offset < self._plan.start_offset:
            return
        self._begin(before)
        settled = self._registry.scope(self._plan.scope).settled
        for time_us in self._plan.times:
            if time_us in settled and time_us not in self._served:
                self._served[time_us] = self._resolved(self._registry, time_us)

    def caught_up(self) -> None:
        """The topic was read to its end: nothing more comes from before the run."""
        self._begin(self._registry)

    def _begin(self, registry: Registry) -> None:
        """What was in force when the run began: all of the scope before the first switch of the run."""
        if NONE_TS in self._served:
            return
        first_us = self._plan.times[0] if self._plan.times else 2**62
        self._served[NONE_TS] = self._resolved(registry, first_us - 1)

    def _resolved(self, registry: Registry, order_us: int) -> Served:
        def unusable(bundle: BundleRef) -> str | None:
            published = registry.published.get(bundle.bundle_id)
            if published is None:
                return "not published"
            return "; ".join(incompatibilities(published, self._plan.serving)) or self._load(bundle)

        found = resolve(registry, self._plan.scope, order_us, unusable)
        beside = challenger_at(registry, self._plan.scope, order_us, found.bundle)
        challenger = None if beside is None else Challenger(beside, _fault(beside, unusable))
        return Served(found.revision, found.source, found.bundle, found.skipped, challenger)

    def open_us(self) -> int | None:
        """The first pinned switch that nothing has settled yet: the merge is held there."""
        return next((time_us for time_us in self._plan.times if time_us not in self._served), None)

    def served(self, effective_us: int) -> Served:
        """What decides from a settled switch on, or from the beginning (NONE_TS); KeyError when it is not settled."""
        return self._served[effective_us]

    def offered(self) -> Sequence[BundlePublished]:
        """Bundles published in the scope so far."""
        return [one for one in self._registry.published.values() if one.scope == self._plan.scope]


def _fault(bundle: BundleRef, unusable: Callable[[BundleRef], str | None]) -> str:
    """Why a challenger cannot serve. A store that does not answer is no reason to hold decisions up for it."""
    try:
        return unusable(bundle) or ""
    except Unavailable as error:
        return f"unavailable: {error}"
