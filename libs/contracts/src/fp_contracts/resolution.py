"""The fold of the registry topic, and what it resolves to at an event time. Pure; the same in df and in the corridor.

Exactly one bundle is ACTIVE per scope: an activation that does not follow the last revision is passed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from fp_contracts.bundle import BundleRef
from fp_contracts.registry import (
    GLOBAL,
    BundleApproved,
    BundleChallengerNamed,
    BundleChallengerWithdrawn,
    BundlePromotedActive,
    BundlePublished,
    BundleRefused,
    BundleRetired,
    BundleRolledBack,
    RegistryPayload,
    Scope,
    registry_event_id,
)


@dataclass(frozen=True, slots=True)
class Activation:
    """What a scope's revision decides with from `effective_us` on; `bundle` None = guardrails only, on purpose."""

    revision: int
    effective_us: int
    bundle: BundleRef | None
    fallback: BundleRef | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is scored beside, from `effective_us` on; `bundle` None = nothing, the challenger was withdrawn."""

    revision: int
    effective_us: int
    bundle: BundleRef | None


@dataclass(frozen=True, slots=True)
class ScopeState:
    """One scope: activations and challengers by revision, and the event times settled by activation or refusal."""

    activations: tuple[Activation, ...] = ()
    settled: frozenset[int] = frozenset()
    challenges: tuple[Challenge, ...] = ()

    @property
    def revision(self) -> int:
        """The last revision; 0 before the first activation."""
        return self.activations[-1].revision if self.activations else 0

    @property
    def active(self) -> BundleRef | None:
        """The one ACTIVE bundle; None = guardrails only."""
        return self.activations[-1].bundle if self.activations else None

    @property
    def challenger(self) -> BundleRef | None:
        """The one challenger; None = nothing is scored beside."""
        return self.challenges[-1].bundle if self.challenges else None

    def challenge_at(self, order_us: int) -> Challenge | None:
        """The challenge in force at an event time."""
        return next((found for found in reversed(self.challenges) if found.effective_us <= order_us), None)

    def at(self, order_us: int) -> Activation | None:
        """The activation in force at an event time."""
        return next((found for found in reversed(self.activations) if found.effective_us <= order_us), None)


@dataclass(frozen=True, slots=True)
class Registry:
    """What the registry topic says. `published` by bundle id; `passed_over` names events not applied, and why."""

    published: Mapping[str, BundlePublished] = field(default_factory=dict)
    approved: frozenset[tuple[Scope, str]] = frozenset()
    retired: frozenset[str] = frozenset()
    scopes: Mapping[Scope, ScopeState] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()

    def scope(self, scope: Scope) -> ScopeState:
        """The state of a scope; empty when nothing was activated there."""
        return self.scopes.get(scope, ScopeState())


def fold(registry: Registry, event: RegistryPayload) -> Registry:
    """The next state. Total: an event that must not count is passed over with its reason. Repeats change nothing."""
    match event:
        case BundlePublished():
            return replace(registry, published={event.bundle.bundle_id: event, **registry.published})
        case BundleApproved():
            if event.actor == event.requester:
                return _passed_over(registry, event, "approved by its requester")
            return replace(registry, approved=registry.approved | {(event.scope, event.bundle.model_digest)})
        case BundlePromotedActive() | BundleRolledBack():
            return _activate(registry, event)
        case BundleRefused():
            return _settle(registry, event)
        case BundleChallengerNamed() | BundleChallengerWithdrawn():
            return _challenge(registry, event)
        case BundleRetired():
            if any(event.bundle in (state.active, state.challenger) for state in registry.scopes.values()):
                return _passed_over(registry, event, "retired while active or challenger")
            return replace(registry, retired=registry.retired | {event.bundle.model_digest})
        case _:
            assert_never(event)


def promotion_faults(registry: Registry, event: BundlePromotedActive | BundleRolledBack) -> tuple[str, ...]:
    """Why an activation may not count: out of turn, not published or approved, or its own fallback; empty = it may."""
    state = registry.scope(event.scope)
    faults = []
    if event.revision != state.revision + 1:
        faults.append(f"revision {event.revision} does not follow {state.revision}")
    if event.previous != state.active:
        faults.append("another bundle is active than the one it replaces")
    if state.activations and event.effective_us < state.activations[-1].effective_us:
        faults.append("effective before the revision it follows")
    faults += _bundle_faults(registry, event)
    fallback = event.fallback if isinstance(event, BundlePromotedActive) else None
    if fallback is not None and event.bundle is not None and fallback.model_digest == event.bundle.model_digest:
        faults.append("the bundle is its own fallback")
    return tuple(faults)


def challenger_faults(registry: Registry, event: BundleChallengerNamed | BundleChallengerWithdrawn) -> tuple[str, ...]:
    """Why a challenger may not be named or withdrawn; empty = it may. It never acts, so nobody has to approve it."""
    state, faults = registry.scope(event.scope), []
    last = state.challenges[-1] if state.challenges else Challenge(0, event.effective_us, None)
    if event.challenger_revision != last.revision + 1:
        faults.append(f"challenger revision {event.challenger_revision} does not follow {last.revision}")
    if event.previous != last.bundle:
        faults.append("another bundle is the challenger than the one it replaces")
    if event.effective_us < last.effective_us:
        faults.append("effective before the challenger revision it follows")
    if isinstance(event, BundleChallengerNamed):
        known = registry.published.get(event.bundle.bundle_id)
        if known is None or known.bundle != event.bundle:
            faults.append("the bundle is not published")
        if event.bundle.model_digest in registry.retired:
            faults.append("the bundle is retired")
        if state.active is not None and state.active.model_digest == event.bundle.model_digest:
            faults.append("the bundle is active")
    return tuple(faults)


def _challenge(registry: Registry, event: BundleChallengerNamed | BundleChallengerWithdrawn) -> Registry:
    state = registry.scope(event.scope)
    named = event.bundle if isinstance(event, BundleChallengerNamed) else None
    challenge = Challenge(event.challenger_revision, event.effective_us, named)
    if challenge in state.challenges:
        return registry
    if faults := challenger_faults(registry, event):
        return _passed_over(registry, event, "; ".join(faults))
    grown = replace(state, challenges=(*state.challenges, challenge))
    return replace(registry, scopes={**registry.scopes, event.scope: grown})


def _bundle_faults(registry: Registry, event: BundlePromotedActive | BundleRolledBack) -> list[str]:
    if event.bundle is None:
        return []
    digest, faults = event.bundle.model_digest, []
    known = registry.published.get(event.bundle.bundle_id)
    if known is None or known.bundle != event.bundle:
        faults.append("the bundle is not published")
    if (event.scope, digest) not in registry.approved:
        faults.append("the bundle is not approved")
    if digest in registry.retired:
        faults.append("the bundle is retired")
    return faults


def _activate(registry: Registry, event: BundlePromotedActive | BundleRolledBack) -> Registry:
    state = registry.scope(event.scope)
    fallback = event.fallback if isinstance(event, BundlePromotedActive) else None
    activation = Activation(event.revision, event.effective_us, event.bundle, fallback)
    if activation in state.activations:
        return registry
    faults = promotion_faults(registry, event)
    if faults:
        return _passed_over(registry, event, "; ".join(faults))
    settled = state.settled | {event.effective_us}
    grown = replace(state, activations=(*state.activations, activation), settled=settled)
    return replace(registry, scopes={**registry.scopes, event.scope: grown})


def _settle(registry: Registry, event: BundleRefused) -> Registry:
    if event.effective_us is None:
        return registry
    state = registry.scope(event.scope)
    settled = replace(state, settled=state.settled | {event.effective_us})
    return replace(registry, scopes={**registry.scopes, event.scope: settled})


def _passed_over(registry: Registry, event: RegistryPayload, why: str) -> Registry:
    note = f"{event.type} {registry_event_id(event)}: {why}"
    return registry if note in registry.passed_over else replace(registry, passed_over=(*registry.passed_over, note))


@dataclass(frozen=True, slots=True)
class Resolution:
    """What decides at an event time. `bundle` None = guardrails only; `skipped` = bundle id and why it cannot serve."""

    source: Literal["tenant", "global", "fallback", "guardrails"]
    bundle: BundleRef | None
    revision: int
    skipped: tuple[tuple[str, str], ...] = ()


def resolve(registry: Registry, scope: Scope, order_us: int, unusable: Callable[[BundleRef], str | None]) -> Resolution:
    """Tenant → global → named safe fallback → guardrails. `unusable(bundle)` says why it cannot serve, None = it can.

    A scope that was rolled back to guardrails ends the search: what was switched off on purpose stays off.
    """
    skipped: list[tuple[str, str]] = []
    fallbacks: list[Activation] = []
    tried: set[str] = set()
    revision = 0
    for tenant in dict.fromkeys((scope.tenant, GLOBAL)):
        found = registry.scope(scope.model_copy(update={"tenant": tenant})).at(order_us)
        if found is None:
            continue
        revision = revision or found.revision
        if found.bundle is None:
            return Resolution("guardrails", None, found.revision, tuple(skipped))
        why = unusable(found.bundle)
        if why is None:
            return Resolution("global" if tenant == GLOBAL else "tenant", found.bundle, found.revision, tuple(skipped))
        skipped.append((found.bundle.bundle_id, why))
        tried.add(found.bundle.model_digest)
        fallbacks.append(found)
    for found in fallbacks:
        if found.fallback is None or found.fallback.model_digest in tried:
            continue
        why = unusable(found.fallback)
        if why is None:
            return Resolution("fallback", found.fallback, found.revision, tuple(skipped))
        skipped.append((found.fallback.bundle_id, why))
    return Resolution("guardrails", None, revision, tuple(skipped))


def challenger_at(registry: Registry, scope: Scope, order_us: int, deciding: BundleRef | None) -> BundleRef | None:
    """The bundle that is scored beside the deciding one at an event time: tenant → global; never the same model twice.

    Whether it can serve is not asked: one that cannot says so in each decision, and disturbs none.
    """
    for tenant in dict.fromkeys((scope.tenant, GLOBAL)):
        found = registry.scope(scope.model_copy(update={"tenant": tenant})).challenge_at(order_us)
        if found is None:
            continue
        if found.bundle is None or (deciding is not None and found.bundle.model_digest == deciding.model_digest):
            return None
        return found.bundle
    return None


@dataclass(frozen=True, slots=True)
class Serving:
    """What a deciding process can serve: its features, the policy revisions it knows, what it can score."""

    feature_set: str
    feature_schema_digest: str
    policy_revs: frozenset[str]
    capabilities: frozenset[str]


def incompatibilities(offered: BundlePublished, serving: Serving) -> tuple[str, ...]:
    """Why a bundle cannot be served; empty = compatible."""
    faults = []
    if offered.feature_set != serving.feature_set:
        faults.append(f"feature set {offered.feature_set[:60]}, served {serving.feature_set}")
    offers, serves = offered.feature_schema_digest[:12], serving.feature_schema_digest[:12]
    if offered.feature_schema_digest != serving.feature_schema_digest:
        faults.append(f"schema digest {offers}, served {serves}")
    if offered.policy_rev not in serving.policy_revs:
        faults.append(f"policy {offered.policy_rev[:60]} is not served")
    missing = sorted(set(offered.capabilities) - serving.capabilities)
    if missing:
        faults.append(f"capabilities not served: {', '.join(missing)[:120]}")
    return tuple(faults)
