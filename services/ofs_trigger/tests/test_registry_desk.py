"""The registry's desk: nothing counts that the fold would pass over, the topic keeps the journal's order."""

import pytest

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.control import EvidenceRef
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins, body_of
from fp_contracts.registry import (
    BundleApproved,
    BundlePromotedActive,
    BundlePublished,
    BundleRolledBack,
    RegistryPayload,
    Scope,
    registry_event_id,
)
from fp_ofs_trigger.members import Members
from fp_ofs_trigger.registry_desk import Place, Receipt, RegistryDesk, Stored
from fp_runtime.memory import MemoryBus

from .conftest import MemoryRegistry

SCOPE = Scope(environment="local", mode="live", bundle_slot="payment_fraud")
PINS = Pins("platform_20260101T000000Z", "a" * 32, "b" * 64, "c" * 64)
REF = EvidenceRef(key="bundles/x/bundle.json", sha256="0" * 64, size=1)
ONE, TWO = (BundleRef(bundle_id=f"{n:032x}", model_digest=f"{n:064x}", manifest=REF) for n in (1, 2))


def published(bundle: BundleRef) -> BundlePublished:
    return BundlePublished(
        scope=SCOPE, bundle=bundle, feature_set="core.v1", feature_schema_digest="0" * 64, policy_rev="p1",
        capabilities=(), dataset_fingerprint="0" * 64, eval_report=REF, requester="ana", at_us=1,
    )  # fmt: skip


def approved(bundle: BundleRef, actor: str = "ben") -> BundleApproved:
    return BundleApproved(scope=SCOPE, bundle=bundle, requester="ana", actor=actor, at_us=2)


def promoted(bundle: BundleRef, revision: int = 1, previous: BundleRef | None = None) -> BundlePromotedActive:
    return BundlePromotedActive(
        scope=SCOPE, bundle=bundle, previous=previous, revision=revision, effective_us=10, actor="ben", at_us=3
    )


class Registry:
    """A desk on a journal and a bus."""

    def __init__(self) -> None:
        self.bus, self.table = MemoryBus(), MemoryRegistry()
        self.bus.create(topics.TOPICS)
        self.desk = RegistryDesk(
            self.table, self.bus.producer(), lambda: self.bus.consumer("t"), "ofs_trigger-0", lambda: 7
        )

    def on_topic(self) -> list[str]:
        place = (topics.REGISTRY_EVENTS, partition_of("payment_fraud", 3))
        return [record.value.decode().partition('"event_type":"')[2].partition('"')[0]
                for record in self.bus.read(place, 0, self.bus.span(place)[1])]  # fmt: skip


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.mark.parametrize(
    ("events", "last", "why"),
    [
        ([], promoted(ONE), "not published"),
        ([published(ONE)], promoted(ONE), "not approved"),
        ([published(ONE)], approved(ONE, actor="ana"), "approved by its requester"),
        ([published(ONE), approved(ONE)], promoted(ONE, revision=2), "does not follow"),
        ([published(ONE), approved(ONE)], promoted(ONE, previous=TWO), "another bundle is active"),
        ([published(ONE), approved(ONE), promoted(ONE)],
         BundleRolledBack(scope=SCOPE, bundle=None, previous=TWO, revision=2, effective_us=10, actor="ben",
                          reason="x", at_us=4), "another bundle is active"),
    ],
)  # fmt: skip
def test_what_may_not_count_is_neither_journaled_nor_published(
    registry: Registry, events: list[RegistryPayload], last: RegistryPayload, why: str
) -> None:
    assert all(isinstance(registry.desk.write(PINS, event), Receipt) for event in events)
    found = registry.desk.write(PINS, last)
    assert not isinstance(found, Receipt)
    assert any(why in fault for fault in found)
    assert len(registry.table.rows("payment_fraud")) == len(events)
    assert len(registry.on_topic()) == len(events)


def test_what_a_crash_left_unpublished_goes_first(registry: Registry) -> None:
    left: list[RegistryPayload] = [published(ONE), approved(ONE)]
    for n, event in enumerate(left, 1):
        body = body_of(PINS, event.type, registry_event_id(event), 7, "ofs_trigger-0", event)
        assert registry.table.insert(Stored(n, registry_event_id(event), body), event)
    assert isinstance(registry.desk.write(PINS, promoted(ONE)), Receipt)
    assert registry.on_topic() == ["BUNDLE_PUBLISHED", "BUNDLE_APPROVED", "BUNDLE_PROMOTED_ACTIVE"]
    assert registry.desk.registry_on_topic("payment_fraud") == registry.desk.registry("payment_fraud")


def test_other_bytes_at_the_acknowledged_place_are_seen(registry: Registry) -> None:
    registry.desk.write(PINS, published(ONE))
    registry.desk.write(PINS, published(TWO))
    event_id = registry_event_id(published(ONE))
    registry.table.facts[event_id] = Place(partition_of("payment_fraud", 3), 1)
    again = RegistryDesk(registry.table, registry.bus.producer(), lambda: registry.bus.consumer("t"), "x", lambda: 7)
    found = again.write(PINS, published(ONE))
    assert isinstance(found, Receipt)
    assert found.equal is False


def test_the_same_word_again_gives_the_same_receipt(registry: Registry) -> None:
    first = registry.desk.write(PINS, published(ONE))
    assert registry.desk.write(PINS, published(ONE).model_copy(update={"at_us": 99})) == first
    assert registry.on_topic() == ["BUNDLE_PUBLISHED"]


def test_who_loses_the_place_in_the_journal_is_told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's row came between the look and the insert."""
    insert = registry.table.insert

    def late(row: Stored, event: RegistryPayload) -> bool:
        other = published(TWO)
        body = body_of(PINS, other.type, registry_event_id(other), 7, "x", other)
        assert insert(Stored(row.n, registry_event_id(other), body), other)
        return insert(row, event)

    monkeypatch.setattr(registry.table, "insert", late)
    assert registry.desk.write(PINS, published(ONE)) == ("BUNDLE_PUBLISHED: another writer came first",)
    monkeypatch.undo()
    assert isinstance(registry.desk.write(PINS, published(ONE)), Receipt)
    assert registry.on_topic() == ["BUNDLE_PUBLISHED", "BUNDLE_PUBLISHED"]


def test_members_are_complete_when_all_say_the_same_and_none_otherwise() -> None:
    every = dict.fromkeys(range(6), 1)
    assert Members(every, (), 6).complete
    assert not Members(every, ("partition 0 uses guardrails",), 6).complete
    assert not Members({0: 1}, (), 6).complete
