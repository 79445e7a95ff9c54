"""rtdl and its archive as real processes on real servers: killed at every failpoint, P8 closes on equal snapshots."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.control import (
    BudgetPosture,
    ControlPayload,
    DrillRequested,
    EvidenceRef,
    GatePassed,
    Receipt,
    RunPinned,
    WindowEnded,
)
from fp_contracts.fold import RunState
from fp_contracts.header import Kind, kind_of
from fp_contracts.ids import h32, phase_execution_id
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_features import CORE_V1
from fp_operator.stack import StackAddresses
from fp_rtdl import sample
from fp_rtdl.archive_store import load_objects
from fp_runtime import controllog, kafka
from fp_runtime.bus import FetchProfile, Out, Record
from fp_runtime.deadline import until
from fp_runtime.memory import MemoryBus
from fp_runtime.postgres import connect, ensure_roles
from fp_runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
PASSWORD = "wire-rtdl"
RUN = "platform_20260101T000000Z"
END_US = sample.START_US + 120_000_000
POINTS = ("rtdl.before_publish", "rtdl.after_publish", "rtdl.after_checkpoint")
PUTS = ("archive.before_put", "archive.after_put", "archive.after_row")
WAIT_S = 60.0


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class Cell:
    """One isolated environment: own topics, database and stores; starts and ends its own processes."""

    settings: RuntimeSettings
    owner_dsn: str
    environ: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)

    def start(self, instance: str, failpoints: str = "") -> None:
        mode = ["archive"] if instance.startswith("archive") else []
        environ = {**self.environ, "FP_INSTANCE": instance, "FP_FAILPOINTS": failpoints}
        self.running[instance] = subprocess.Popen([sys.executable, "-m", "fp_rtdl", *mode], env=environ)

    def revive(self, failpoints: dict[str, list[str]]) -> None:
        """Start what was killed again, with the next failpoint of its instance."""
        for instance, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            assert code == -signal.SIGKILL, f"{instance} ended with {code}"
            self.killed.append(instance)
            left = failpoints.get(instance, [])
            self.start(instance, left.pop(0) if left else "")

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tell(self, header: RunHeader, payload: ControlPayload, *salt: str) -> int:
        producer = kafka.open_producer(self.settings)
        pins = controllog.header_pins(header)
        (offset,) = controllog.publish(producer, pins, [(payload, salt)], "test", now_us())
        producer.close()
        return offset

    def state(self, header: RunHeader) -> RunState:
        consumer = kafka.open_consumer(self.settings, "test.control", fetch=FetchProfile.CONTROL)
        state = controllog.read_run(consumer, RUN, header.pin_offset)
        consumer.close()
        return state

    def write(self, outs: Sequence[Out]) -> None:
        producer = kafka.open_producer(self.settings)
        assert all(delivery.error is None for delivery in producer.publish(outs))
        producer.close()

    def snapshots(self) -> list[Record]:
        consumer = kafka.open_consumer(self.settings, "test.rtdl")
        ends = consumer.ends([(topics.RTDL, part) for part in range(6)])
        consumer.assign(dict.fromkeys(ends, 0))
        found: list[Record] = []
        read = dict.fromkeys(ends, 0)
        while any(read[place] < end for place, end in ends.items()):
            for record in consumer.poll(500, 0.2):
                read[record.topic, record.partition] = record.offset + 1
                found += [record] if kind_of(record.header) == Kind.FEATURE_SNAPSHOT else []
        consumer.close()
        return found


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    ensure_roles(database, {"fp_rtdl": PASSWORD})
    place = database.rpartition("/")[2]
    dsn = stack.pg_dsn_as("fp_rtdl", PASSWORD).rpartition("/")[0] + f"/{place}"
    given = {
        "FP_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "FP_PG_DSN": dsn,
        "FP_REDIS_URL": stack.redis_url,
        "FP_EVIDENCE_URL": (tmp_path / "evidence").as_uri(),
        "FP_ARCHIVE_URL": (tmp_path / "archive").as_uri(),
        "FP_TOPIC_PREFIX": topic_prefix,
        "FP_ARCHIVE_FLUSH_S": "1",
    }
    settings = RuntimeSettings(
        instance="test-0", kafka_bootstrap=stack.kafka_bootstrap, pg_dsn=dsn, topic_prefix=topic_prefix,
        evidence_url=given["FP_EVIDENCE_URL"],
    )  # fmt: skip
    admin = kafka.open_admin(settings)
    admin.create_topics()
    admin.close()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FP_")}
    made = Cell(settings, database, {**environ, **given})
    yield made
    made.stop()


@pytest.fixture
def header(cell: Cell) -> RunHeader:
    """A pinned run: recorded by sr, announced on control, with a budget posture."""
    digest = "a" * 64
    limit = SpendLimit(phase="P8", max_spend_microusd=10**9, expected_duration_s=60, hard_stop="4x",
                       expected_artifacts=("core_snapshot", "archive_closure"))  # fmt: skip
    config = RunConfig(
        profile="local", scope="spine", manifest_fingerprint="b" * 64,
        windows=(Window(start_us=sample.START_US, end_us=END_US),), feature_schema_digest=CORE_V1.schema_digest,
        policies={"p1": digest}, policy_initial="p1", authority_digest=digest, handles_digest=digest,
        image_manifest_digest=digest, price_table_digest=digest, envelopes=(limit,),
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
    assert cell.tell(pinned, RunPinned(header=pinned, header_ref=ref)) == 0
    cell.tell(pinned, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    return pinned


def stream(run: RunHeader) -> list[Out]:
    """A world with late and missing context, labels, and frontiers that flow along."""
    rng = random.Random(3)
    feed = sample.Feed(RUN, controllog.header_pins(run))
    times = sorted(sample.START_US + 1_000_000 + rng.randrange(100_000_000) for _ in range(300))
    payments = [sample.Payment(n, at, f"m-{rng.randrange(20)}", f"acc-{rng.randrange(60)}", 100 + n)
                for n, at in enumerate(times)]  # fmt: skip
    timed = sorted(
        (at + (3_000_000 if kind is Kind.ARRIVAL_ENTITIES and payment.number % 11 == 0 else 0), kind.value, payment,
         payload)
        for payment in payments for at, kind, payload in feed.parts(payment)
        if not (kind is Kind.FLOW_ANCHOR and payment.number % 13 == 0)
    )  # fmt: skip
    outs: list[Out] = []
    for number, (at, kind, payment, payload) in enumerate(timed):
        event_id = sample.event_id_of(payment, Kind(kind))
        outs.append(feed.event(Kind(kind), at, payment.merchant_id, event_id, payload))
        if kind == Kind.AUTH_REQUEST and payment.number % 5 == 0:
            outs.append(feed.label(payment, at, 3_000_000))
        if number % 25 == 24:
            outs += feed.marks(at, topics.INGRESS) + feed.marks(at + 3_000_000, (topics.LABELS,))
    return outs + feed.marks(END_US)


def expected_snapshots(run: RunHeader, lines: Sequence[Out]) -> set[tuple[int, bytes, bytes]]:
    """(partition, header, body) of what one undisturbed member makes of the same logs, in memory."""
    from fp_rtdl.lane import Lane
    from fp_rtdl.plan import plan_of

    bus = MemoryBus()
    bus.create(topics.TOPICS)
    bus.producer().publish(lines)
    found = set()
    for part in range(topics.LANES):
        lane = Lane(plan_of(run), part)
        for topic in lane.starts():
            place = (topic, lane.place(topic))
            for record in bus.read(place, 0, bus.span(place)[1]):
                lane.take(record)
        found |= {(out.partition, out.header, out.value) for out in lane.advance()}
    return found


def distinct(records: Sequence[Record]) -> set[tuple[int, bytes, bytes]]:
    return {(record.partition, record.header, record.value) for record in records}


def close_ingress(cell: Cell, header: RunHeader) -> None:
    """Say that the window ended and P7 passed, as wsp and ig would."""
    ref = EvidenceRef(key="evidence/ledger", sha256="c" * 64, size=1)
    cell.tell(header, WindowEnded(window=1, lane_seqs={}, ledger_ref=ref), "1")
    receipt = Receipt(phase="P7", attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                      artifacts=(), risk_retired="none")  # fmt: skip
    cell.tell(
        header,
        GatePassed(phase="P7", attempt=1, phase_execution_id=phase_execution_id(RUN, "P7", 1), checks=(), evidence=(),
                   receipt=receipt),
        "P7", "1",
    )  # fmt: skip


def wait(cell: Cell, predicate: Callable[[], bool], what: str, failpoints: dict[str, list[str]] | None = None) -> None:
    def reached() -> bool:
        cell.revive(failpoints or {})
        return predicate()

    until(reached, WAIT_S, what, interval_s=0.2)


def test_killed_at_every_failpoint_all_snapshots_are_there_once_and_p8_closes(cell: Cell, header: RunHeader) -> None:
    lines = stream(header)
    failpoints = {f"rtdl-{n}": [f"{point}:kill:1" for point in POINTS[1:]] for n in (0, 1)}
    failpoints["archive-0"] = [f"{point}:kill:1" for point in PUTS[1:]]
    cell.start("rtdl-0", f"{POINTS[0]}:kill:1")
    cell.start("rtdl-1", f"{POINTS[0]}:kill:1")
    cell.start("archive-0", f"{PUTS[0]}:kill:1")
    for number, at in enumerate(range(0, len(lines), 150)):
        cell.write(lines[at : at + 150])
        if number < 3:
            wait(cell, lambda: len(cell.killed) >= 3 * (number + 1), f"round {number + 1} of kills", failpoints)  # noqa: B023 - called in this turn only
    close_ingress(cell, header)
    wait(cell, lambda: cell.state(header).state_of("P8") != "OPEN", "P8 closes")
    attempt = cell.state(header).attempts["P8"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    records = cell.snapshots()
    assert distinct(records) == expected_snapshots(header, lines)
    assert len(distinct(records)) == 300
    assert len({(r.partition, r.header) for r in records}) == 300  # once by (source, seq)
    assert len(records) > 300  # the crashes did repeat some
    assert sorted(cell.killed) == sorted(["rtdl-0"] * 3 + ["rtdl-1"] * 3 + ["archive-0"] * 3)
    with connect(cell.owner_dsn, "test-look") as conn:
        archived = load_objects(conn, RUN)
    assert sum(done.records for done in archived) >= len(lines) + len(records)


def test_a_drill_kills_the_named_member_and_reports_its_recovery(cell: Cell, header: RunHeader) -> None:
    lines = stream(header)
    cell.start("rtdl-0")
    cell.start("rtdl-1")
    cell.start("archive-0")
    cell.write(lines[:300])
    wait(cell, lambda: len(cell.snapshots()) > 10, "snapshots before the drill")
    drill_id = h32("drill", RUN)
    request = DrillRequested(drill_id=drill_id, instance="rtdl-1", failpoint=POINTS[1], actor="test")
    cell.tell(header, request, drill_id)
    cell.write(lines[300:])
    close_ingress(cell, header)
    wait(cell, lambda: drill_id in cell.state(header).drill_reports, "the drill is reported")
    report = cell.state(header).drill_reports[drill_id]
    assert cell.killed == ["rtdl-1"]
    assert report.instance == "rtdl-1"
    assert report.killed_us <= report.restarted_us <= report.recovered_us
    assert report.lag_at_restart > 0
    wait(cell, lambda: cell.state(header).passed("P8"), "P8 closes after the drill")
    assert distinct(cell.snapshots()) == expected_snapshots(header, lines)
    numbers = {"merged_n", "degraded", "lag_records", "watermark_us"}
    wait(cell, lambda: numbers <= cell.state(header).heartbeats["rtdl-0"].metrics.keys(), "a heartbeat with numbers")
    documents = {ref.key.rpartition("/")[2]: ref for ref in cell.state(header).attempts["P8"].event.evidence}  # type: ignore[union-attr]
    assert documents.keys() == {"core_snapshot.json", "archive_closure.json"}
    root = Path(cell.environ["FP_EVIDENCE_URL"].removeprefix("file://"))
    core = orjson.loads((root / documents["core_snapshot.json"].key).read_bytes())
    assert core["stream"]["auth_requests"] == core["stream"]["snapshots"] == 300
    assert core["stream"]["join_statuses"].keys() == {"READY", "DEGRADED"}
