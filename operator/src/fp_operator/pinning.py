"""Publishing a run: the pin request, the gates of P(-1) and P0 by reference, the pinned policy switches, the drills."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.ids import h32
from fp_contracts.records import Pins
from fp_contracts.runconfig import RunConfig, config_digest
from fp_operator.substrate import Environment
from fp_runtime import controllog
from fp_runtime.bus import FetchProfile
from fp_runtime.controllog import Event
from fp_runtime.kafka import open_consumer, open_producer
from fp_runtime.participant import now_us

NAME = "operator-0"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A requested run and where its control log begins."""

    run: str
    partition: int
    offset: int


def new_run_id(suffix: str | None = None) -> str:
    """platform_YYYYMMDDTHHMMSSZ[-suffix] of now."""
    stamp = time.strftime("platform_%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{stamp}-{suffix}" if suffix else stamp


def new_scenario_id() -> str:
    """A fresh hex32."""
    return secrets.token_hex(16)


def request(
    environment: Environment, run: str, scenario: str, config: RunConfig, actor: str, drills: Sequence[str] = (),
    reason: str = "",
) -> Pinned:  # fmt: skip
    """Ask sr to pin the run. Drills are instance:failpoint:action:N to arm."""
    settings = environment.settings()
    pins = Pins(run, scenario, config.manifest_fingerprint, config_digest(config))
    asked = c.RunPinRequested(scenario_run_id=scenario, config=config, actor=actor, reason=reason)
    events: list[Event] = [(asked, ())]
    events += [(gate, (gate.phase, "1")) for gate in environment.gates]
    events += [
        (
            c.PolicyActivated(policy_rev=switch.policy_rev, effective_us=switch.effective_us, actor=actor),
            (switch.policy_rev, str(switch.effective_us)),
        )
        for switch in config.policy_switches
    ]
    for drill in drills:
        instance, _, failpoint = drill.partition(":")
        drill_id = h32("drill", run, drill)
        events.append(
            (c.DrillRequested(drill_id=drill_id, instance=instance, failpoint=failpoint, actor=actor), (drill_id,))
        )
    producer = open_producer(settings)
    try:
        offsets = controllog.publish(producer, pins, events, NAME, now_us())
    finally:
        producer.close()
    return Pinned(run, controllog.partition_of_run(run), offsets[0])


def publish(environment: Environment, state: RunState, events: list[Event]) -> None:
    """Publish events of the operator on an existing run."""
    producer = open_producer(environment.settings())
    try:
        controllog.publish(producer, controllog.pins_of(state), events, NAME, now_us())
    finally:
        producer.close()


class Follower:
    """Reads one run's control log from its pin, fold by fold."""

    def __init__(self, environment: Environment, pinned: Pinned) -> None:
        self._consumer = open_consumer(environment.settings(), "fp.operator", fetch=FetchProfile.CONTROL)
        self._consumer.assign({(topics.CONTROL, pinned.partition): pinned.offset})
        self.state = RunState(pinned.run)

    def poll(self, timeout_s: float) -> RunState:
        """The state with everything that came within `timeout_s`."""
        self.state = controllog.fold_records(self.state, self._consumer.poll(500, timeout_s))
        return self.state

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()
