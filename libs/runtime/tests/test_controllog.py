"""A control record that breaks its contract is told and passed over: it must not end who follows the control topic."""

from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from fp_contracts import topics
from fp_contracts.control import Check, GatePassed, Receipt, RunResumeRequested
from fp_contracts.ids import phase_execution_id
from fp_contracts.records import Pins, body_of, control_event_id
from fp_runtime import controllog
from fp_runtime.bus import Out
from fp_runtime.evidence import ref_of
from fp_runtime.memory import MemoryBus

RUN, HEX = "platform_20260101T000000Z", "0" * 64
PART = controllog.partition_of_run(RUN)
PINS = Pins(RUN, "b" * 32, HEX, HEX)


def passed(phase: str) -> bytes:
    receipt = Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="x")  # fmt: skip
    check = Check(name="c", observed="1", required="1", ok=True)
    gate = GatePassed(phase=phase, attempt=1, phase_execution_id=phase_execution_id(RUN, phase, 1), checks=(check,),
                      evidence=(), receipt=receipt)  # fmt: skip
    return body_of(PINS, gate.type, control_event_id(RUN, gate, phase), 1, "tester", gate)


def resumed() -> bytes:
    asked = RunResumeRequested(phase="P7", attempt=2, reset_class="service_runtime", reason="x", actor="y",
                               receipt_ref=ref_of("k", b""))  # fmt: skip
    return body_of(PINS, asked.type, control_event_id(RUN, asked), 1, "tester", asked)


def of_p99(body: bytes) -> bytes:
    """The record as who does not know the registry would write it."""
    record: dict[str, Any] = orjson.loads(body)
    record["payload"]["phase"] = "P99"
    return orjson.dumps(record)


BROKEN = {
    "a gate of P99": of_p99(passed("P7")), "a resume of P99": of_p99(resumed()), "no JSON": b"{",
    "empty": b"", "another type": passed("P7").replace(b'"gate_passed"', b'"gate_opened"'),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_the_fold_passes_a_broken_record_and_goes_on(name: str) -> None:
    bus = MemoryBus()
    bus.create([topics.CONTROL])
    bodies = [passed("P3"), BROKEN[name], passed("P4")]
    bus.producer().publish([Out(topics.CONTROL, PART, RUN.encode(), body, b"") for body in bodies])
    with capture_logs() as told:
        state = controllog.read_run(bus.consumer("g"), RUN, 0)
    assert state.attempts.keys() == {"P3", "P4"}
    assert [(line["event"], line["offset"]) for line in told] == [("unreadable_control_record", 1)]
