"""What a run header must say for rtdl to serve it, and how partitions are shared."""

from collections.abc import Mapping

import pytest

from fp_contracts import topics
from fp_contracts.partition import partition_of
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest
from fp_features import CORE_V1
from fp_rtdl.lane import Lane
from fp_rtdl.plan import plan_of
from fp_runtime.errors import UserError

DIGEST = "a" * 64


def header(
    feature_digest: str = CORE_V1.schema_digest, members: int = 2, pinned: Mapping[str, topics.Topic] = topics.TOPICS
) -> RunHeader:
    lanes = pinned[topics.TRAFFIC].partitions
    config = RunConfig(
        profile="local", scope="spine", manifest_fingerprint=DIGEST, windows=(Window(start_us=0, end_us=10),),
        feature_schema_digest=feature_digest, policies={}, policy_initial="p", authority_digest=DIGEST,
        handles_digest=DIGEST, image_manifest_digest=DIGEST, price_table_digest=DIGEST, envelopes=(),
        members={"rtdl": members}, lanes=lanes,
    )  # fmt: skip
    return RunHeader(
        platform_run_id="platform_20260101T000000Z", scenario_run_id="b" * 32, config=config,
        run_config_digest=config_digest(config),
        start_offsets={name: {str(part): 7 + part for part in range(topic.partitions)}
                       for name, topic in pinned.items()},
        lane_writers={str(lane): f"ig-{lane % 2}" for lane in range(lanes)}, pinned_us=0, pin_partition=0, pin_offset=0,
    )  # fmt: skip


def test_a_partition_reads_its_lane_s_writer_and_its_label_partition() -> None:
    plan = plan_of(header())
    assert {key.source for key in plan.inputs(3) if key.topic != topics.LABELS} == {"ig-1"}
    assert plan.places(5) == {**dict.fromkeys(topics.INGRESS, 5), topics.LABELS: 2}
    assert plan.start_offsets(5)[topics.LABELS] == 9


@pytest.mark.parametrize("members", [1, 2, 3, 6, 7])
def test_every_partition_has_exactly_one_member(members: int) -> None:
    plan = plan_of(header(members=members))
    assert sorted(part for ordinal in range(members) for part in plan.owned(ordinal)) == list(range(6))


def test_a_plan_has_the_lanes_of_its_run() -> None:
    plan = plan_of(header(pinned=topics.pinned("local")))
    assert (plan.lanes, plan.label_parts, plan.targets) == (2, 1, 2)
    assert [plan.owned(ordinal) for ordinal in (0, 1, 2)] == [(0,), (1,), ()]
    assert plan.places(1) == {**dict.fromkeys(topics.INGRESS, 1), topics.LABELS: 0}
    lane = Lane(plan, 1)
    assert [lane.last_seq(target) for target in range(plan.targets)] == [0, 0]


def test_a_merchant_s_labels_are_where_its_lane_looks() -> None:
    assert all(partition_of(f"m-{n}", 6) % 3 == partition_of(f"m-{n}", 3) for n in range(200))


def test_a_feature_set_of_another_build_is_refused() -> None:
    with pytest.raises(UserError, match=r"core\.v1: not the one of this build"):
        plan_of(header(feature_digest="f" * 64))
