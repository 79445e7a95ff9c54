"""ofs_trigger as a real process on real servers: agents, journal, local jobs; and the registry's compare-and-set."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from fp_contracts import topics
from fp_contracts.bundle import BundleRef
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import BudgetPosture, EvidenceRef, GateBlocked
from fp_contracts.ids import phase_execution_id
from fp_contracts.learning import read_learning
from fp_contracts.phases import ORDER, PHASES
from fp_contracts.records import Pins
from fp_contracts.registry import BundleApproved, BundlePromotedActive, BundlePublished, Scope
from fp_contracts.runconfig import RunHeader, Window
from fp_features import CORE_V1
from fp_ofs_trigger.registry_desk import Receipt as Written
from fp_ofs_trigger.registry_desk import RegistryDesk
from fp_ofs_trigger.store import PgRegistry
from fp_operator.stack import StackAddresses
from fp_runtime import kafka
from fp_runtime.deadline import until
from fp_runtime.evidence import open_store
from fp_runtime.postgres import connect

from .cell import RUN, T0_US, Cell, config_of, new_cell, now_us

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
DAY_US = 86_400_000_000
WAIT_S = 90.0
PROCESS = "ofs_trigger-0"


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    made = new_cell(stack, database, topic_prefix, tmp_path, ("ofs_trigger",))
    yield made
    made.stop()


def learning_types(cell: Cell) -> list[str]:
    return [read_learning(record.value)[1].type for record in cell.read(topics.OFS_REQUESTS, topics.OFS_EVENTS)]


def pinned(cell: Cell, scope: str) -> RunHeader:
    """A run that is pinned and has passed everything up to P11, with nothing in its archive."""
    windows = (Window(start_us=T0_US, end_us=T0_US + 20 * DAY_US),)
    header = cell.pin(config_of(scope=scope, windows=windows, feature_schema_digest=CORE_V1.schema_digest))
    cell.tell(header, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    cell.tell_window_ended(header)
    counts = {topic: {"archived": 0} for topic in topics.DATA}
    key = PHASES["P11"].evidence_key(RUN, phase_execution_id(RUN, "P11", 1), "reconciliation")
    reconciliation = open_store(cell.url("evidence")).put(key, canonical_bytes({"archive": counts}))
    for phase in ORDER[: ORDER.index("P12")]:
        cell.tell_passed(header, phase, *([reconciliation] if phase == "P11" else []))
    return header


def test_an_empty_archive_blocks_p12_by_the_word_of_a_real_job(cell: Cell) -> None:
    header = pinned(cell, "full")
    cell.start(PROCESS)
    until(lambda: cell.state(header).state_of("P12") != "OPEN", WAIT_S, "P12 closes", interval_s=0.5)
    event = cell.state(header).attempts["P12"].event
    assert isinstance(event, GateBlocked)
    assert {blocker.code for blocker in event.blockers} == {"DFULL-RUN-B12.1"}
    assert set(learning_types(cell)) == {"ofs_requested", "ofs_ended"}
    with cell.open() as conn:
        assert conn.execute("SELECT count(*) FROM learning.job_end").fetchone() == (1,)


def test_a_process_killed_while_it_waits_for_its_job_goes_on(cell: Cell) -> None:
    header = pinned(cell, "full")
    cell.start(PROCESS)
    with cell.open() as conn:
        until(
            lambda: conn.execute("SELECT 1 FROM learning.job").fetchone() is not None, WAIT_S, "the job is asked for",
            interval_s=0.05,
        )  # fmt: skip
        cell.running[PROCESS].kill()
        cell.running[PROCESS].wait(15)
        cell.start(PROCESS)
        until(lambda: cell.state(header).state_of("P12") == "BLOCKED", WAIT_S, "P12 closes", interval_s=0.5)
        assert conn.execute("SELECT count(*) FROM learning.job").fetchone() == (1,)


def test_a_spine_run_asks_for_no_job(cell: Cell) -> None:
    header = pinned(cell, "spine")
    cell.start(PROCESS)

    def beating() -> bool:
        return "ofs_trigger-0" in cell.state(header).heartbeats

    until(beating, WAIT_S, "a heartbeat", interval_s=0.5)
    cell.stop()
    assert cell.state(header).state_of("P12") == "OPEN"
    assert learning_types(cell) == []


# --- the registry's tables ---

SCOPE = Scope(environment="local", mode="live", bundle_slot="payment_fraud")
REF = EvidenceRef(key="bundles/x/bundle.json", sha256="0" * 64, size=1)
BUNDLES = [BundleRef(bundle_id=f"{n:032x}", model_digest=f"{n:064x}", manifest=REF) for n in range(8)]


@pytest.fixture
def desks(cell: Cell) -> Iterator[Callable[[], RegistryDesk]]:
    """Makers of desks, each with a connection and a producer of its own, as processes have."""
    opened: list[psycopg.Connection[tuple[object, ...]]] = []
    settings = cell.settings()

    def make() -> RegistryDesk:
        conn = connect(cell.dsn("ofs_trigger"), "test-registry")
        opened.append(conn)
        return RegistryDesk(
            PgRegistry(conn), kafka.open_producer(settings), lambda: kafka.open_consumer(settings, "test.registry"),
            PROCESS, now_us,
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
    with connect(cell.dsn("ofs_trigger"), "test-truth") as conn:
        for statement in (f"DELETE FROM learning.{table}", f"TRUNCATE learning.{table}"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityError)):
                conn.execute(statement.encode())
    with cell.open() as conn, pytest.raises(psycopg.errors.IntegrityError):
        conn.execute(f"DELETE FROM learning.{table}".encode())
