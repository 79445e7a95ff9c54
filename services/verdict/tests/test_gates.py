"""P2: green when all holds, and each blocker reached by breaking exactly one thing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fp_contracts.canonical import digest_of
from fp_contracts.control import ServiceHeartbeat
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_contracts.services import REQUIRED, instances
from fp_verdict.gates import BINDING, FRESH_US, HEALTH, ReadinessFacts, evaluate_p2

HEX = "a" * 64
NOW_US = 1_000_000_000
MANIFEST = {"kind": "source", "services": {service: f"build of {service}" for service in REQUIRED}}
CONFIG = RunConfig(
    profile="local", scope="spine", manifest_fingerprint=HEX, windows=(Window(start_us=0, end_us=10),),
    feature_schema_digest=HEX, policies={"v1": HEX}, policy_initial="v1", authority_digest=HEX, handles_digest=HEX,
    image_manifest_digest=digest_of(MANIFEST), price_table_digest=HEX,
    envelopes=tuple(SpendLimit(phase=key, max_spend_microusd=1, expected_duration_s=1, hard_stop="x",
                               expected_artifacts=()) for key in ORDER),
)  # fmt: skip
HEADER = RunHeader(
    platform_run_id="platform_20260101T000000Z", scenario_run_id="b" * 32, config=CONFIG,
    run_config_digest=config_digest(CONFIG), start_offsets={}, lane_writers={}, pinned_us=1, pin_partition=0,
    pin_offset=0,
)  # fmt: skip


def beat(name: str, **change: Any) -> ServiceHeartbeat:
    service = name.rpartition("-")[0]
    made: dict[str, Any] = {
        "service": service, "instance": name, "run_config_digest": HEADER.run_config_digest,
        "build_digest": f"build of {service}", "profile": "local", "ready": True, "telemetry_us": NOW_US,
        "at_us": NOW_US,
    }  # fmt: skip
    return ServiceHeartbeat(**(made | change))


BEATS = {name: beat(name) for name in instances(CONFIG.members, CONFIG.writers)}
GREEN = ReadinessFacts(HEADER, BEATS, NOW_US, MANIFEST, "verdict-0", "verdict-0")


def with_beat(name: str, **change: Any) -> ReadinessFacts:
    return replace(GREEN, heartbeats={**BEATS, name: beat(name, **change)})


BREAKS: dict[str, tuple[Callable[[], ReadinessFacts], str, bool]] = {
    "a member never spoke": (
        lambda: replace(GREEN, heartbeats={n: b for n, b in BEATS.items() if n != "rtdl-1"}), HEALTH, False),
    "a heartbeat is old": (lambda: with_beat("df-0", at_us=NOW_US - FRESH_US - 1), HEALTH, False),
    "telemetry is old": (lambda: with_beat("df-0", telemetry_us=NOW_US - FRESH_US - 1), HEALTH, False),
    "telemetry never arrived": (lambda: with_beat("df-0", telemetry_us=0), HEALTH, False),
    "a member is not ready": (lambda: with_beat("ig-0", ready=False), HEALTH, False),
    "nobody holds the reporter lock": (lambda: replace(GREEN, reporter=None), HEALTH, False),
    "another reporter": (lambda: replace(GREEN, reporter="verdict-1"), HEALTH, False),
    "another configuration": (lambda: with_beat("sr-0", run_config_digest="c" * 64), BINDING, True),
    "another build": (lambda: with_beat("wsp-0", build_digest="another"), BINDING, True),
    "another profile": (lambda: with_beat("wsp-0", profile="kind"), BINDING, True),
    "the manifest is gone": (lambda: replace(GREEN, manifest=None), BINDING, True),
    "another manifest": (lambda: replace(GREEN, manifest={**MANIFEST, "kind": "image"}), BINDING, True),
}  # fmt: skip


def test_a_ready_service_set_passes() -> None:
    evaluation = evaluate_p2(GREEN)
    assert [p for p in evaluation.predicates if not p.ok] == []
    assert set(evaluation.documents) == set(PHASES["P2"].evidence)


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_reaches_its_blocker(name: str) -> None:
    make, code, final = BREAKS[name]
    evaluation = evaluate_p2(make())
    assert {p.code for p in evaluation.predicates if not p.ok} == {code}
    assert evaluation.settled() is final


@pytest.mark.parametrize(("profile", "ok"), [("local", True), ("dev_full", False)])
def test_a_service_that_exports_nothing_is_let_pass_on_one_machine_only(profile: str, ok: bool) -> None:
    config = CONFIG.model_copy(update={"profile": profile})
    header = HEADER.model_copy(update={"config": config})
    beats = {name: beat(name, profile=profile, telemetry_us=None) for name in BEATS}
    found = {p.name: p.ok for p in evaluate_p2(replace(GREEN, header=header, heartbeats=beats)).predicates}
    assert found["services without telemetry"] is ok


def test_a_heartbeat_of_a_stranger_changes_nothing() -> None:
    facts = replace(GREEN, heartbeats={**BEATS, "rtdl-7": beat("rtdl-7", build_digest="another")})
    assert all(p.ok for p in evaluate_p2(facts).predicates)
