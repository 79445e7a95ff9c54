"""df, its action layer and the actuator as real processes on real servers: killed anywhere, P9 closes."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fp_contracts import topics
from fp_contracts.control import (
    BudgetPosture,
    ControlPayload,
    EvidenceRef,
    GatePassed,
    PolicyActivated,
    Receipt,
    RunPinned,
    WindowEnded,
)
from fp_contracts.fold import RunState
from fp_contracts.header import Header, Kind, pack, unpack
from fp_contracts.ids import phase_execution_id, run_tag
from fp_contracts.runconfig import (
    PolicySwitch,
    RunConfig,
    RunHeader,
    SpendLimit,
    Window,
    config_digest,
)
from fp_df import audit, sample
from fp_df.catalogue import policies
from fp_df.plan import plan_of
from fp_df.replay import Replay
from fp_features import CORE_V1
from fp_operator.stack import StackAddresses
from fp_runtime import controllog, kafka
from fp_runtime.bus import FetchProfile, Out, Record
from fp_runtime.deadline import until
from fp_runtime.postgres import connect, ensure_roles
from fp_runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
PASSWORD = "wire-df"
RUN = sample.RUN
COUNT = 240
END_US = sample.START_US + COUNT * 1_000_000 + 1
SWITCH_US = sample.START_US + 150 * 1_000_000
WAIT_S = 60.0
KILLS = {
    "df-0": ["df.before_commit", "df.after_commit", "df.after_publish"],
    "actions-0": ["al.after_call", "al.after_commit"],
}


def now_us() -> int:
    return time.time_ns() // 1_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cell:
    """One isolated environment: own topics, database, stores and actuator; starts and ends its own processes."""

    settings: RuntimeSettings
    owner_dsn: str
    environ: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    def start(self, instance: str) -> None:
        mode = [] if instance == "df-0" else [instance.rpartition("-")[0]]
        points = self.left.get(instance, [])
        armed = f"{points.pop(0)}:kill:1" if points else ""
        environ = {**self.environ, "FP_INSTANCE": instance, "FP_FAILPOINTS": armed}
        self.running[instance] = subprocess.Popen([sys.executable, "-m", "fp_df", *mode], env=environ)

    def revive(self) -> None:
        """Start what was killed again, with the next failpoint of its instance."""
        for instance, process in list(self.running.items()):
            code = process.poll()
            if code is not None:
                assert code == -signal.SIGKILL, f"{instance} ended with {code}"
                self.killed.append(instance)
                self.start(instance)

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tell(self, header: RunHeader, payload: ControlPayload, *salt: str) -> None:
        producer = kafka.open_producer(self.settings)
        controllog.publish(producer, controllog.header_pins(header), [(payload, salt)], "test", now_us())
        producer.close()

    def state(self) -> RunState:
        consumer = kafka.open_consumer(self.settings, "test.control", fetch=FetchProfile.CONTROL)
        state = controllog.read_run(consumer, RUN, 0)
        consumer.close()
        return state

    def write(self, outs: Sequence[Out]) -> None:
        producer = kafka.open_producer(self.settings)
        assert all(delivery.error is None for delivery in producer.publish(outs))
        producer.close()

    def read(self, topic: str, kind: Kind) -> list[Record]:
        """Records of a kind without repeats: the same (source, seq) must come with the same bytes."""
        consumer = kafka.open_consumer(self.settings, "test.read")
        ends = consumer.ends([(topic, part) for part in range(topics.TOPICS[topic].partitions)])
        consumer.assign(dict.fromkeys(ends, 0))
        done, found = dict.fromkeys(ends, 0), dict[tuple[int, str, int], Record]()
        while any(done[place] < end for place, end in ends.items()):
            for record in consumer.poll(500, 0.2):
                done[record.topic, record.partition] = record.offset + 1
                header = unpack(record.header)
                if header.kind is kind:
                    known = found.setdefault((record.partition, header.source, header.seq), record)
                    assert (known.value, known.header) == (record.value, record.header)
        consumer.close()
        seqs: dict[tuple[int, str], int] = {}
        for part, source, seq in found:
            seqs[part, source] = max(seqs.get((part, source), 0), seq)
        if kind is not Kind.ACTION_OUTCOME:
            assert sum(seqs.values()) == len(found), "a gap"
        return list(found.values())

    def wait(self, predicate: Any, what: str) -> None:
        def reached() -> bool:
            self.revive()
            return bool(predicate())

        until(reached, WAIT_S, what, interval_s=0.2)


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    ensure_roles(database, {"fp_df": PASSWORD})
    place = database.rpartition("/")[2]
    dsn = stack.pg_dsn_as("fp_df", PASSWORD).rpartition("/")[0] + f"/{place}"
    port = free_port()
    given = {
        "FP_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "FP_PG_DSN": dsn,
        "FP_EVIDENCE_URL": (tmp_path / "evidence").as_uri(),
        "FP_TOPIC_PREFIX": topic_prefix,
        "FP_ACTUATOR_PORT": str(port),
        "FP_ACTUATOR_FILE": str(tmp_path / "effects.db"),
        "FP_ACTUATOR_URL": f"http://127.0.0.1:{port}",
    }
    settings = RuntimeSettings(
        instance="test-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=dsn, topic_prefix=topic_prefix,
        evidence_url=given["FP_EVIDENCE_URL"],
    )  # fmt: skip
    admin = kafka.open_admin(settings)
    admin.create_topics()
    admin.close()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FP_")}
    made = Cell(settings, database, {**environ, **given}, left={name: list(points) for name, points in KILLS.items()})
    yield made
    made.stop()


@pytest.fixture
def header(cell: Cell) -> RunHeader:
    """A pinned run with a policy switch, announced on control, with a budget posture."""
    digest = "a" * 64
    limit = SpendLimit(
        phase="P9", max_spend_microusd=10**9, expected_duration_s=60, hard_stop="4x",
        expected_artifacts=("decision_snapshot", "action_snapshot", "audit_snapshot"),
    )  # fmt: skip
    config = RunConfig(
        profile="local", scope="spine", manifest_fingerprint="b" * 64,
        windows=(Window(start_us=sample.START_US, end_us=END_US),), feature_schema_digest=CORE_V1.schema_digest,
        policies={rev: found for rev, (_, found) in policies().items()}, policy_initial="spine-v1",
        policy_switches=(PolicySwitch(policy_rev="spine-v0", effective_us=SWITCH_US),),
        authority_digest=digest, handles_digest=digest, image_manifest_digest=digest, price_table_digest=digest,
        envelopes=(limit,),
    )  # fmt: skip
    pinned = RunHeader(
        platform_run_id=RUN, scenario_run_id="a" * 32, config=config, run_config_digest=config_digest(config),
        start_offsets={name: {str(part): 0 for part in range(topic.partitions)} for name, topic in
                       topics.TOPICS.items()},
        lane_writers={str(lane): "ig-0" for lane in range(topics.LANES)}, pinned_us=now_us(),
        pin_partition=controllog.partition_of_run(RUN), pin_offset=0,
    )  # fmt: skip
    with connect(cell.owner_dsn, "test-pin") as conn:
        conn.execute(
            "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (RUN, pinned.scenario_run_id, pinned.run_config_digest, pinned.pin_partition, 0, b""),
        )
    ref = EvidenceRef(key="evidence/test", sha256=digest, size=1)
    cell.tell(pinned, RunPinned(header=pinned, header_ref=ref))
    cell.tell(pinned, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    return pinned


def auth_requests() -> list[Out]:
    """The AUTH_REQUESTs behind the snapshots: only their headers are counted."""
    tag = run_tag(RUN)
    return [
        Out(topics.TRAFFIC, 0, b"m", b"{}", pack(Header(Kind.AUTH_REQUEST, tag, "ig-0", seq, sample.START_US)))
        for seq in range(1, COUNT + 1)
    ]


def close_upstream(cell: Cell, header: RunHeader) -> None:
    """Say that the window ended and P8 passed, as wsp and rtdl would."""
    cell.tell(header, WindowEnded(window=1, lane_seqs={}, ledger_ref=EvidenceRef(key="e/l", sha256="c" * 64, size=1)))
    receipt = Receipt(phase="P8", attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="none")  # fmt: skip
    cell.tell(
        header,
        GatePassed(phase="P8", attempt=1, phase_execution_id=phase_execution_id(RUN, "P8", 1), checks=(), evidence=(),
                   receipt=receipt),
        "P8", "1",
    )  # fmt: skip


def test_killed_anywhere_every_payment_is_decided_once_and_every_action_done_once(
    cell: Cell, header: RunHeader
) -> None:
    pins = controllog.header_pins(header)
    lines = list(sample.world(sample.Feed(pins), COUNT, END_US))
    rng = random.Random(2)
    copies = [line for line in lines[:200] if line.value and rng.random() < 0.1]  # rtdl was restarted, too
    cell.write(auth_requests())
    for instance in ("actuator-0", "df-0", "actions-0"):
        cell.start(instance)
    for start in range(0, len(lines), 80):
        cell.write(lines[start : start + 80])
        cell.revive()
    cell.write(copies)
    cell.wait(lambda: cell.read(topics.RTDL, Kind.DECISION), "decisions before the switch")
    cell.wait(lambda: not cell.left["df-0"], "df is killed until nothing is left")
    cell.tell(header, PolicyActivated(policy_rev="spine-v0", effective_us=SWITCH_US, actor="test"), "spine-v0")
    close_upstream(cell, header)
    cell.wait(lambda: cell.state().state_of("P9") != "OPEN", "P9 closes")
    attempt = cell.state().attempts["P9"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    assert sorted(cell.killed) == sorted(name for name, points in KILLS.items() for _ in points)
    assert sum(event.merged_n for event in cell.state().switched) == 150  # one payment a second
    assert {event.partition for event in cell.state().switched} == set(range(6))
    _check_records(cell, header)
    _check_effects(cell)


def _check_records(cell: Cell, header: RunHeader) -> None:
    """What lies on the bus: one decision a payment, equal when evaluated again, in chains that recompute."""
    decisions = cell.read(topics.RTDL, Kind.DECISION)
    sources = [orjson.loads(record.value)["payload"]["source_event"]["event_id"] for record in decisions]
    assert sorted(sources) == sorted(f"auth-{number}" for number in range(COUNT))
    replay = Replay(RUN, plan_of(header, policies()).switches)
    for record in decisions:
        replay.take(record.value)
    assert (replay.replayed, replay.unequal) == (COUNT, 0)
    links = [orjson.loads(record.value)["payload"] for record in cell.read(topics.AUDIT, Kind.AUDIT_RECORD)]
    assert sum(link["kind"] == "DECIDED" for link in links) == COUNT
    for name in {link["chain"] for link in links}:
        assert audit.chain_break(RUN, name, [link for link in links if link["chain"] == name]) is None
    outcomes = [orjson.loads(record.value)["payload"] for record in cell.read(topics.RTDL, Kind.ACTION_OUTCOME)]
    assert sorted(outcome["action_id"] for outcome in outcomes) == sorted(replay.actions)
    assert {outcome["status"] for outcome in outcomes} == {"EXECUTED"}


def _check_effects(cell: Cell) -> None:
    """The actuator's own store: one effect per action, and al.after_call really asked twice."""
    totals = httpx.get(f"{cell.environ['FP_ACTUATOR_URL']}/v1/effects").json()
    with connect(cell.owner_dsn, "test-look") as conn:
        rows = conn.execute("SELECT (SELECT count(*) FROM df.decision), (SELECT count(*) FROM df.outcome)").fetchone()
    assert rows is not None
    assert rows[0] == COUNT
    assert totals["effects"] == rows[1]
    assert totals["repeats"] >= 1
