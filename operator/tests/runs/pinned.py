"""A pinned run for tests."""

from fp_contracts.runconfig import RunConfig, RunHeader, config_digest
from fp_contracts.topics import TOPICS

RUN = "platform_20260101T000000Z"
BUILD = "a" * 64
CONFIG = RunConfig.model_validate(
    {
        "profile": "local", "scope": "spine", "manifest_fingerprint": "b" * 64,
        "windows": ({"start_us": 0, "end_us": 10},), "feature_schema_digest": "c" * 64, "policies": {"p": "d" * 64},
        "policy_initial": "p", "authority_digest": "e" * 64, "handles_digest": "f" * 64,
        "image_manifest_digest": BUILD, "price_table_digest": "0" * 64, "envelopes": (),
    }
)  # fmt: skip
HEADER = RunHeader(
    platform_run_id=RUN, scenario_run_id="1" * 32, config=CONFIG, run_config_digest=config_digest(CONFIG),
    start_offsets={name: {str(part): 0 for part in range(topic.partitions)} for name, topic in TOPICS.items()},
    lane_writers={}, pinned_us=1, pin_partition=0, pin_offset=0,
)  # fmt: skip
