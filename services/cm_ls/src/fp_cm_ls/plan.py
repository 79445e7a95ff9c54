"""What cm_ls takes from a run's header. Pure."""

from dataclasses import dataclass

from fp_contracts import topics
from fp_contracts.ids import run_tag
from fp_contracts.records import Pins
from fp_contracts.runconfig import RunHeader

STAGE = "cm_ls"
LABEL_SOURCE = "ls"
READ = (topics.CASE_TRIGGERS, topics.RTDL)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run as cm_ls works on it. Times in µs."""

    pins: Pins
    tag: bytes
    starts: dict[tuple[str, int], int]
    label_delay_us: int
    window_end_us: int
    label_parts: int

    @property
    def run(self) -> str:
        """The platform_run_id."""
        return self.pins.platform_run_id


def plan_of(header: RunHeader) -> RunPlan:
    """The plan of a run."""
    config = header.config
    pins = Pins(
        header.platform_run_id, header.scenario_run_id, config.manifest_fingerprint, header.run_config_digest
    )  # fmt: skip
    return RunPlan(
        pins=pins,
        tag=run_tag(header.platform_run_id),
        starts={(topic, part): at for topic in READ for part, at in header.starts(topic).items()},
        label_delay_us=config.label_effect_delay_us,
        window_end_us=config.windows[-1].end_us,
        label_parts=header.partitions(topics.LABELS),
    )
