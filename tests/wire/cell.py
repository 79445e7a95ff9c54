"""One isolated environment for processes on the session's servers, and what a test does with them from outside."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from fp_contracts.control import Check, ControlPayload, EvidenceRef, GatePassed, Receipt, RunPinned, WindowEnded
from fp_contracts.fold import RunState
from fp_contracts.ids import h32, phase_execution_id
from fp_contracts.phases import ORDER
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_contracts.topics import CONTROL, TRAFFIC, pinned
from fp_operator.stack import StackAddresses
from fp_runtime import controllog, kafka
from fp_runtime.bus import FetchProfile, Out, Record
from fp_runtime.deadline import until
from fp_runtime.postgres import Connection, connect, ensure_roles
from fp_runtime.readback import read_back
from fp_runtime.settings import RuntimeSettings

PASSWORD = "wire-test"
RUN = "platform_20260101T000000Z"
T0_US, END_US = 1_767_225_600_000_000, 1_767_312_000_000_000  # 2026-01-01, a day
PINNED = pinned("local")
HEX = "0" * 64
REF = EvidenceRef(key="evidence/test", sha256=HEX, size=1)
KEYS = "k1:" + "5a" * 32
WAIT_S = 60.0
_MODES = {"archive": ("rtdl", "archive"), "actions": ("df", "actions"), "actuator": ("df", "actuator")}


def now_us() -> int:
    return time.time_ns() // 1_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cell:
    """Own topics, database and folder; starts and ends its own processes, each under its service's role.

    `left`: failpoints by instance, armed one at each start from the next on.
    """

    stack: StackAddresses
    database: str
    prefix: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    def dsn(self, service: str) -> str:
        """Connection string of a service's role."""
        return make_conninfo(self.database, user=f"fp_{service}", password=PASSWORD)

    def settings(self, service: str | None = None) -> RuntimeSettings:
        """Settings of the test itself, as the owner or under a service's role."""
        return RuntimeSettings(
            instance="test-0", kafka_bootstrap=self.stack.kafka_bootstrap, topic_prefix=self.prefix,
            pg_dsn=self.dsn(service) if service else self.database, evidence_url=self.url("evidence"),
        )  # fmt: skip

    def url(self, store: str) -> str:
        """A store of this environment."""
        return (self.folder / store).as_uri()

    def open(self) -> Connection:
        """The owner's connection."""
        return connect(self.database, "test")

    def start(self, instance: str, failpoint: str = "", **environ: str) -> "subprocess.Popen[bytes]":
        """Start the process of this instance with a failpoint, or with the next of those left for it."""
        points = self.left.get(instance, [])
        name = instance.rpartition("-")[0]
        service, *mode = _MODES.get(name, (name,))
        given = {
            "FP_INSTANCE": instance, "FP_KAFKA_BOOTSTRAP": self.stack.kafka_bootstrap, "FP_PG_DSN": self.dsn(service),
            "FP_REDIS_URL": self.stack.redis_url, "FP_TOPIC_PREFIX": self.prefix,
            "FP_EVIDENCE_URL": self.url("evidence"),
            "FP_ARCHIVE_URL": self.url("archive"), "FP_ORACLE_URL": self.url("oracle"), "FP_PRODUCER_KEYS": KEYS,
            "FP_FAILPOINTS": failpoint or (points.pop(0) if points else ""),
        }  # fmt: skip
        own = {name: value for name, value in os.environ.items() if not name.startswith("FP_")}
        command = [sys.executable, "-m", f"fp_{service}", *mode]
        process = subprocess.Popen(command, env=own | given | self.environ | environ)
        self.running[instance] = process
        return process

    def revive(self) -> None:
        """Start what was killed again; whatever ended otherwise fails the test."""
        for instance, process in list(self.running.items()):
            code = process.poll()
            if code is not None:
                assert code == -signal.SIGKILL, f"{instance} ended with {code}"
                self.killed.append(instance)
                self.start(instance)

    def wait(self, predicate: Callable[[], object], what: str, wait_s: float = WAIT_S) -> None:
        """Until it holds, reviving what is killed meanwhile."""

        def reached() -> bool:
            self.revive()
            return bool(predicate())

        until(reached, wait_s, what, interval_s=0.2)

    def stop(self) -> None:
        """End every process, by force after 15 s."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def write(self, outs: Sequence[Out]) -> None:
        """Publish records."""
        producer = kafka.open_producer(self.settings())
        assert all(delivery.error is None for delivery in producer.publish(outs))
        producer.close()

    def tell(self, header: RunHeader, payload: ControlPayload, *salt: str) -> int:
        """Publish one event of the run; its offset."""
        producer = kafka.open_producer(self.settings())
        pins = controllog.header_pins(header)
        (offset,) = controllog.publish(producer, pins, [(payload, salt)], "test", now_us())
        producer.close()
        return offset

    def tell_passed(self, header: RunHeader, phase: str, *evidence: EvidenceRef) -> None:
        """Say that a phase passed at its first attempt, as its service would."""
        self.tell(header, gate_passed(header.platform_run_id, phase, *evidence), phase, "1")

    def tell_window_ended(self, header: RunHeader) -> None:
        """Say that window 1 ended, as wsp would."""
        self.tell(header, WindowEnded(window=1, lane_seqs={}, ledger_ref=REF), "1")

    def state(self, header: RunHeader) -> RunState:
        """The run as the control log has it now."""
        consumer = kafka.open_consumer(self.settings(), "test.control", fetch=FetchProfile.CONTROL)
        state = controllog.read_run(consumer, header.platform_run_id, header.pin_offset)
        consumer.close()
        return state

    def read(self, *names: str) -> list[Record]:
        """Everything on these topics now."""
        consumer = kafka.open_consumer(self.settings(), "test.read")
        starts = {(name, part): 0 for name in names for part in range(PINNED[name].partitions)}
        found = list(read_back(consumer, starts))
        consumer.close()
        return found

    def control(self, run: str) -> list[tuple[str, ControlPayload]]:
        """(event id, payload) of a run's control events, in order."""
        own = [record for record in self.read(CONTROL) if record.key == run.encode()]
        return [(envelope.event_id, payload) for _, envelope, payload in controllog.read(own)]

    def pin(self, config: RunConfig, **changes: Any) -> RunHeader:
        """A run pinned as sr does it: its row, then `run_pinned` on the control log."""
        header = header_of(config, **changes)
        with self.open() as conn:
            conn.execute(
                "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (header.platform_run_id, header.scenario_run_id, header.run_config_digest, header.pin_partition,
                 header.pin_offset, header.model_dump_json().encode()),
            )  # fmt: skip
        self.tell(header, RunPinned(header=header, header_ref=REF))
        return header


