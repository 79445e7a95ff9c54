"""The way of a candidate bundle to ACTIVE and back and again (learning.md §4): each turn takes the steps that are due.

Every step derives from the journal and the control log, so a turn may be repeated anywhere. A refusal never settles the
switch that df waits at: a later attempt may still promote.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fp_contracts.bundle import BundleRef
from fp_contracts.control import BundleApprovalGiven, BundleRescored
from fp_contracts.fold import RunState
from fp_contracts.ids import h32
from fp_contracts.registry import (
    BundleApproved,
    BundleChallengerNamed,
    BundlePromotedActive,
    BundlePublished,
    BundleRefused,
    BundleRolledBack,
    Scope,
    SwitchTimes,
    switch_times,
)
from fp_contracts.resolution import Registry, Serving, incompatibilities
from fp_ofs_trigger.aliases import Aliases, AliasesDown
from fp_ofs_trigger.candidate import Candidate
from fp_ofs_trigger.domain import probe_digest
from fp_ofs_trigger.members import Members, reported, rescored
from fp_ofs_trigger.registry_desk import Receipt, RegistryDesk
from fp_runtime.controllog import pins_of

ACTOR = "ofs_trigger"


class Marks(Protocol):
    """Moments of a run, kept as first seen."""

    def first(self, run: str, name: str, now_us: int) -> int:
        """When this was first seen (µs)."""
        ...


@dataclass(frozen=True, slots=True)
class Before:
    """What was in force before the corridor of this run: revision and bundle (None = guardrails only)."""

    revision: int = 0
    bundle: BundleRef | None = None


@dataclass(slots=True)
class Trail:
    """How far a candidate has come. None = not reached; `stopped` = why it goes no further by itself."""

    candidate: Candidate
    times: SwitchTimes | None = None
    before: Before = Before()
    tracker_fault: str | None = None
    incompatible: tuple[str, ...] = ()
    probe: Receipt | None = None
    probe_reasons: tuple[str, ...] = ()
    rescored: BundleRescored | None = None
    challenger: Receipt | None = None
    challenger_faults: tuple[str, ...] = ()
    approval: Receipt | None = None
    approval_faults: tuple[str, ...] = ()
    promoted: Receipt | None = None
    promotion_faults: tuple[str, ...] = ()
    rival_faults: tuple[str, ...] = ()
    on_promotion: Members | None = None
    rolled_back: Receipt | None = None
    on_rollback: Members | None = None
    rollback_us: int | None = None
    repromoted: Receipt | None = None
    on_repromotion: Members | None = None
    repromotion_us: int | None = None
    journal: Registry | None = None
    topic: Registry | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    alias_fault: str | None = None

    @property
    def challenged(self) -> bool:
        """Whether the baseline is named and read back, or none was trained."""
        if self.candidate.challenger is None:
            return self.candidate.challenger_fault is None
        return self.challenger is not None and self.challenger.equal

    @property
    def parity(self) -> bool:
        """Whether a df process gave every row of the evaluation the score of the report, to the last bit."""
        found, wanted = self.rescored, self.candidate.evaluated
        return found is not None and (found.rows, found.missing, found.scores_sha256) == (
            wanted.rows, 0, wanted.scores_sha256
        )  # fmt: skip


class Corridor:
    """Leads one candidate per run; see the module."""

    def __init__(self, desk: RegistryDesk, marks: Marks, aliases: Aliases, now_us: Callable[[], int]) -> None:
        self._desk = desk
        self._marks = marks
        self._aliases = aliases
        self._now_us = now_us

    def turn(self, state: RunState, candidate: Candidate, serving: Serving) -> Trail:
        """Take the steps that are due; what was reached."""
        assert state.header is not None
        trail = Trail(candidate, times=switch_times(state.header.config.windows))
        trail.incompatible = incompatibilities(candidate.published, serving)
        trail.tracker_fault = self._tracker_fault()
        if candidate.faults or trail.incompatible or trail.times is None or trail.tracker_fault is not None:
            if candidate.faults or trail.incompatible:
                self._refuse(state, candidate.published, (*candidate.faults, *trail.incompatible))
            return trail
        self._desk.write(pins_of(state), candidate.published)
        self._offer_probe(state, trail, serving)
        trail.rescored = rescored(state, candidate.published.bundle)
        self._approve(state, trail)
        if trail.approval is not None and trail.parity:
            self._name_challenger(state, trail, serving)
            if trail.challenged:
                self._promote(state, trail, trail.times)
        return trail

    def _tracker_fault(self) -> str | None:
        try:
            self._aliases.check()
        except AliasesDown as error:
            return str(error)
        return None

    def _refuse(self, state: RunState, offered: BundlePublished, reasons: tuple[str, ...]) -> Receipt | None:
        event = BundleRefused(
            scope=offered.scope, bundle=offered.bundle, reasons=reasons, actor=ACTOR, at_us=self._now_us()
        )
        found = self._desk.write(pins_of(state), event)
        return found if isinstance(found, Receipt) else None

    def _offer_probe(self, state: RunState, trail: Trail, serving: Serving) -> None:
        """Offer a bundle for other features: a corridor that lets it in proves nothing by letting the real one in."""
        real = trail.candidate.published
        digest = probe_digest(real.bundle)
        bundle = BundleRef(bundle_id=h32("probe", digest), model_digest=digest, manifest=real.bundle.manifest)
        probe = real.model_copy(update={"bundle": bundle, "feature_schema_digest": digest})
        trail.probe_reasons = incompatibilities(probe, serving)
        if trail.probe_reasons:
            trail.probe = self._refuse(state, probe, trail.probe_reasons)

    def _approve(self, state: RunState, trail: Trail) -> None:
        real, faults = trail.candidate.published, []
        for given in approvals(state, real.bundle):
            event = BundleApproved(
                scope=real.scope, bundle=real.bundle, requester=requester_of(state), actor=given.actor,
                at_us=self._now_us(),
            )  # fmt: skip
            found = self._desk.write(pins_of(state), event)
            if isinstance(found, Receipt):
                trail.approval = found
                return
            faults += [f"{given.actor}: {fault}" for fault in found]
        trail.approval_faults = tuple(faults)
        if faults:
            self._refuse(state, real, trail.approval_faults)

    def _name_challenger(self, state: RunState, trail: Trail, serving: Serving) -> None:
        """Before the promotion, so that the switch which settles with it finds it. Nobody approves what never acts."""
        offered, times = trail.candidate.challenger, trail.times
        if offered is None or times is None:
            return
        trail.challenger_faults = incompatibilities(offered, serving)
        if trail.challenger_faults:
            self._refuse(state, offered, trail.challenger_faults)
            return
        self._desk.write(pins_of(state), offered)
        standing = self._desk.registry(offered.scope.bundle_slot).scope(offered.scope).challenges
        earlier = [one for one in standing if (one.bundle, one.effective_us) != (offered.bundle, times.promote_us)]
        event = BundleChallengerNamed(
            scope=offered.scope, bundle=offered.bundle, previous=earlier[-1].bundle if earlier else None,
            challenger_revision=len(earlier) + 1, effective_us=times.promote_us, actor=ACTOR, at_us=self._now_us(),
        )  # fmt: skip
        found = self._desk.write(pins_of(state), event)
        if isinstance(found, Receipt):
            trail.challenger = found
        else:
            trail.challenger_faults = found

    def _promote(self, state: RunState, trail: Trail, times: SwitchTimes) -> None:
        scope = trail.candidate.published.scope
        trail.before = before(self._desk.registry(scope.bundle_slot), scope, times)
        trail.promoted = self._activate(state, trail, trail.before.revision + 1, times.promote_us)
        if trail.promoted is None:
            return
        trail.rival_faults = self._rival(state, trail)
        trail.on_promotion = reported(
            state, scope.bundle_slot, trail.before.revision + 1, trail.candidate.published.bundle
        )
        if trail.on_promotion.complete:
            self._drill(state, trail, times)
        if trail.on_repromotion is not None and trail.on_repromotion.complete:
            trail.journal = self._desk.registry(scope.bundle_slot)
            trail.topic = self._desk.registry_on_topic(scope.bundle_slot)
            self._follow(trail)

    def _activate(self, state: RunState, trail: Trail, revision: int, effective_us: int) -> Receipt | None:
        real = trail.candidate.published
        event = BundlePromotedActive(
            scope=real.scope, bundle=real.bundle, previous=trail.before.bundle, fallback=trail.before.bundle,
            revision=revision, effective_us=effective_us, actor=ACTOR, at_us=self._now_us(),
        )  # fmt: skip
        found = self._desk.write(pins_of(state), event)
        if isinstance(found, Receipt):
            return found
        trail.promotion_faults = (*trail.promotion_faults, *found)
        return None

    def _rival(self, state: RunState, trail: Trail) -> tuple[str, ...]:
        """Promote at the same revision once more, for another time: of two at once, one must lose."""
        assert trail.promoted is not None
        event = trail.promoted.event
        assert isinstance(event, BundlePromotedActive)
        found = self._desk.write(pins_of(state), event.model_copy(update={"effective_us": event.effective_us + 1}))
        return () if isinstance(found, Receipt) else found

    def _drill(self, state: RunState, trail: Trail, times: SwitchTimes) -> None:
        """Back to what decided before, measured until every member reported it; then forward again."""
        real, run = trail.candidate.published, state.platform_run_id
        event = BundleRolledBack(
            scope=real.scope, bundle=trail.before.bundle, previous=real.bundle, revision=trail.before.revision + 2,
            effective_us=times.rollback_us, actor=ACTOR, reason="rollback drill", at_us=self._now_us(),
        )  # fmt: skip
        found = self._desk.write(pins_of(state), event)
        if not isinstance(found, Receipt):
            trail.promotion_faults = (*trail.promotion_faults, *found)
            return
        trail.rolled_back = found
        trail.on_rollback = reported(state, real.scope.bundle_slot, trail.before.revision + 2, trail.before.bundle)
        if not trail.on_rollback.complete:
            return
        trail.rollback_us = self._marks.first(run, "rollback_reported", self._now_us()) - found.event.at_us
        trail.repromoted = self._activate(state, trail, trail.before.revision + 3, times.repromote_us)
        if trail.repromoted is None:
            return
        trail.on_repromotion = reported(state, real.scope.bundle_slot, trail.before.revision + 3, real.bundle)
        if trail.on_repromotion.complete:
            seen_us = self._marks.first(run, "repromotion_reported", self._now_us())
            trail.repromotion_us = seen_us - trail.repromoted.event.at_us

    def _follow(self, trail: Trail) -> None:
        """Aliases follow what is active; they never lead."""
        published = trail.candidate.published
        offered = trail.candidate.challenger
        beside = offered.bundle if offered is not None and trail.challenger is not None else None
        try:
            trail.aliases = dict(
                self._aliases.follow(published.scope.bundle_slot, published.bundle, trail.before.bundle, beside)
            )
        except AliasesDown as error:
            trail.alias_fault = str(error)


def before(registry: Registry, scope: Scope, times: SwitchTimes) -> Before:
    """What was in force before the promotion of this run, whether that has happened yet or not."""
    earlier = [found for found in registry.scope(scope).activations if found.effective_us < times.promote_us]
    return Before(earlier[-1].revision, earlier[-1].bundle) if earlier else Before()


def requester_of(state: RunState) -> str:
    """Who asked for the promotion: who asked for the run."""
    return state.pin_request.actor if state.pin_request is not None else ACTOR


def approvals(state: RunState, bundle: BundleRef) -> list[BundleApprovalGiven]:
    """What people approved of exactly this bundle, in the order they did."""
    return [
        given
        for given in state.approvals
        if (given.bundle_id, given.model_digest) == (bundle.bundle_id, bundle.model_digest)
    ]
