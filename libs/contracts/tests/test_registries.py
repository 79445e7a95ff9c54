"""The registries against the specification (lists typed from it) and against each other."""

import pytest

from fp_contracts import ingress, phases, pins, proofs, services, topics
from fp_contracts.header import Kind
from fp_contracts.learning import LEARNING_MODELS
from fp_contracts.partition import partition_of
from fp_contracts.records import CONTROL_TYPES, DERIVED_TYPES
from fp_contracts.registry import REGISTRY_MODELS
from fp_contracts.schema import payload_models

# Specification, Appendix A; partitions and retention of contracts.md §1.
SPEC_TOPICS = {
    "fp.bus.control.v1": (3, 30),
    "fp.bus.traffic.fraud.v1": (6, 7),
    "fp.bus.context.arrival_events.v1": (6, 7),
    "fp.bus.context.arrival_entities.v1": (6, 7),
    "fp.bus.context.flow_anchor.fraud.v1": (6, 7),
    "fp.bus.rtdl.v1": (6, 7),
    "fp.bus.audit.v1": (3, 30),
    "fp.bus.case.triggers.v1": (3, 30),
    "fp.bus.labels.events.v1": (3, 30),
    "fp.bus.learning.ofs.requests.v1": (3, 30),
    "fp.bus.learning.ofs.events.v1": (3, 30),
    "fp.bus.learning.mf.requests.v1": (3, 30),
    "fp.bus.learning.mf.events.v1": (3, 30),
    "fp.bus.learning.registry.events.v1": (3, 90),
}
# Specification §5: phase, name, blockers.
SPEC_PHASES = {
    "P(-1)": ("PACKAGING_READY", ("DFULL-RUN-BP1", "DFULL-RUN-BP2")),
    "P0": ("SUBSTRATE_READY", ("DFULL-RUN-B0", "DFULL-RUN-B0.1")),
    "P1": ("RUN_PINNED", ("DFULL-RUN-B1", "DFULL-RUN-B1.1")),
    "P2": ("DAEMONS_READY", ("DFULL-RUN-B2", "DFULL-RUN-B2.1")),
    "P3": ("ORACLE_READY", ("DFULL-RUN-B3", "DFULL-RUN-B3.1")),
    "P4": ("INGEST_READY", ("DFULL-RUN-B4", "DFULL-RUN-B4.1")),
    "P5": ("READY_PUBLISHED", ("DFULL-RUN-B5", "DFULL-RUN-B5.1")),
    "P6": ("STREAMING_ACTIVE", ("DFULL-RUN-B6", "DFULL-RUN-B6.1")),
    "P7": ("INGEST_COMMITTED", ("DFULL-RUN-B7", "DFULL-RUN-B7.1")),
    "P8": ("RTDL_CAUGHT_UP", ("DFULL-RUN-B8", "DFULL-RUN-B8.1")),
    "P9": ("DECISION_CHAIN_COMMITTED", ("DFULL-RUN-B9", "DFULL-RUN-B9.1")),
    "P10": ("CASE_LABELS_COMMITTED", ("DFULL-RUN-B10", "DFULL-RUN-B10.1")),
    "P11": ("SPINE_OBS_GOV_CLOSED", ("DFULL-RUN-B11", "DFULL-RUN-B11.1")),
    "P12": ("LEARNING_INPUT_READY", ("DFULL-RUN-B12", "DFULL-RUN-B12.1")),
    "P13": ("OFS_DATASET_COMMITTED", ("DFULL-RUN-B13", "DFULL-RUN-B13.1")),
    "P14": ("MF_EVAL_COMMITTED", ("DFULL-RUN-B14", "DFULL-RUN-B14.1")),
    "P15": ("MPR_PROMOTION_COMMITTED", ("DFULL-RUN-B15", "DFULL-RUN-B15.1")),
    "P16": ("FULL_PLATFORM_CLOSED", ("DFULL-RUN-B16", "DFULL-RUN-B16.1")),
    "P17": ("TEARDOWN_IDLE_SAFE", ("DFULL-RUN-B17", "DFULL-RUN-B17.1")),
}


