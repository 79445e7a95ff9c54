"""What the learning jobs are asked for: derived from the run's header, its archive and the phases before. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fp_contracts import topics
from fp_contracts.bundle import BundleRef, DatasetRef, TrainRequest
from fp_contracts.canonical import digest_of
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import BasisRange, BuildIntent, JoinScope, LabelRule, OfsRequest
from fp_contracts.jobrun import InputsRead, inputs_of
from fp_contracts.learning import Limits
from fp_contracts.registry import SERVED_CAPABILITIES
from fp_contracts.resolution import Serving
from fp_contracts.runconfig import RunConfig, RunHeader

LEARNING_PHASES = ("P12", "P13", "P14", "P15")
BASIS_TOPICS = (*topics.INGRESS, topics.LABELS, topics.RTDL)
MODULE_OF = {"P12": "fp_ofs", "P13": "fp_ofs", "P14": "fp_mf"}
_DAY_US = 86_400_000_000


class ArchivedObject(NamedTuple):
    """One object of the archive: records [first, next) of a topic-partition."""

    topic: str
    partition: int
    first: int
    next: int
    ref: EvidenceRef
    records: int


def full(config: RunConfig) -> bool:
    """Whether the learning lane is part of the run; otherwise its phases stay OPEN and no job runs."""
    return config.scope == "full"


def as_of_us(config: RunConfig) -> int:
    """The pinned label as-of: the last µs of window 1, up to which the label lane is closed when P11 has passed.

    The end itself is the next window's: a label observed exactly there may still come.
    """
    return config.windows[0].end_us - 1


def maturity_days(config: RunConfig) -> int:
    """Whole days after which adjudication has spoken of a payment."""
    return -(-config.adjudication_delay_us // _DAY_US)


def basis_of(objects: Iterable[ArchivedObject], header: RunHeader) -> tuple[BasisRange, ...]:
    """[start, end) per topic-partition that the jobs read: from the run's start to what the archive reached."""
    ends: dict[tuple[str, int], int] = {}
    for found in objects:
        place = (found.topic, found.partition)
        ends[place] = max(ends.get(place, 0), found.next)
    return tuple(
        BasisRange(topic=topic, partition=part, start=start, end=max(start, ends.get((topic, part), start)))
        for topic in BASIS_TOPICS
        for part, start in sorted(header.starts(topic).items())
    )


def archived_records(objects: Iterable[ArchivedObject]) -> dict[str, int]:
    """Records of the basis per topic."""
    counts = dict.fromkeys(BASIS_TOPICS, 0)
    for found in objects:
        counts[found.topic] += found.records
    return counts


def intent_of(header: RunHeader, basis: tuple[BasisRange, ...]) -> BuildIntent:
    """The build intent of window 1, by the header's own rules."""
    config = header.config
    return BuildIntent(
        platform_run_id=header.platform_run_id,
        scenario_run_id=header.scenario_run_id,
        manifest_fingerprint=config.manifest_fingerprint,
        run_config_digest=header.run_config_digest,
        basis=basis,
        labels=LabelRule(
            as_of_us=as_of_us(config), maturity_days=maturity_days(config),
            effect_delay_us=config.label_effect_delay_us,
            unlabelled="legit" if config.adjudication == "fraud" else "censored",
        ),
        feature_set=config.feature_set,
        feature_schema_digest=config.feature_schema_digest,
        join=JoinScope(
            join_wait_us=config.join_wait_ms * 1_000, horizon_us=config.context_horizon_ms * 1_000,
            window_ends_us=(config.windows[0].end_us,),
        ),
        code_release=config.image_manifest_digest,
    )  # fmt: skip


def policy_rev_of(config: RunConfig) -> str:
    """The policy revision that is in force at the end of the pinned switches: the one a bundle is made for."""
    return config.policy_switches[-1].policy_rev if config.policy_switches else config.policy_initial


def train_request_of(
    header: RunHeader, manifest: EvidenceRef, dataset_fingerprint: str, active: BundleRef | None, lock: str
) -> TrainRequest:
    """The training of a run's dataset; `active` = what the candidate must not fall behind.

    `lock`: sha256 of the lock file that the pinned release names.
    """
    config = header.config
    return TrainRequest(
        platform_run_id=header.platform_run_id,
        dataset=DatasetRef(manifest=manifest, dataset_fingerprint=dataset_fingerprint),
        policy_rev=policy_rev_of(config),
        feature_set=config.feature_set,
        feature_schema_digest=config.feature_schema_digest,
        active=active,
        code_release=config.image_manifest_digest,
        environment_lock_digest=lock,
    )


def serving_of(config: RunConfig) -> Serving:
    """What df serves in this run."""
    return Serving(config.feature_set, config.feature_schema_digest, frozenset(config.policies), SERVED_CAPABILITIES)


def limits_of(phase: str, config: RunConfig, memory_bytes: int) -> Limits:
    """A job may take three times its phase's expected duration: it ends before the phase's own hard stop (four)."""
    expected = [envelope.expected_duration_s for envelope in config.envelopes if envelope.phase == phase]
    wall_s = 3 * (expected[0] if expected else 60)
    return Limits(wall_s=wall_s, cpu_s=2 * wall_s, memory_bytes=memory_bytes)


def named_inputs(request: OfsRequest) -> dict[str, InputsRead]:
    """The archive objects that a request pins, by topic, as jobs must have read them."""
    by_topic: dict[str, dict[str, tuple[str, int]]] = {}
    for ref in request.archive_objects:
        by_topic.setdefault(ref.key.split("/")[2], {})[ref.key] = (ref.sha256, ref.size)
    return {topic: inputs_of(found.items()) for topic, found in by_topic.items()}


def uncovered(counts: Mapping[str, int], reconciled: Mapping[str, int]) -> Sequence[str]:
    """Topics of which the basis holds fewer records than P11 had reconciled."""
    return [
        f"{topic}: {counts.get(topic, 0)} of {reconciled.get(topic, 0)}"
        for topic in BASIS_TOPICS
        if topic not in reconciled or counts.get(topic, 0) < reconciled[topic]
    ]


def probe_digest(bundle: BundleRef) -> str:
    """A model digest that no bundle has: that of the incompatible bundle which the corridor offers to itself."""
    return digest_of({"probe": bundle.model_digest})
