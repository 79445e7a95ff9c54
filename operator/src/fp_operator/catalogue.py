"""Every bundle that the registry topic knows, with its place in its scope: read as any restarted process reads it."""

from collections.abc import Iterable
from typing import Any

from fp_contracts import topics
from fp_contracts.records import RecordError
from fp_contracts.registry import BundlePublished, read_registry
from fp_contracts.resolution import Registry, fold
from fp_contracts.timestamps import to_text
from fp_runtime.bus import Consumer
from fp_runtime.readback import read_back


def read_registries(consumer: Consumer) -> Registry:
    """The fold of the registry topic as of now, over all slots."""
    places = [(topics.REGISTRY_EVENTS, part) for part in range(topics.TOPICS[topics.REGISTRY_EVENTS].partitions)]
    return folded(record.value for record in read_back(consumer, consumer.begins(places)))


def folded(bodies: Iterable[bytes]) -> Registry:
    """The registry that these records make; one that breaks its contract counts for nothing, as in df."""
    registry = Registry()
    for body in bodies:
        try:
            registry = fold(registry, read_registry(body)[1])
        except RecordError:
            continue
    return registry


def bundles(registry: Registry) -> list[dict[str, Any]]:
    """One row per published bundle, in the order they were published."""
    return [_row(registry, offered) for offered in reversed(list(registry.published.values()))]


def _row(registry: Registry, offered: BundlePublished) -> dict[str, Any]:
    family = [name.removeprefix("family:") for name in offered.capabilities if name.startswith("family:")]
    return {
        "bundle_id": offered.bundle.bundle_id,
        "model_digest": offered.bundle.model_digest,
        "family": family[0] if family else None,
        "state": _state(registry, offered),
        "environment": offered.scope.environment,
        "slot": offered.scope.bundle_slot,
        "tenant": offered.scope.tenant,
        "policy_rev": offered.policy_rev,
        "dataset_fingerprint": offered.dataset_fingerprint,
        "requester": offered.requester,
        "published": to_text(offered.at_us),
        "manifest": offered.bundle.manifest.key,
    }


def _state(registry: Registry, offered: BundlePublished) -> str:
    """ACTIVE and CHALLENGER by the last word of the scope; before that what was decided of the bundle."""
    state, digest = registry.scope(offered.scope), offered.bundle.model_digest
    if state.active == offered.bundle:
        return "ACTIVE"
    if state.challenger == offered.bundle:
        return "CHALLENGER"
    if digest in registry.retired:
        return "RETIRED"
    return "APPROVED" if (offered.scope, digest) in registry.approved else "PUBLISHED"