def gate_passed(run: str, phase: str, *evidence: EvidenceRef) -> GatePassed:
    """A phase that passed at its first attempt for nothing."""
    receipt = Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="none")  # fmt: skip
    check = Check(name="told", observed="1", required="1", ok=True)
    return GatePassed(phase=phase, attempt=1, phase_execution_id=phase_execution_id(run, phase, 1), checks=(check,),
                      evidence=evidence, receipt=receipt)  # fmt: skip


def config_of(**changes: Any) -> RunConfig:
    """A spine run of one day, unless changed; a budget for every phase."""
    limits = tuple(
        SpendLimit(phase=key, max_spend_microusd=10**9, expected_duration_s=60, hard_stop="4x", expected_artifacts=())
        for key in ORDER
    )
    base: dict[str, Any] = {
        "profile": "local", "scope": "spine", "manifest_fingerprint": HEX, "authority_digest": HEX,
        "lanes": PINNED[TRAFFIC].partitions,
        "windows": (Window(start_us=T0_US, end_us=END_US),), "feature_schema_digest": HEX, "policies": {"p1": HEX},
        "policy_initial": "p1", "handles_digest": HEX, "image_manifest_digest": HEX, "price_table_digest": HEX,
        "envelopes": limits,
    }  # fmt: skip
    return RunConfig(**(base | changes))


def header_of(config: RunConfig, **changes: Any) -> RunHeader:
    """The header of RUN on topics that are empty, unless changed."""
    starts = {topic.name: {str(part): 0 for part in range(topic.partitions)} for topic in PINNED.values()}
    base: dict[str, Any] = {
        "platform_run_id": RUN, "scenario_run_id": h32("scenario"), "config": config,
        "run_config_digest": config_digest(config), "start_offsets": starts,
        "lane_writers": {str(lane): "ig-0" for lane in range(config.lanes)}, "pinned_us": T0_US,
        "pin_partition": controllog.partition_of_run(RUN), "pin_offset": 0,
    }  # fmt: skip
    return RunHeader(**(base | changes))


def new_cell(
    stack: StackAddresses, database: str, prefix: str, folder: Path, services: Sequence[str], **environ: str
) -> Cell:
    """An environment with all topics made and a login for each service; `environ`: more for its processes."""
    made = Cell(stack, database, prefix, folder, environ)
    ensure_roles(database, {f"fp_{service}": PASSWORD for service in services})
    admin = kafka.open_admin(made.settings())
    admin.create_topics()
    admin.close()
    return made
