"""P(-1) and P0: each blocker is reached by breaking exactly one thing; envelopes come first."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fp_contracts.phases import PHASES
from fp_contracts.services import REQUIRED
from fp_contracts.topics import TRAFFIC, Topic, pinned
from fp_operator import build, controlroot, p0, substrate
from fp_operator.build import BuildFacts
from fp_operator.handles import topic_drift
from fp_operator.p0 import STACKS, SubstrateFacts
from fp_runtime.builds import JOBS
from fp_runtime.bus import TopicState
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceStore, open_store
from fp_runtime.memory import MemoryBus
from fp_runtime.settings import RuntimeSettings

BUILT = BuildFacts(dict.fromkeys(REQUIRED, "d" * 64), "rev", b"lock", (("orjson", "3"),), dict.fromkeys(JOBS, "d" * 64))
READY = SubstrateFacts(dict.fromkeys(STACKS, ("here", True)), {"TOPICS_V0": None}, None, 0)


@pytest.fixture
def store(tmp_path: Path) -> EvidenceStore:
    return open_store(tmp_path.as_uri())


def test_a_whole_build_and_a_ready_substrate_pass() -> None:
    for phase, evaluation in (("P(-1)", build.evaluate(BUILT)), ("P0", p0.evaluate(READY))):
        assert all(predicate.ok for predicate in evaluation.predicates)
        assert set(evaluation.documents) == set(PHASES[phase].evidence)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"fault": "no module fp_df"}, "DFULL-RUN-BP1"),
        ({"digests": dict.fromkeys(REQUIRED[1:], "d" * 64)}, "DFULL-RUN-BP2"),
        ({"jobs": {"fp_ofs": "d" * 64}}, "DFULL-RUN-BP2"),
        ({"revision": None}, "DFULL-RUN-BP2"),
        ({"lock": None}, "DFULL-RUN-BP2"),
        ({"components": ()}, "DFULL-RUN-BP2"),
    ],
)
def test_a_build_without_one_part_blocks(broken: dict[str, Any], code: str) -> None:
    failed = [predicate for predicate in build.evaluate(replace(BUILT, **broken)).predicates if not predicate.ok]
    assert [predicate.code for predicate in failed] == [code]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"stacks": {name: ("here", name != "streaming") for name in STACKS}}, "DFULL-RUN-B0"),
        ({"stacks": dict.fromkeys(STACKS[1:], ("here", True))}, "DFULL-RUN-B0"),
        ({"handles": {"TOPICS_V0": "topics missing"}}, "DFULL-RUN-B0"),
        ({"handles": {}}, "DFULL-RUN-B0"),
        ({"month_spend_microusd": None}, "DFULL-RUN-B0"),
        ({"month_spend_microusd": 270_000_000}, "DFULL-RUN-B0"),
        ({"lock_fault": "held by another"}, "DFULL-RUN-B0.1"),
    ],
)
def test_a_substrate_with_one_fault_blocks(broken: dict[str, Any], code: str) -> None:
    failed = [predicate for predicate in p0.evaluate(replace(READY, **broken)).predicates if not predicate.ok]
    assert [predicate.code for predicate in failed] == [code]


def test_the_envelope_is_written_before_and_the_receipt_after(store: EvidenceStore) -> None:
    opened = controlroot.open_phase(store, "P0", "somebody", "a demo")
    assert [stored.key for stored in store.list(opened.root)] == [f"{opened.root}/envelope.json"]
    gate = controlroot.close_phase(store, opened, p0.evaluate(READY), 5, 1_000)
    receipt = orjson.loads(store.get(f"{opened.root}/receipt.json"))
    assert (receipt["spend_microusd"], receipt["actor"], receipt["reason"]) == (5, "somebody", "a demo")
    assert {ref.key for ref in gate.evidence} == set(receipt["artifacts"])


def test_a_failed_predicate_or_too_much_spend_is_no_gate(store: EvidenceStore) -> None:
    opened = controlroot.open_phase(store, "P0")
    with pytest.raises(UserError, match=r"DFULL-RUN-B0\.1"):
        controlroot.close_phase(store, opened, p0.evaluate(replace(READY, lock_fault="held")), 5, 1)
    with pytest.raises(UserError, match="spent"):
        controlroot.close_phase(store, opened, p0.evaluate(READY), opened.max_spend_microusd + 1, 1)


def states(topics: Mapping[str, Topic]) -> dict[str, TopicState]:
    return {name: TopicState(t.partitions, t.retention_ms, t.max_message_bytes) for name, t in topics.items()}


def test_topics_of_another_number_of_lanes_are_named() -> None:
    assert topic_drift(states(pinned("local")), "local") is None
    assert topic_drift(states(pinned("kind")), "kind") is None
    told = topic_drift(states(pinned("kind")), "local")
    assert told == (
        "fp.bus.audit.v1 has 3 partitions, not 1 and 7 more differ: made for another number of lanes than profile"
        " local has"
    )
    assert TRAFFIC in str(topic_drift({TRAFFIC: states(pinned("local"))[TRAFFIC]}, "kind"))


@pytest.mark.parametrize("profile", ["local", "kind"])
def test_a_state_folder_with_six_lanes_is_refused_with_the_fix(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus(pinned(profile))
    bus.create(pinned(profile))
    monkeypatch.setattr(substrate, "open_admin", lambda _: bus.admin())
    monkeypatch.delenv("FP_KAFKA_BOOTSTRAP", raising=False)
    settings = RuntimeSettings(instance="o-0", kafka_bootstrap="x", pg_dsn="x", evidence_url="file:///x")
    if profile == "local":
        substrate.make_topics(settings, tmp_path)
        return
    with pytest.raises(UserError, match="another number of lanes") as refused:
        substrate.make_topics(settings, tmp_path)
    assert f"`fp down`, then remove {tmp_path} or name a new folder by FP_STATE_DIR" in str(refused.value.fix)
