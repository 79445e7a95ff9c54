"""The pinned configuration of a run and the header sr commits (gates.md P1, decisions.md).

`run_config_digest` = sha256 of the canonical RunConfig; every service recomputes it and refuses another.
"""

from typing import Literal

from pydantic import Field

from fp_contracts.canonical import digest_of
from fp_contracts.envelope import Closed, Hex32, Hex64, RunId, TimeUs
from fp_contracts.topics import TRAFFIC


class Realism(Closed):
    """Declared disturbances of the stream, chosen by seed and event id; rates in parts per million."""

    seed: int = 7
    duplicate_ppm: int = 5_000
    mutant_ppm: int = 1_000
    poison_ppm: int = 1_000
    late_context_ppm: int = 3_000


class Window(Closed):
    """[start, end) of order_ts; the closing watermark of the window is exactly `end_us`."""

    start_us: TimeUs
    end_us: TimeUs


class PolicySwitch(Closed):
    """A pinned switch: `policy_rev` takes effect at event time `effective_us`."""

    policy_rev: str
    effective_us: TimeUs


class SpendLimit(Closed):
    """The envelope of one phase at the pin. Money in micro-USD."""

    phase: str
    max_spend_microusd: int = Field(ge=0)
    expected_duration_s: int = Field(ge=1)
    hard_stop: str
    expected_artifacts: tuple[str, ...]


class RunConfig(Closed):
    """Everything that decides what a run computes. No ids of the run itself: two runs of it give equal fingerprints."""

    schema_version: Literal["v1"] = "v1"
    profile: Literal["local", "kind", "dev_full"]
    scope: Literal["spine", "full"]
    manifest_fingerprint: Hex64
    windows: tuple[Window, ...] = Field(min_length=1)
    lanes: int = 6
    writers: tuple[str, ...] = ("ig-0",)
    members: dict[str, int] = Field(default_factory=lambda: {"rtdl": 2, "df": 1, "cm_ls": 1})
    join_wait_ms: int = Field(default=2_000, ge=1)
    context_horizon_ms: int = Field(default=600_000, ge=1)
    lane_skew_limit: int = Field(default=6_000, ge=1)
    watermark_interval_ms: int = Field(default=20, ge=1)
    batch_lines: int = Field(default=1_000, ge=1, le=1_000)
    pace_per_s: int = Field(default=0, ge=0)
    lag_limit_ms: int = Field(default=10_000, ge=1)
    adjudication_delay_us: int = Field(default=6 * 86_400_000_000, ge=0)
    label_effect_delay_us: int = Field(default=86_400_000_000, ge=0)
    adjudication: Literal["fraud", "all"] = "fraud"
    realism: Realism = Realism()
    feature_set: str = "core.v1"
    feature_schema_digest: Hex64
    policies: dict[str, Hex64]
    policy_initial: str
    policy_switches: tuple[PolicySwitch, ...] = ()
    authority_digest: Hex64
    handles_digest: Hex64
    image_manifest_digest: Hex64
    price_table_digest: Hex64
    envelopes: tuple[SpendLimit, ...]
    alignment: Literal["strict"] = "strict"
    run_kind: Literal["replay", "live"] = "replay"


def config_digest(config: RunConfig) -> str:
    """The one run_config_digest (hex64)."""
    return digest_of(config.model_dump(mode="json"))


class RunHeader(Closed):
    """What sr commits once per run: config, digest, where every topic starts, which writer owns each lane."""

    platform_run_id: RunId
    scenario_run_id: Hex32
    config: RunConfig
    run_config_digest: Hex64
    start_offsets: dict[str, dict[str, int]]
    lane_writers: dict[str, str]
    pinned_us: TimeUs
    pin_partition: int
    pin_offset: int

    def starts(self, topic: str) -> dict[int, int]:
        """Start offset of each partition of a topic, as recorded at the pin."""
        return {int(part): offset for part, offset in self.start_offsets[topic].items()}

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has in this run; KeyError for a topic that the pin did not record."""
        return len(self.start_offsets[topic])

    @property
    def lanes(self) -> int:
        """Ingress lanes of this run: the partitions of traffic."""
        return self.partitions(TRAFFIC)
