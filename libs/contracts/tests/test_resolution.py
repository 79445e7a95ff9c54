"""The registry: one ACTIVE bundle per scope by compare-and-set; resolution fails closed to guardrails."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.bundle import BundleRef
from fp_contracts.control import EvidenceRef
from fp_contracts.records import Pins, RecordError, body_of
from fp_contracts.registry import (
    BundleApproved,
    BundlePromotedActive,
    BundlePublished,
    BundleRefused,
    BundleRetired,
    BundleRolledBack,
    RegistryPayload,
    Scope,
    read_registry,
    registry_event_id,
    scope_of,
    switch_times,
)
from fp_contracts.resolution import Registry, Serving, fold, incompatibilities, resolve
from fp_contracts.runconfig import RunHeader, Window

EVERYBODY = Scope(environment="local", mode="live", bundle_slot="payment_fraud")
TENANT = EVERYBODY.model_copy(update={"tenant": "acme"})
EXAMPLE = Path(__file__).parents[3] / "tests/contract/examples/run_pinned.json"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


NAMES = {digest(name)[:32]: name for name in ("a", "b", "c", "mine", "other", "all", "spare")}


def ref(key: str) -> EvidenceRef:
    return EvidenceRef(key=key, sha256=digest(key), size=1)


def named(name: str) -> str:
    return digest(name)[:32]


def bundle(name: str) -> BundleRef:
    return BundleRef(bundle_id=named(name), manifest=ref(f"{name}/manifest.json"), model_digest=digest(name))


def published(name: str, scope: Scope = EVERYBODY) -> BundlePublished:
    return BundlePublished(
        scope=scope, bundle=bundle(name), feature_set="core.v1", feature_schema_digest=digest("schema"),
        policy_rev="p1", capabilities=("score.v1",), dataset_fingerprint=digest("data"), eval_report=ref("eval"),
        requester="trainer", at_us=1,
    )  # fmt: skip


def approved(name: str, actor: str = "risk", scope: Scope = EVERYBODY) -> BundleApproved:
    return BundleApproved(scope=scope, bundle=bundle(name), requester="trainer", actor=actor, at_us=2)


def promoted(
    name: str, revision: int, previous: str | None, at: int = 100, fallback: str | None = None, scope: Scope = EVERYBODY
) -> BundlePromotedActive:
    return BundlePromotedActive(
        scope=scope, bundle=bundle(name), previous=bundle(previous) if previous else None,
        fallback=bundle(fallback) if fallback else None, revision=revision, effective_us=at, actor="risk", at_us=3,
    )  # fmt: skip


def rolled_back(to: str | None, revision: int, previous: str, at: int = 200) -> BundleRolledBack:
    return BundleRolledBack(
        scope=EVERYBODY, bundle=bundle(to) if to else None, previous=bundle(previous), revision=revision,
        effective_us=at, actor="risk", reason="drill", at_us=4,
    )  # fmt: skip


def folded(*events: RegistryPayload) -> Registry:
    registry = Registry()
    for event in events:
        registry = fold(registry, event)
    return registry


def ready(*names: str, scope: Scope = EVERYBODY) -> list[RegistryPayload]:
    return [event for name in names for event in (published(name, scope), approved(name, scope=scope))]


def usable(_: BundleRef) -> str | None:
    return None


def test_a_promoted_bundle_decides_from_its_event_time() -> None:
    registry = folded(*ready("a"), promoted("a", 1, None))
    assert resolve(registry, EVERYBODY, 99, usable).source == "guardrails"
    found = resolve(registry, EVERYBODY, 100, usable)
    assert (found.source, found.bundle, found.revision) == ("global", bundle("a"), 1)


def test_nothing_promoted_means_guardrails() -> None:
    found = resolve(Registry(), EVERYBODY, 10**15, usable)
    assert (found.source, found.bundle, found.revision) == ("guardrails", None, 0)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (promoted("b", 1, None), "revision 1 does not follow 1"),
        (promoted("b", 3, "a"), "revision 3 does not follow 1"),
        (promoted("b", 2, None), "another bundle is active"),
        (promoted("b", 2, "c"), "another bundle is active"),
        (promoted("b", 2, "a", at=99), "effective before"),
        (promoted("b", 2, "a", fallback="b"), "its own fallback"),
        (promoted("nobody", 2, "a"), "not published"),
        (promoted("unasked", 2, "a"), "not approved"),
        (promoted("old", 2, "a"), "retired"),
        (rolled_back("unasked", 2, "a"), "not approved"),
        (rolled_back(None, 2, "b"), "another bundle is active"),
        (approved("unasked", actor="trainer"), "approved by its requester"),
        (BundleRetired(scope=EVERYBODY, bundle=bundle("a"), actor="r", reason="", at_us=1), "retired while active"),
    ],
)  # fmt: skip
def test_an_event_that_must_not_count_is_passed_over_with_its_reason(event: RegistryPayload, why: str) -> None:
    old = BundleRetired(scope=EVERYBODY, bundle=bundle("old"), actor="risk", reason="superseded", at_us=5)
    before = folded(*ready("a", "b", "old"), published("unasked"), old, promoted("a", 1, None))
    after = fold(before, event)
    assert after.scopes == before.scopes
    assert after.approved == before.approved
    assert after.retired == before.retired
    assert [why in note for note in after.passed_over] == [True]
    assert fold(after, event) == after


def test_a_bundle_published_with_other_bytes_under_its_digest_is_not_the_published_one() -> None:
    other = bundle("a").model_copy(update={"manifest": ref("other")})
    registry = folded(*ready("a"), promoted("a", 1, None).model_copy(update={"bundle": other}))
    assert registry.scope(EVERYBODY).active is None
    assert "not published" in registry.passed_over[0]


def test_a_second_run_that_trains_the_same_model_publishes_a_bundle_of_its_own() -> None:
    again = bundle("a").model_copy(update={"bundle_id": named("again"), "manifest": ref("again")})
    later = EVERYBODY.model_copy(update={"environment": "local.second"})
    second = [event.model_copy(update={"bundle": again}) for event in (
        *ready("a", scope=later), promoted("a", 1, None, scope=later),
    )]  # fmt: skip
    registry = folded(*ready("a"), promoted("a", 1, None), *second)
    assert registry.passed_over == ()
    assert registry.scope(later).active == again
    assert registry.scope(EVERYBODY).active == bundle("a")


def test_of_two_promotions_at_once_the_first_on_the_topic_counts() -> None:
    registry = folded(*ready("a", "b"), promoted("a", 1, None), promoted("b", 1, None))
    assert registry.scope(EVERYBODY).active == bundle("a")
    assert len(registry.scope(EVERYBODY).activations) == 1


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=8), st.integers(0, 3))
def test_any_race_leaves_one_chain_of_revisions(names: list[str], lag: int) -> None:
    """Writers that decide on a state `lag` events old: revisions stay dense and each names what it replaced."""
    registry, states = folded(*ready("a", "b", "c")), []
    for name in names:
        states.append(registry)
        seen = states[max(0, len(states) - 1 - lag)].scope(EVERYBODY)
        previous = NAMES[seen.active.bundle_id] if seen.active else None
        registry = fold(registry, promoted(name, seen.revision + 1, previous))
    activations = registry.scope(EVERYBODY).activations
    assert [found.revision for found in activations] == list(range(1, len(activations) + 1))
    assert len(activations) + len(registry.passed_over) <= len(names)
    assert bool(activations) == bool(names)


def test_repeats_change_nothing() -> None:
    events = [*ready("a"), promoted("a", 1, None), rolled_back(None, 2, "a"), promoted("a", 3, None, at=300)]
    assert folded(*events) == folded(*(event for event in events for _ in range(2)))


def test_rolled_back_to_guardrails_stays_off_whatever_the_fallback() -> None:
    registry = folded(*ready("a", "b"), promoted("a", 1, None, fallback="b"), rolled_back(None, 2, "a"))
    assert resolve(registry, EVERYBODY, 199, usable).bundle == bundle("a")
    found = resolve(registry, EVERYBODY, 200, usable)
    assert (found.source, found.bundle, found.revision) == ("guardrails", None, 2)


def test_re_promotion_needs_no_second_approval() -> None:
    registry = folded(*ready("a"), promoted("a", 1, None), rolled_back(None, 2, "a"), promoted("a", 3, None, at=300))
    assert resolve(registry, EVERYBODY, 300, usable).bundle == bundle("a")
    assert registry.passed_over == ()


def test_a_tenant_goes_before_everybody_then_the_fallbacks_then_guardrails() -> None:
    events = [
        *ready("mine", "other", scope=TENANT), *ready("all", "spare"),
        promoted("mine", 1, None, scope=TENANT, fallback="other"), promoted("all", 1, None, fallback="spare"),
    ]  # fmt: skip
    registry = folded(*events)

    def chosen(*broken: str) -> tuple[str, str | None, int]:
        found = resolve(registry, TENANT, 100, lambda asked: "broken" if asked in map(bundle, broken) else None)
        return found.source, NAMES[found.bundle.bundle_id] if found.bundle else None, len(found.skipped)

    assert chosen() == ("tenant", "mine", 0)
    assert chosen("mine") == ("global", "all", 1)
    assert chosen("mine", "all") == ("fallback", "other", 2)
    assert chosen("mine", "all", "other") == ("fallback", "spare", 3)
    assert chosen("mine", "all", "other", "spare") == ("guardrails", None, 4)
    assert resolve(registry, EVERYBODY, 100, usable).source == "global"


def test_a_fallback_that_was_tried_as_active_is_not_tried_again() -> None:
    asked: list[str] = []

    def broken(found: BundleRef) -> str:
        asked.append(NAMES[found.bundle_id])
        return "broken"

    events = [*ready("mine", scope=TENANT), *ready("all"), *ready("all", scope=TENANT)]
    registry = folded(*events, promoted("mine", 1, None, scope=TENANT, fallback="all"), promoted("all", 1, None))
    assert resolve(registry, TENANT, 100, broken).source == "guardrails"
    assert asked == ["mine", "all"]


def test_a_switch_is_settled_by_an_activation_or_a_refusal() -> None:
    refused = BundleRefused(scope=EVERYBODY, bundle=bundle("x"), reasons=("no",), effective_us=50, actor="r", at_us=1)
    registry = folded(*ready("a"), refused, promoted("a", 1, None))
    assert registry.scope(EVERYBODY).settled == {50, 100}
    unpinned = refused.model_copy(update={"effective_us": None})
    assert fold(registry, unpinned) == registry


SERVING = Serving("core.v1", digest("schema"), frozenset({"p1"}), frozenset({"score.v1", "shadow.v1"}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"feature_set": "core.v2"}, "feature set core.v2, served core.v1"),
        ({"feature_schema_digest": digest("other")}, "schema digest"),
        ({"policy_rev": "p9"}, "policy p9 is not served"),
        ({"capabilities": ("score.v1", "graph.v1")}, "capabilities not served: graph.v1"),
    ],
)
def test_what_cannot_be_served_is_said(change: dict[str, object], why: str) -> None:
    assert incompatibilities(published("a"), SERVING) == ()
    assert [why in fault for fault in incompatibilities(published("a").model_copy(update=change), SERVING)] == [True]


def test_a_record_is_read_back_as_it_was_written() -> None:
    event = promoted("a", 1, None)
    pins = Pins("platform_20260301T080000Z-x", "0" * 32, digest("w"), digest("c"))
    envelope, payload = read_registry(body_of(pins, event.type, registry_event_id(event), 1, "ofs_trigger", event))
    assert payload == event
    assert envelope.event_id == registry_event_id(event)
    broken = event.model_copy(update={"revision": 0})
    with pytest.raises(RecordError, match="BUNDLE_PROMOTED_ACTIVE"):
        read_registry(body_of(pins, event.type, "x", 1, "ofs_trigger", broken))


def test_two_writers_of_one_revision_share_its_identity() -> None:
    assert registry_event_id(promoted("a", 1, None)) == registry_event_id(promoted("b", 1, None))
    assert registry_event_id(rolled_back(None, 2, "a")) == registry_event_id(promoted("b", 2, "a"))
    assert registry_event_id(approved("a")) != registry_event_id(approved("b"))


def test_a_replay_decides_in_an_environment_of_its_own() -> None:
    pinned = json.loads(EXAMPLE.read_text())["payload"]["header"]
    header = RunHeader.model_validate_json(json.dumps(pinned))
    assert scope_of(header).environment == f"{header.config.profile}.{header.platform_run_id}"
    live = header.model_copy(update={"config": header.config.model_copy(update={"run_kind": "live"})})
    assert scope_of(live).environment == header.config.profile


def test_switches_are_pinned_by_the_windows() -> None:
    first, second = Window(start_us=0, end_us=600), Window(start_us=600, end_us=1_200)
    assert switch_times((first,)) is None
    found = switch_times((first, second))
    assert found is not None
    assert found.ascending() == (600, 800, 900)