def test_the_topics_are_those_of_the_specification() -> None:
    assert {t.name: (t.partitions, t.retention_ms // 86_400_000) for t in topics.TOPICS.values()} == SPEC_TOPICS


def test_two_lanes_on_one_machine_and_six_where_stages_scale_out() -> None:
    parts = {
        profile: {name: topic.partitions for name, topic in topics.pinned(profile).items()} for profile in pins.PROFILES
    }
    of_spec = {name: partitions for name, (partitions, _) in SPEC_TOPICS.items()}
    halves = {topics.AUDIT, topics.CASE_TRIGGERS, topics.LABELS}
    lanes = {*topics.INGRESS, topics.RTDL}
    assert parts["dev_full"] == parts["kind"] == of_spec
    assert parts["local"] == of_spec | dict.fromkeys(halves, 1) | dict.fromkeys(lanes, 2)


@pytest.mark.parametrize("profile", list(pins.PROFILES))
def test_a_lane_finds_the_labels_of_its_merchants_on_the_partition_it_reads(profile: str) -> None:
    parts = topics.pinned(profile)
    lanes, labels = parts[topics.TRAFFIC].partitions, parts[topics.LABELS].partitions
    assert lanes % labels == 0
    assert {parts[topic].partitions for topic in (*topics.INGRESS, topics.RTDL)} == {lanes}
    merchants = [f"m-{n}" for n in range(200)]
    assert all(partition_of(name, lanes) % labels == partition_of(name, labels) for name in merchants)


def test_no_two_topics_share_a_metric_name() -> None:
    assert topics.colliding_names() == []


@pytest.mark.parametrize("topic", topics.TOPICS.values(), ids=lambda topic: topic.name)
def test_a_topic_has_writers_readers_and_limits(topic: topics.Topic) -> None:
    assert topic.producers
    assert topic.consumers
    assert topic.key
    assert topic.partitions > 0
    assert topic.retention_ms > 0
    assert topic.max_message_bytes == topics.MAX_MESSAGE_BYTES


def test_every_phase_owner_may_write_its_gate() -> None:
    assert {phase.owner for phase in phases.PHASES.values()} <= topics.TOPICS[topics.CONTROL].producers


def test_the_phases_are_those_of_the_specification() -> None:
    assert {phase.key: (phase.name, phase.blockers) for phase in phases.PHASES.values()} == SPEC_PHASES
    assert list(phases.ORDER) == list(SPEC_PHASES)


@pytest.mark.parametrize("phase", phases.PHASES.values(), ids=lambda phase: phase.key)
def test_a_phase_has_an_owner_evidence_and_two_blockers(phase: phases.Phase) -> None:
    assert phase.owner
    assert phase.evidence
    assert phase.folder
    assert phase.risk
    assert len(set(phase.blockers)) == 2
    assert [phases.blocker_phase(code) for code in phase.blockers] == [phase.key, phase.key]
    assert all(phases.ORDER.index(entry) < phases.ORDER.index(phase.key) for entry in phase.opens)
    assert set(phase.governance) <= set(phase.evidence)


def test_an_unknown_blocker_has_no_phase() -> None:
    with pytest.raises(KeyError):
        phases.blocker_phase("DFULL-RUN-B99")


def test_evidence_keys_never_meet() -> None:
    run = "platform_20260101T000000Z"
    keys = [
        phase.evidence_key(run, f"{attempt:032x}", name)
        for phase in phases.PHASES.values()
        for attempt in (1, 2)
        for name in phase.evidence
    ]
    keys += [proofs.proof_key(run, lane, proof) for lane in proofs.LANES for proof in proofs.PROOFS]
    assert len(set(keys)) == len(keys)
    assert len(proofs.LANES) * len(proofs.PROOFS) == 30


def test_every_ingress_type_goes_to_an_ingress_topic_by_rising_rank() -> None:
    kinds = ingress.INGRESS_TYPES.values()
    assert [kind.topic for kind in kinds] == list(topics.INGRESS)
    ranks = [ingress.RANK_LABEL, *(kind.rank for kind in kinds), ingress.RANK_DEADLINE]
    assert ranks == sorted(set(ranks))


def test_every_record_has_a_kind() -> None:
    named = {kind.name.lower() for kind in Kind} | {"traffic"}
    assert set(DERIVED_TYPES) | set(ingress.INGRESS_TYPES) <= named
    assert ingress.kind_of("traffic", "AUTH_REQUEST") is Kind.AUTH_REQUEST
    assert ingress.kind_of("traffic", "REFUND") is Kind.TRAFFIC_OTHER


def test_event_types_are_unique_over_all_records() -> None:
    parts = (ingress.INGRESS_TYPES, DERIVED_TYPES)
    typed = len(CONTROL_TYPES) + len(REGISTRY_MODELS) + len(LEARNING_MODELS)
    assert len(payload_models()) == sum(map(len, parts)) + typed


def test_partitions_tile_over_members() -> None:
    for members in (1, 2, 3, 4, 6, 7):
        owned = [part for ordinal in range(members) for part in services.owned_partitions(ordinal, members, 6)]
        assert sorted(owned) == list(range(6))
    assert services.ordinal_of("rtdl-12") == 12
    assert services.instances({"rtdl": 2}, ("ig-0",)).count("rtdl-1") == 1


def test_profiles_realise_every_pin() -> None:
    assert all(realised.keys() == pins.PINS.keys() for realised in pins.PROFILES.values())
    assert pins.substitutions("dev_full") == {}
    assert [pins.alert_level(spend) for spend in (0, 119_999_999, 120_000_000, 210_000_000, 270_000_000)] == [
        0, 0, 1, 2, 3,
    ]  # fmt: skip
