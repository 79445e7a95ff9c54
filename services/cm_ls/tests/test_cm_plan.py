"""What cm_ls takes from the header of a run: one label partition where there are two lanes."""

from fp_cm_ls.labeldesk import LaneState
from fp_cm_ls.plan import plan_of
from fp_contracts import topics
from fp_contracts.runconfig import RunConfig, RunHeader, Window, config_digest

HEX = "a" * 64


def header_of(profile: str) -> RunHeader:
    pinned = topics.pinned(profile)
    config = RunConfig.model_validate(
        {
            "profile": profile, "scope": "spine", "manifest_fingerprint": HEX,
            "lanes": pinned[topics.TRAFFIC].partitions, "windows": (Window(start_us=0, end_us=90),),
            "feature_schema_digest": HEX, "policies": {},
            "policy_initial": "p", "authority_digest": HEX, "handles_digest": HEX, "image_manifest_digest": HEX,
            "price_table_digest": HEX, "envelopes": (),
        }
    )  # fmt: skip
    return RunHeader(
        platform_run_id="platform_20260101T000000Z", scenario_run_id="b" * 32, config=config,
        run_config_digest=config_digest(config), lane_writers={}, pinned_us=1, pin_partition=0, pin_offset=0,
        start_offsets={name: {str(part): 7 for part in range(topic.partitions)} for name, topic in pinned.items()},
    )  # fmt: skip


def test_a_plan_has_the_label_partitions_of_its_run() -> None:
    local, kind = plan_of(header_of("local")), plan_of(header_of("kind"))
    assert (local.label_parts, kind.label_parts) == (1, 3)
    assert LaneState.beginning(local.label_parts) == LaneState(0, 0, (0,), (0,))
    assert sorted(local.starts) == [(topics.CASE_TRIGGERS, 0), (topics.RTDL, 0), (topics.RTDL, 1)]
