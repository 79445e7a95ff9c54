"""What df takes from a run's header: pins, policies and bundles with their switch times, members, starts. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from fp_contracts import topics
from fp_contracts.header import NONE_TS
from fp_contracts.ids import run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.registry import SERVED_CAPABILITIES, scope_of, switch_times
from fp_contracts.resolution import Serving
from fp_contracts.runconfig import RunConfig, RunHeader
from fp_contracts.services import owned_partitions
from fp_df.domain import Switch
from fp_df.policy import Policy
from fp_df.serving import BundlePlan
from fp_runtime.errors import UserError
from fp_runtime.eventtime.merge import InputKey

STAGE, STATE_STAGE, ACTIONS_STAGE = "df", "df.state", "actions"
WRITTEN = (topics.RTDL, topics.AUDIT, topics.CASE_TRIGGERS)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run as df works on it. Times in µs."""

    pins: Pins
    tag: bytes
    switches: tuple[Switch, ...]
    starts: Mapping[int, int]
    members: Mapping[str, int]
    window_end_us: int
    lanes: int
    partitions: Mapping[str, int]
    """How many each topic of `WRITTEN` has."""
    bundles: BundlePlan | None = None
    """None = guardrails only, and no registry is read."""

    @property
    def run(self) -> str:
        """The platform_run_id."""
        return self.pins.platform_run_id

    def switch_times(self) -> tuple[int, ...]:
        """Event time (µs) of each switch by place: policies, ascending from the initial one, then bundles, ascending.

        A bundle's place never changes what the places of policies are.
        """
        return (*(switch.effective_us for switch in self.switches), *self.bundle_times())

    def bundle_times(self) -> tuple[int, ...]:
        """Event times (µs) at which the registry may change what decides."""
        return () if self.bundles is None else self.bundles.times

    def owned(self, stage: str, ordinal: int) -> tuple[int, ...]:
        """rtdl partitions of a member of a stage."""
        return owned_partitions(ordinal, self.members.get(stage, 1), self.partitions[topics.RTDL])

    def inputs(self) -> tuple[InputKey, ...]:
        """The inputs of every partition's merge: one source per lane."""
        return tuple(InputKey(topics.RTDL, f"rtdl:{lane}") for lane in range(self.lanes))


def plan_of(header: RunHeader, known: Mapping[str, tuple[Policy, str]]) -> RunPlan:
    """The plan of a run; UserError when it pins a policy that this build does not have, byte for byte."""
    config = header.config
    for rev, digest in config.policies.items():
        if rev not in known or known[rev][1] != digest:
            raise UserError(f"policy {rev}", "not the one of this build", "pin a revision by its digest")
    pins = Pins(
        header.platform_run_id, header.scenario_run_id, config.manifest_fingerprint, header.run_config_digest
    )  # fmt: skip
    initial = Switch(NONE_TS, _pinned(config, known, config.policy_initial))
    later = tuple(Switch(at.effective_us, _pinned(config, known, at.policy_rev)) for at in config.policy_switches)
    times = [switch.effective_us for switch in later]
    if times != sorted(set(times)):
        raise UserError("policy switches", "their times do not ascend", "pin each switch after the one before it")
    return RunPlan(
        pins=pins,
        tag=run_tag(header.platform_run_id),
        switches=(initial, *later),
        starts=header.starts(topics.RTDL),
        members=config.members,
        window_end_us=config.windows[-1].end_us,
        lanes=header.lanes,
        partitions={topic: header.partitions(topic) for topic in WRITTEN},
        bundles=_bundles(header),
    )


def _bundles(header: RunHeader) -> BundlePlan | None:
    """Bundles decide in full runs only; their switches are pinned with the windows."""
    config = header.config
    if config.scope != "full":
        return None
    times, scope = switch_times(config.windows), scope_of(header)
    partition = partition_of(scope.bundle_slot, topics.TOPICS[topics.REGISTRY_EVENTS].partitions)
    return BundlePlan(
        scope=scope,
        times=() if times is None else times.ascending(),
        serving=Serving(
            config.feature_set, config.feature_schema_digest, frozenset(config.policies), SERVED_CAPABILITIES
        ),
        start_offset=header.starts(topics.REGISTRY_EVENTS)[partition],
        partition=partition,
    )


def _pinned(config: RunConfig, known: Mapping[str, tuple[Policy, str]], rev: str) -> Policy:
    if rev not in config.policies:
        raise UserError(f"policy {rev}", "used by the run and not pinned", "pin it by its digest")
    return known[rev][0]
