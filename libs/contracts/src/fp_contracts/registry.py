"""Registry events: payloads on the registry topic (learning.md §4); `resolution` folds them.

A record's key is the bundle slot, so one slot is totally ordered. An event that activates names the revision it makes
and the bundle it replaces: exactly one bundle is ACTIVE per scope, by compare-and-set.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fp_contracts.bundle import BundleManifest, BundleRef
from fp_contracts.control import EvidenceRef
from fp_contracts.envelope import Closed, Envelope, Hex64, Id, TimeUs
from fp_contracts.ids import h32
from fp_contracts.records import RecordError, read_envelope
from fp_contracts.runconfig import RunHeader, Window

GLOBAL = "global"
FRAUD_SLOT = "payment_fraud"
# What df can score with; a bundle that needs more is refused before it is offered to anybody.
SERVED_CAPABILITIES = frozenset({"format:fp.bundle.v1", "family:logistic", "family:xgboost"})


class Scope(Closed):
    """Where a bundle is active. `tenant` is GLOBAL for everybody."""

    environment: Id
    mode: Literal["replay", "live"]
    bundle_slot: Id
    tenant: Id = GLOBAL


class BundlePublished(Closed):
    """A trained bundle may be asked for; `capabilities` is what a server must offer to score it.

    `eval_rows` names the payments of its evaluation in order: a df process scores them again before it is promoted.
    """

    type: Literal["BUNDLE_PUBLISHED"] = "BUNDLE_PUBLISHED"
    scope: Scope
    bundle: BundleRef
    feature_set: str
    feature_schema_digest: Hex64
    policy_rev: str
    capabilities: tuple[str, ...]
    dataset_fingerprint: Hex64
    eval_report: EvidenceRef
    eval_rows: EvidenceRef | None = None
    requester: Id
    at_us: TimeUs


class BundleApproved(Closed):
    """A named actor other than the requester approves a bundle for a scope."""

    type: Literal["BUNDLE_APPROVED"] = "BUNDLE_APPROVED"
    scope: Scope
    bundle: BundleRef
    requester: Id
    actor: Id
    at_us: TimeUs


class BundlePromotedActive(Closed):
    """From `effective_us` (event time) on, this bundle decides in its scope.

    `previous` is what it replaces (null = guardrails only); `fallback` decides when it cannot be used, never itself.
    """

    type: Literal["BUNDLE_PROMOTED_ACTIVE"] = "BUNDLE_PROMOTED_ACTIVE"
    scope: Scope
    bundle: BundleRef
    previous: BundleRef | None
    fallback: BundleRef | None = None
    revision: int = Field(ge=1)
    effective_us: TimeUs
    actor: Id
    at_us: TimeUs


class BundleRolledBack(Closed):
    """From `effective_us` on, `bundle` decides instead of `previous`; null = guardrails only (safe-disable)."""

    type: Literal["BUNDLE_ROLLED_BACK"] = "BUNDLE_ROLLED_BACK"
    scope: Scope
    bundle: BundleRef | None
    previous: BundleRef
    revision: int = Field(ge=1)
    effective_us: TimeUs
    actor: Id
    reason: str
    at_us: TimeUs


class BundleRefused(Closed):
    """A bundle was not let in, and why. With `effective_us` it settles the switch that was pinned for that time."""

    type: Literal["BUNDLE_REFUSED"] = "BUNDLE_REFUSED"
    scope: Scope
    bundle: BundleRef
    reasons: tuple[str, ...] = Field(min_length=1)
    effective_us: TimeUs | None = None
    actor: Id
    at_us: TimeUs


class BundleRetired(Closed):
    """A bundle may never be activated again. The active one is rolled back first."""

    type: Literal["BUNDLE_RETIRED"] = "BUNDLE_RETIRED"
    scope: Scope
    bundle: BundleRef
    actor: Id
    reason: str
    at_us: TimeUs


class BundleChallengerNamed(Closed):
    """A bundle is scored beside what decides and never acts: from the first switch at or after `effective_us` on.

    Of switches that are settled after this, that is. `previous` is the challenger it replaces; `challenger_revision`
    counts a scope's challengers, apart from its activations.
    """

    type: Literal["BUNDLE_CHALLENGER_NAMED"] = "BUNDLE_CHALLENGER_NAMED"
    scope: Scope
    bundle: BundleRef
    previous: BundleRef | None
    challenger_revision: int = Field(ge=1)
    effective_us: TimeUs
    actor: Id
    at_us: TimeUs


class BundleChallengerWithdrawn(Closed):
    """`previous` is not scored any more, from the first switch on that a naming would take effect at."""

    type: Literal["BUNDLE_CHALLENGER_WITHDRAWN"] = "BUNDLE_CHALLENGER_WITHDRAWN"
    scope: Scope
    previous: BundleRef
    challenger_revision: int = Field(ge=1)
    effective_us: TimeUs
    actor: Id
    reason: str
    at_us: TimeUs


RegistryPayload = Annotated[
    BundlePublished | BundleApproved | BundlePromotedActive | BundleRolledBack | BundleRefused | BundleRetired
    | BundleChallengerNamed | BundleChallengerWithdrawn,
    Field(discriminator="type"),
]  # fmt: skip
REGISTRY_MODELS = (
    BundlePublished, BundleApproved, BundlePromotedActive, BundleRolledBack, BundleRefused, BundleRetired,
    BundleChallengerNamed, BundleChallengerWithdrawn,
)  # fmt: skip
_ADAPTER: TypeAdapter[RegistryPayload] = TypeAdapter(RegistryPayload)


def read_registry(body: bytes) -> tuple[Envelope, RegistryPayload]:
    """A registry record as (Envelope, payload); RecordError when it breaks its contract."""
    envelope = read_envelope(body)
    try:
        return envelope, _ADAPTER.validate_json(orjson.dumps(envelope.payload), extra="ignore")
    except ValidationError as error:
        raise RecordError(f"{envelope.event_type[:60]}: {error.errors(include_url=False)[0]['msg']}"[:200]) from error


def registry_event_id(event: RegistryPayload) -> str:
    """Derived identity: publishing again after a crash repeats it. By revision where there is one, else by content."""
    scope = event.scope
    place = (scope.environment, scope.mode, scope.bundle_slot, scope.tenant)
    if isinstance(event, BundlePromotedActive | BundleRolledBack):
        return h32("registry", *place, "revision", str(event.revision))
    if isinstance(event, BundleChallengerNamed | BundleChallengerWithdrawn):
        return h32("registry", *place, "challenger", str(event.challenger_revision))
    what = event.model_dump_json(exclude={"at_us"})
    return h32("registry", *place, event.type, what)


def bundle_text(bundle: BundleRef) -> str:
    """The `bundle_ref` of a decision: equal in two runs that trained the same model."""
    return f"bundle:{bundle.model_digest}"


def capabilities_of(manifest: BundleManifest) -> tuple[str, ...]:
    """What a process must be able to do to score a bundle."""
    return (f"format:{manifest.format}", f"family:{manifest.family}")


def scope_of(header: RunHeader, bundle_slot: str = FRAUD_SLOT, tenant: str = GLOBAL) -> Scope:
    """The scope in which a run decides.

    A replay is an environment of its own that starts empty: two runs of one world resolve alike, and nothing that is
    promoted in a replay reaches live traffic.
    """
    config = header.config
    environment = config.profile if config.run_kind == "live" else f"{config.profile}.{header.platform_run_id}"
    return Scope(environment=environment, mode=config.run_kind, bundle_slot=bundle_slot, tenant=tenant)


@dataclass(frozen=True, slots=True)
class SwitchTimes:
    """Event times (µs) at which the registry changes what decides in window 2: pinned, since windows are."""

    promote_us: int
    rollback_us: int
    repromote_us: int

    def ascending(self) -> tuple[int, int, int]:
        """All three: df holds its merge at each until the registry has settled it."""
        return (self.promote_us, self.rollback_us, self.repromote_us)


def switch_times(windows: tuple[Window, ...]) -> SwitchTimes | None:
    """Promotion at the start of window 2, the rollback drill after a third of it, re-promotion after half; or None."""
    if len(windows) < 2:
        return None
    start, length = windows[1].start_us, windows[1].end_us - windows[1].start_us
    return SwitchTimes(start, start + length // 3, start + length // 2)
