"""P1: each broken pin is refused with the right blocker; a sound one is pinned once."""

from dataclasses import replace

import pytest

from fp_contracts.control import Check, GatePassed, Receipt, RunPinRequested
from fp_contracts.fold import RunState, fold
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import ORDER
from fp_contracts.runconfig import PolicySwitch, RunConfig, SpendLimit, Window, config_digest
from fp_contracts.topics import TOPICS, pinned
from fp_sr.domain import Environment, RunLock, check_lock, check_pin, make_header, pin_evaluation, ready_id

RUN = "platform_20260101T000000Z"
HEX = "a" * 64
ENVIRONMENT = Environment("local", "", HEX, HEX)


def _config(**changes: object) -> RunConfig:
    envelopes = tuple(
        SpendLimit(phase=key, max_spend_microusd=1, expected_duration_s=1, hard_stop="x", expected_artifacts=())
        for key in ORDER
    )
    base: dict[str, object] = {
        "profile": "local", "scope": "spine", "lanes": 2, "manifest_fingerprint": HEX,
        "windows": (Window(start_us=0, end_us=10),), "feature_schema_digest": HEX,
        "policies": {"spine-v1": HEX}, "policy_initial": "spine-v1", "authority_digest": HEX, "handles_digest": HEX,
        "image_manifest_digest": HEX, "price_table_digest": HEX, "envelopes": envelopes,
    }  # fmt: skip
    return RunConfig(**(base | changes))  # type: ignore[arg-type]


def _gate(phase: str) -> GatePassed:
    receipt = Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="x")  # fmt: skip
    return GatePassed(phase=phase, attempt=1, phase_execution_id=phase_execution_id(RUN, phase, 1),
                      checks=(Check(name="c", observed="1", required="1", ok=True),), evidence=(),
                      receipt=receipt)  # fmt: skip


def _state(config: RunConfig, gates: tuple[str, ...] = ("P(-1)", "P0")) -> RunState:
    request = RunPinRequested(scenario_run_id="b" * 32, config=config, actor="tester")
    state = fold(RunState(RUN), request)
    for phase in gates:
        state = fold(state, _gate(phase))
    return state


def _failed(config: RunConfig, **kwargs: object) -> set[tuple[str, str]]:
    environment = kwargs.get("environment", ENVIRONMENT)
    digest = kwargs.get("digest", config_digest(config))
    state = _state(config, kwargs.get("gates", ("P(-1)", "P0")))  # type: ignore[arg-type]
    predicates = check_pin(state, str(digest), environment, kwargs.get("open_run"))  # type: ignore[arg-type]
    return {(predicate.code, predicate.name) for predicate in predicates if not predicate.ok}


def test_a_sound_pin_holds() -> None:
    assert _failed(_config()) == set()


@pytest.mark.parametrize(
    ("config", "kwargs", "blocker"),
    [
        (_config(), {"digest": "c" * 64}, ("DFULL-RUN-B1.1", "run_config_digest")),
        (_config(authority_digest="c" * 64), {}, ("DFULL-RUN-B1.1", "authority digest")),
        (_config(handles_digest="c" * 64), {}, ("DFULL-RUN-B1.1", "handle registry digest")),
        (_config(), {"open_run": "platform_20250101T000000Z"}, ("DFULL-RUN-B1", "run lock")),
        (_config(), {"gates": ("P(-1)",)}, ("DFULL-RUN-B1", "packaging and substrate gates")),
        (_config(profile="kind"), {}, ("DFULL-RUN-B1", "profile")),
        (_config(lanes=6), {}, ("DFULL-RUN-B1", "lanes")),
        (_config(profile="kind"), {"environment": replace(ENVIRONMENT, profile="kind")}, ("DFULL-RUN-B1", "lanes")),
        (_config(windows=(Window(start_us=5, end_us=5),)), {}, ("DFULL-RUN-B1", "windows")),
        (_config(envelopes=()), {}, ("DFULL-RUN-B1", "envelopes")),
        (_config(policy_initial="other"), {}, ("DFULL-RUN-B1", "policies")),
        (_config(policy_switches=(PolicySwitch(policy_rev="gone", effective_us=1),)), {},
         ("DFULL-RUN-B1", "policies")),
        (_config(profile="dev_full", lanes=6),
         {"environment": replace(ENVIRONMENT, profile="dev_full", topic_prefix="t.")},
         ("DFULL-RUN-B1", "substitutions")),
    ],
)  # fmt: skip
def test_one_broken_thing_blocks(config: RunConfig, kwargs: dict[str, object], blocker: tuple[str, str]) -> None:
    assert _failed(config, **kwargs) == {blocker}


def test_ready_has_one_identity_per_header() -> None:
    starts = {name: {"0": 0} for name in TOPICS}
    first = make_header(_state(_config()), starts, (0, 7), 1)
    again = make_header(_state(_config()), starts, (1, 9), 2)
    other = make_header(_state(_config(join_wait_ms=5)), starts, (0, 7), 1)
    assert ready_id(first) == ready_id(again) != ready_id(other)


def test_the_lock_is_held_by_the_open_run_on_record_under_its_configuration() -> None:
    header = make_header(_state(_config()), {}, (0, 0), 1)
    own = RunLock(RUN, header.run_config_digest, 7)
    another = (None, own._replace(run="platform_20250101T000000Z"), own._replace(run_config_digest=HEX))
    assert check_lock(header, own).ok
    assert [(check_lock(header, held).ok, check_lock(header, held).code) for held in another] == [
        (False, "DFULL-RUN-B1")
    ] * 3


def test_missing_start_offsets_block() -> None:
    of_local = {name: dict.fromkeys(map(str, range(t.partitions)), 0) for name, t in pinned("local").items()}
    of_kind = {name: dict.fromkeys(map(str, range(t.partitions)), 0) for name, t in pinned("kind").items()}
    for starts, refused in ((of_local, []), ({}, ["DFULL-RUN-B1"]), (of_kind, ["DFULL-RUN-B1"])):
        evaluation = pin_evaluation((), make_header(_state(_config()), starts, (0, 0), 1), {})
        assert [p.code for p in evaluation.predicates if not p.ok] == refused
