"""ofs_trigger as a real process on real servers: agents, journal, local jobs; and the registry's compare-and-set."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import (
    BudgetPosture,
    ControlPayload,
    EvidenceRef,
    GateBlocked,
    GatePassed,
    Receipt,
    RunPinned,
    WindowEnded,
)
from fp_contracts.fold import RunState
from fp_contracts.ids import phase_execution_id
from fp_contracts.learning import read_learning
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.records import Pins
from fp_contracts.registry import BundleApproved, BundlePromotedActive, BundlePublished, Scope
from fp_contracts.runconfig import RunConfig, RunHeader, SpendLimit, Window, config_digest
from fp_features import CORE_V1
from fp_ofs_trigger.registry_desk import Receipt as Written
from fp_ofs_trigger.registry_desk import RegistryDesk
from fp_ofs_trigger.store import PgRegistry
from fp_operator.stack import StackAddresses
from fp_runtime import controllog, kafka
from fp_runtime.bus import FetchProfile
from fp_runtime.deadline import until
from fp_runtime.evidence import open_store
from fp_runtime.kafka import open_consumer
from fp_runtime.postgres import connect, ensure_roles
from fp_runtime.readback import read_back
from fp_runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
PASSWORD = "wire-learning"
RUN = "platform_20260101T000000Z"
START_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
WAIT_S = 90.0


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class Cell:
    """One isolated environment: own topics, database and stores; starts and ends its own process."""

    settings: RuntimeSettings
    owner_dsn: str
    environ: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "fp_ofs_trigger"], env=self.environ)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(15)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def tell(self, header: RunHeader, payload: ControlPayload, *salt: str) -> None:
        producer = kafka.open_producer(self.settings)
        controllog.publish(producer, controllog.header_pins(header), [(payload, salt)], "test", now_us())
        producer.close()

    def state(self, header: RunHeader) -> RunState:
        consumer = open_consumer(self.settings, "test.control", fetch=FetchProfile.CONTROL)
        state = controllog.read_run(consumer, header.platform_run_id, header.pin_offset)
        consumer.close()
        return state

    def learning_types(self) -> list[str]:
        consumer = open_consumer(self.settings, "test.learning")
        starts = {(topic, part): 0 for topic in (topics.OFS_REQUESTS, topics.OFS_EVENTS) for part in range(3)}
        found: list[str] = [read_learning(record.value)[1].type for record in read_back(consumer, starts)]
        consumer.close()
        return found


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    ensure_roles(database, {"fp_ofs_trigger": PASSWORD})
    dsn = make_conninfo(database, user="fp_ofs_trigger", password=PASSWORD)
    given = {
        "FP_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "FP_PG_DSN": dsn,
        "FP_EVIDENCE_URL": (tmp_path / "evidence").as_uri(),
        "FP_ARCHIVE_URL": (tmp_path / "archive").as_uri(),
        "FP_TOPIC_PREFIX": topic_prefix,
        "FP_INSTANCE": "ofs_trigger-0",
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


def pinned(cell: Cell, scope: str) -> RunHeader:
    """A run that is pinned and has passed everything up to P11, with nothing in its archive."""
    digest = "a" * 64
    limits = tuple(
        SpendLimit(phase=key, max_spend_microusd=10**9, expected_duration_s=60, hard_stop="4x", expected_artifacts=())
        for key in ORDER
    )
    config = RunConfig.model_validate(
        {
            "profile": "local", "scope": scope, "manifest_fingerprint": "b" * 64,
            "windows": (Window(start_us=START_US, end_us=START_US + 20 * DAY_US),),
            "feature_schema_digest": CORE_V1.schema_digest, "policies": {"p1": digest}, "policy_initial": "p1",
            "authority_digest": digest, "handles_digest": digest, "image_manifest_digest": digest,
            "price_table_digest": digest, "envelopes": limits,
        }
    )  # fmt: skip
    header = RunHeader(
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
            (RUN, header.scenario_run_id, header.run_config_digest, header.pin_partition, 0, b""),
        )
    ref = EvidenceRef(key="evidence/test", sha256=digest, size=1)
    cell.tell(header, RunPinned(header=header, header_ref=ref))
    cell.tell(header, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    cell.tell(header, WindowEnded(window=1, lane_seqs={}, ledger_ref=ref), "1")
    store = open_store(cell.environ["FP_EVIDENCE_URL"])
    counts = {topic: {"archived": 0} for topic in topics.DATA}
    key = PHASES["P11"].evidence_key(RUN, phase_execution_id(RUN, "P11", 1), "reconciliation")
    reconciliation = store.put(key, canonical_bytes({"archive": counts}))
    for phase in ORDER[: ORDER.index("P12")]:
        receipt = Receipt(phase=phase, attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                          artifacts=(), risk_retired="none")  # fmt: skip
        evidence = (reconciliation,) if phase == "P11" else ()
        passed = GatePassed(
            phase=phase, attempt=1, phase_execution_id=phase_execution_id(RUN, phase, 1), checks=(), evidence=evidence,
            receipt=receipt,
        )  # fmt: skip
        cell.tell(header, passed, phase, "1")
    return header


def test_an_empty_archive_blocks_p12_by_the_word_of_a_real_job(cell: Cell) -> None:
    header = pinned(cell, "full")
    cell.start()
    until(lambda: cell.state(header).state_of("P12") != "OPEN", WAIT_S, "P12 closes", interval_s=0.5)
    event = cell.state(header).attempts["P12"].event
    assert isinstance(event, GateBlocked)
    assert {blocker.code for blocker in event.blockers} == {"DFULL-RUN-B12.1"}
    assert set(cell.learning_types()) == {"ofs_requested", "ofs_ended"}
    with connect(cell.owner_dsn, "test-look") as conn:
        assert conn.execute("SELECT count(*) FROM learning.job_end").fetchone() == (1,)


def test_a_process_killed_while_it_waits_for_its_job_goes_on(cell: Cell) -> None:
    header = pinned(cell, "full")
    cell.start()
    with connect(cell.owner_dsn, "test-look") as conn:
        until(
            lambda: conn.execute("SELECT 1 FROM learning.job").fetchone() is not None, WAIT_S, "the job is asked for",
            interval_s=0.05,
        )  # fmt: skip
        cell.kill()
        cell.start()
        until(lambda: cell.state(header).state_of("P12") == "BLOCKED", WAIT_S, "P12 closes", interval_s=0.5)
        assert conn.execute("SELECT count(*) FROM learning.job").fetchone() == (1,)


def test_a_spine_run_asks_for_no_job(cell: Cell) -> None:
    header = pinned(cell, "spine")
    cell.start()

    def beating() -> bool:
        return "ofs_trigger-0" in cell.state(header).heartbeats

    until(beating, WAIT_S, "a heartbeat", interval_s=0.5)
    cell.stop()
    assert cell.state(header).state_of("P12") == "OPEN"
    assert cell.learning_types() == []


# --- the registry's tables ---

SCOPE = Scope(environment="local", mode="live", bundle_slot="payment_fraud")
REF = EvidenceRef(key="bundles/x/bundle.json", sha256="0" * 64, size=1)
BUNDLES = [BundleRef(bundle_id=f"{n:032x}", model_digest=f"{n:064x}", manifest=REF) for n in range(8)]


@pytest.fixture
def desks(cell: Cell) -> Iterator[Callable[[], RegistryDesk]]:
    """Makers of desks, each with a connection and a producer of its own, as processes have."""
    opened: list[psycopg.Connection[tuple[object, ...]]] = []

    def make() -> RegistryDesk:
        conn = connect(cell.settings.pg_dsn, "test-registry")
        opened.append(conn)
        return RegistryDesk(
            PgRegistry(conn), kafka.open_producer(cell.settings), lambda: open_consumer(cell.settings, "test.registry"),
            "ofs_trigger-0", now_us,
        )  # fmt: skip

    yield make
    for conn in opened:
        conn.close()


PINS = Pins(RUN, "a" * 32, "b" * 64, "c" * 64)


def test_of_promotions_at_once_exactly_one_counts_and_is_read_back(desks: Callable[[], RegistryDesk]) -> None:
    first = desks()
    for bundle in BUNDLES:
        first.write(PINS, BundlePublished(
            scope=SCOPE, bundle=bundle, feature_set="core.v1", feature_schema_digest="0" * 64, policy_rev="p1",
            capabilities=(), dataset_fingerprint="0" * 64, eval_report=REF, requester="ana", at_us=1,
        ))  # fmt: skip
        first.write(PINS, BundleApproved(scope=SCOPE, bundle=bundle, requester="ana", actor="ben", at_us=2))
    gate, found = threading.Barrier(len(BUNDLES)), []

    def promote(desk: RegistryDesk, bundle: BundleRef) -> None:
        event = BundlePromotedActive(
            scope=SCOPE, bundle=bundle, previous=None, revision=1, effective_us=10, actor="ben", at_us=3
        )
        gate.wait(30)
        found.append(desk.write(PINS, event))

    threads = [threading.Thread(target=promote, args=(desks(), bundle)) for bundle in BUNDLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [written for written in found if isinstance(written, Written)]
    assert len(found) == len(BUNDLES)
    assert len(won) == 1
    assert won[0].equal
    registry = desks().registry_on_topic("payment_fraud")
    assert registry.passed_over == ()
    assert registry.scope(SCOPE).active == won[0].event.bundle
    assert registry == first.registry("payment_fraud")


@pytest.mark.parametrize("table", ["job", "job_end", "registry_event", "registry_fact", "mark"])
def test_the_corridors_truth_takes_no_change(cell: Cell, table: str) -> None:
    with connect(cell.settings.pg_dsn, "test-truth") as conn:
        for statement in (f"DELETE FROM learning.{table}", f"TRUNCATE learning.{table}"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityError)):
                conn.execute(statement.encode())
    with connect(cell.owner_dsn, "test-truth") as conn, pytest.raises(psycopg.errors.IntegrityError):
        conn.execute(f"DELETE FROM learning.{table}".encode())
