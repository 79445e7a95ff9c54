"""What rtdl takes from a run's header: pins, rules, who writes each lane, where topics start. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from fp_contracts import topics
from fp_contracts.ids import run_tag
from fp_contracts.records import Pins
from fp_contracts.runconfig import RunHeader
from fp_contracts.services import owned_partitions
from fp_features import CORE_V1
from fp_rtdl.domain import Rules
from fp_runtime.errors import UserError
from fp_runtime.eventtime.merge import InputKey

STAGE = "rtdl"
LABEL_SOURCE = "ls"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run as rtdl works on it. Times in µs."""

    pins: Pins
    tag: bytes
    rules: Rules
    writers: Mapping[int, str]
    starts: Mapping[str, Mapping[int, int]]
    members: int
    watermark_interval_s: float
    lanes: int
    label_parts: int
    targets: int
    """Partitions that snapshots go to."""

    @property
    def run(self) -> str:
        """The platform_run_id."""
        return self.pins.platform_run_id

    def owned(self, ordinal: int) -> tuple[int, ...]:
        """Ingress partitions of a member."""
        return owned_partitions(ordinal, self.members, self.lanes)

    def inputs(self, part: int) -> tuple[InputKey, ...]:
        """The inputs of a partition's merge: its lane's writer on each ingress topic, and the label store."""
        writer = self.writers[part]
        return (*(InputKey(topic, writer) for topic in topics.INGRESS), InputKey(topics.LABELS, LABEL_SOURCE))

    def places(self, part: int) -> dict[str, int]:
        """Topic -> the topic partition that this ingress partition reads."""
        return {**dict.fromkeys(topics.INGRESS, part), topics.LABELS: part % self.label_parts}

    def start_offsets(self, part: int) -> dict[str, int]:
        """Topic -> where the run starts in the topic partition that this ingress partition reads."""
        return {topic: self.starts[topic][place] for topic, place in self.places(part).items()}


def plan_of(header: RunHeader) -> RunPlan:
    """The plan of a run; UserError when the run wants features that this build does not compute."""
    config = header.config
    if config.feature_set != CORE_V1.name or config.feature_schema_digest != CORE_V1.schema_digest:
        raise UserError(
            f"feature set {config.feature_set}", "not the one of this build", f"pin {CORE_V1.name} by its digest"
        )
    pins = Pins(
        header.platform_run_id, header.scenario_run_id, config.manifest_fingerprint, header.run_config_digest
    )  # fmt: skip
    rules = Rules(
        config.join_wait_ms * 1_000,
        config.context_horizon_ms * 1_000,
        tuple(window.end_us for window in config.windows),
    )
    return RunPlan(
        pins=pins,
        tag=run_tag(header.platform_run_id),
        rules=rules,
        writers={int(lane): writer for lane, writer in header.lane_writers.items()},
        starts={topic: header.starts(topic) for topic in (*topics.INGRESS, topics.LABELS)},
        members=config.members[STAGE],
        watermark_interval_s=config.watermark_interval_ms / 1_000,
        lanes=header.lanes,
        label_parts=header.partitions(topics.LABELS),
        targets=header.partitions(topics.RTDL),
    )
