"""The topic registry: the only place where a topic name is spelled (contracts.md §1, spec Appendix A)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fp_contracts.header import Kind

_DAY_MS = 86_400_000
MAX_MESSAGE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its partitions, retention (ms), key field, and who writes and reads it."""

    name: str
    family: str
    partitions: int
    retention_ms: int
    key: str
    producers: frozenset[str]
    consumers: frozenset[str]
    max_message_bytes: int = MAX_MESSAGE_BYTES


CONTROL = "fp.bus.control.v1"
TRAFFIC = "fp.bus.traffic.fraud.v1"
ARRIVAL_EVENTS = "fp.bus.context.arrival_events.v1"
ARRIVAL_ENTITIES = "fp.bus.context.arrival_entities.v1"
FLOW_ANCHOR = "fp.bus.context.flow_anchor.fraud.v1"
RTDL = "fp.bus.rtdl.v1"
AUDIT = "fp.bus.audit.v1"
CASE_TRIGGERS = "fp.bus.case.triggers.v1"
LABELS = "fp.bus.labels.events.v1"
OFS_REQUESTS = "fp.bus.learning.ofs.requests.v1"
OFS_EVENTS = "fp.bus.learning.ofs.events.v1"
MF_REQUESTS = "fp.bus.learning.mf.requests.v1"
MF_EVENTS = "fp.bus.learning.mf.events.v1"
REGISTRY_EVENTS = "fp.bus.learning.registry.events.v1"

INGRESS = (ARRIVAL_EVENTS, ARRIVAL_ENTITIES, FLOW_ANCHOR, TRAFFIC)
DATA = (*INGRESS, RTDL, AUDIT, CASE_TRIGGERS, LABELS)
LANES = 6
"""Lanes of `TOPICS`. A run has those of its environment's profile: `RunHeader.lanes`."""
_LANES_OF = MappingProxyType({"dev_full": LANES, "kind": LANES, "local": 2})
_HALF = frozenset({"audit", "case", "labels"})

_ALL = ("sr", "wsp", "ig", "rtdl", "df", "cm_ls", "verdict", "ofs_trigger", "operator")


def _topic(
    name: str, family: str, partitions: int, days: int, key: str, producers: tuple[str, ...], consumers: tuple[str, ...]
) -> Topic:
    return Topic(name, family, partitions, days * _DAY_MS, key, frozenset(producers), frozenset(consumers))


_REGISTRY = (
    _topic(CONTROL, "control", 3, 30, "platform_run_id", _ALL, _ALL),
    _topic(TRAFFIC, "high volume", 6, 7, "merchant_id", ("ig",), ("rtdl", "archive")),
    _topic(ARRIVAL_EVENTS, "high volume", 6, 7, "merchant_id", ("ig",), ("rtdl", "archive")),
    _topic(ARRIVAL_ENTITIES, "high volume", 6, 7, "merchant_id", ("ig",), ("rtdl", "archive")),
    _topic(FLOW_ANCHOR, "high volume", 6, 7, "merchant_id", ("ig",), ("rtdl", "archive")),
    _topic(RTDL, "high volume", 6, 7, "account_id", ("rtdl", "df"), ("df", "cm_ls", "archive")),
    _topic(AUDIT, "audit", 3, 30, "account_id", ("df",), ("archive",)),
    _topic(CASE_TRIGGERS, "case", 3, 30, "case_id", ("df",), ("cm_ls", "archive")),
    _topic(LABELS, "labels", 3, 30, "merchant_id", ("cm_ls",), ("rtdl", "ofs_trigger", "archive")),
    _topic(OFS_REQUESTS, "learning", 3, 30, "platform_run_id", ("ofs_trigger",), ("ofs",)),
    _topic(OFS_EVENTS, "learning", 3, 30, "platform_run_id", ("ofs",), ("ofs_trigger", "verdict")),
    _topic(MF_REQUESTS, "learning", 3, 30, "platform_run_id", ("ofs_trigger",), ("mf",)),
    _topic(MF_EVENTS, "learning", 3, 30, "platform_run_id", ("mf",), ("ofs_trigger", "verdict")),
    _topic(REGISTRY_EVENTS, "governance", 3, 90, "bundle_slot", ("ofs_trigger",), ("df", "verdict")),
)
TOPICS: Mapping[str, Topic] = MappingProxyType({topic.name: topic for topic in _REGISTRY})
"""Names, limits, retention, producers and consumers; partitions as where nothing else is said (the in-memory bus)."""


def _shaped(topic: Topic, lanes: int) -> Topic:
    if topic.family == "high volume":
        return replace(topic, partitions=lanes)
    return replace(topic, partitions=lanes // 2) if topic.family in _HALF else topic


_PINNED: Mapping[str, Mapping[str, Topic]] = MappingProxyType(
    {
        profile: MappingProxyType({topic.name: _shaped(topic, lanes) for topic in _REGISTRY})
        for profile, lanes in _LANES_OF.items()
    }
)


def pinned(profile: str) -> Mapping[str, Topic]:
    """The topics that an environment of a profile must have; KeyError for an unknown profile.

    High-volume topics have one partition per lane: six lanes where stages scale out, two on one machine, since a wave
    costs per topic-partition at every stage (ADR 18). Audit, case and labels have half as many partitions as there are
    lanes: lane p reads label partition p mod that number, which finds the labels of its merchants only when that
    number divides the lanes.
    """
    return _PINNED[profile]


def colliding_names() -> list[tuple[str, str]]:
    """Pairs of names that Kafka folds to one metric name (`.` and `_` are the same there)."""
    seen: dict[str, str] = {}
    pairs = []
    for name in TOPICS:
        folded = name.replace(".", "_")
        if folded in seen:
            pairs.append((seen[folded], name))
        seen[folded] = name
    return pairs


# Which kinds of a topic take part in the merge; others take their place in the sequence and nothing else.
KINDS: Mapping[str, frozenset[Kind]] = MappingProxyType(
    {
        ARRIVAL_EVENTS: frozenset({Kind.ARRIVAL_EVENT}),
        ARRIVAL_ENTITIES: frozenset({Kind.ARRIVAL_ENTITIES}),
        FLOW_ANCHOR: frozenset({Kind.FLOW_ANCHOR}),
        TRAFFIC: frozenset({Kind.AUTH_REQUEST, Kind.TRAFFIC_OTHER}),
        LABELS: frozenset({Kind.LABEL_ASSERTION}),
    }
)
