"""The fold of the control log: total, idempotent, gates sticky per attempt, order of gates irrelevant."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts.canonical import trusted_bytes
from fp_contracts.fold import RunState, fold
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import ORDER
from fp_contracts.records import CONTROL_TYPES, RecordError, read_control

RUN = "platform_20260301T080000Z-example"
EXAMPLES = Path(__file__).parents[3] / "tests" / "contract" / "examples"


def example(event_type: str) -> c.ControlPayload:
    return read_control(trusted_bytes(json.loads((EXAMPLES / f"{event_type}.json").read_text())))[1]


def body(event_type: str, **changes: Any) -> bytes:
    """The body of an example whose payload says something else."""
    found = json.loads((EXAMPLES / f"{event_type}.json").read_text())
    return trusted_bytes(found | {"payload": found["payload"] | changes})


def gate(passed: bool, phase: str = "P7", attempt: int = 1, note: str = "") -> c.GatePassed | c.GateBlocked:
    common: dict[str, Any] = {
        "phase": phase,
        "attempt": attempt,
        "phase_execution_id": phase_execution_id(RUN, phase, attempt),
        "checks": (c.Check(name="check", observed=note, required="", ok=passed),),
        "evidence": (),
        "receipt": c.Receipt(
            phase=phase, attempt=attempt, spend_microusd=0, first_sample=0, last_sample=0, window_us=0, artifacts=(),
            risk_retired="",
        ),
    }  # fmt: skip
    return c.GatePassed(**common) if passed else c.GateBlocked(**common, blockers=())


def resume(phase: str, attempt: int) -> c.RunResumeRequested:
    found = example("run_resume_requested")
    assert isinstance(found, c.RunResumeRequested)
    return found.model_copy(update={"phase": phase, "attempt": attempt})


def folded(*events: c.ControlPayload) -> RunState:
    state = RunState(RUN)
    for event in events:
        state = fold(state, event)
    return state


@pytest.mark.parametrize("event_type", CONTROL_TYPES)
def test_every_event_type_is_folded_and_once_is_as_good_as_twice(event_type: str) -> None:
    event = example(event_type)
    once = folded(event)
    assert fold(once, event) == once
    if event_type != "phase_opened":
        assert once != RunState(RUN)


def test_the_whole_log_twice_is_the_log_once() -> None:
    log = [example(event_type) for event_type in CONTROL_TYPES if event_type != "run_resume_requested"]
    assert folded(*log, *log) == folded(*log)


def test_silence_is_open_and_opened_is_not_closed() -> None:
    state = folded(example("phase_opened"))
    assert state.state_of("P7") == "OPEN"
    assert not state.passed("P7")
    assert state.earliest_open() == "P(-1)"


def test_a_block_is_sticky_within_its_attempt() -> None:
    assert folded(gate(False), gate(True)).state_of("P7") == "BLOCKED"
    assert folded(gate(True), gate(False)).state_of("P7") == "BLOCKED"


def test_a_resume_opens_a_new_attempt_that_can_pass() -> None:
    state = folded(gate(False), resume("P7", 2))
    assert (state.state_of("P7"), state.attempt_of("P7")) == ("OPEN", 2)
    assert fold(state, gate(True)).state_of("P7") == "OPEN"
    assert fold(state, gate(True, attempt=2)).state_of("P7") == "PASS"
    assert len(fold(state, gate(True, attempt=2)).history) == 2


def test_a_resume_reopens_later_blocked_phases_and_no_passed_one() -> None:
    state = folded(gate(True, "P7"), gate(False, "P8"), gate(False, "P9"), resume("P8", 2))
    assert [state.state_of(key) for key in ("P7", "P8", "P9")] == ["PASS", "OPEN", "OPEN"]
    assert [state.attempt_of(key) for key in ("P7", "P8", "P9")] == [1, 2, 2]


@pytest.mark.parametrize(
    "events",
    [
        [gate(True), gate(False), gate(True, "P8"), gate(False, "P9")],
        [gate(True, attempt=1), gate(False, attempt=1), gate(True, attempt=2)],
        [gate(False, note="a"), gate(False, note="b"), gate(True), gate(True, "P8")],
        [gate(True, attempt=2), gate(False, attempt=2), gate(True, attempt=3), gate(False, attempt=1)],
    ],
)
def test_any_order_of_gate_events_gives_the_same_matrix(events: list[c.GatePassed | c.GateBlocked]) -> None:
    matrices = {
        tuple((key, state.state_of(key), state.attempt_of(key)) for key in ("P7", "P8", "P9"))
        for order in permutations(events)
        for state in (folded(*order),)
    }
    assert len(matrices) == 1


def test_a_phase_may_open_only_after_its_entries_passed() -> None:
    state = folded(gate(True, "P7"))
    assert state.may_open("P8")
    assert not state.may_open("P9")
    assert not fold(state, gate(False, "P8")).may_open("P8")
    assert fold(state, gate(False, "P8")).blocked() == ("P8",)


def test_the_first_pin_and_the_newest_posture_count() -> None:
    posture = example("budget_posture")
    assert isinstance(posture, c.BudgetPosture)
    older = posture.model_copy(update={"as_of_us": posture.as_of_us - 1, "alert": 3})
    assert folded(posture, older).budget == posture == folded(older, posture).budget
    pinned = example("run_pinned")
    assert isinstance(pinned, c.RunPinned)
    other = pinned.model_copy(update={"header": pinned.header.model_copy(update={"pin_offset": 99})})
    assert folded(pinned, other).header == pinned.header


@pytest.mark.parametrize("event_type", ["phase_opened", "gate_passed", "gate_blocked", "run_resume_requested"])
def test_a_record_about_a_phase_that_is_not_in_the_registry_breaks_its_contract(event_type: str) -> None:
    for key in ORDER:
        assert fold(RunState(RUN), read_control(body(event_type, phase=key))[1]).platform_run_id == RUN
    for key in ("P99", "", "p7", "P7 "):
        with pytest.raises(RecordError, match="no such phase"):
            read_control(body(event_type, phase=key))


def test_a_receipt_is_of_a_phase_of_the_registry() -> None:
    receipt = json.loads((EXAMPLES / "gate_passed.json").read_text())["payload"]["receipt"]
    with pytest.raises(RecordError, match=r"receipt\.phase"):
        read_control(body("gate_passed", receipt=receipt | {"phase": "P99"}))
