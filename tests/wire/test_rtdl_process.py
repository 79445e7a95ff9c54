"""rtdl and its archive as real processes on real servers: killed at every failpoint, P8 closes on equal snapshots."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.control import BudgetPosture, DrillRequested
from fp_contracts.header import Kind, kind_of
from fp_contracts.ids import h32
from fp_contracts.runconfig import RunHeader, Window
from fp_features import CORE_V1
from fp_operator.stack import StackAddresses
from fp_rtdl import sample
from fp_rtdl.archive_store import load_objects
from fp_runtime import controllog
from fp_runtime.bus import Out, Record
from fp_runtime.memory import MemoryBus

from .cell import RUN, Cell, config_of, new_cell, now_us

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
END_US = sample.START_US + 120_000_000
PINNED = topics.pinned("local")
POINTS = ("rtdl.before_publish", "rtdl.after_publish", "rtdl.after_checkpoint")
PUTS = ("archive.before_put", "archive.after_put", "archive.after_row")


@pytest.fixture
def cell(stack: StackAddresses, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Cell]:
    made = new_cell(stack, database, topic_prefix, tmp_path, ("rtdl",), FP_ARCHIVE_FLUSH_S="1")
    yield made
    made.stop()


@pytest.fixture
def header(cell: Cell) -> RunHeader:
    """A pinned run: recorded by sr, announced on control, with a budget posture."""
    windows = (Window(start_us=sample.START_US, end_us=END_US),)
    pinned = cell.pin(config_of(windows=windows, feature_schema_digest=CORE_V1.schema_digest))
    cell.tell(pinned, BudgetPosture(month="2026-01", spend_microusd=0, alert=0, as_of_us=now_us()))
    return pinned


def stream(run: RunHeader) -> list[Out]:
    """A world with late and missing context, labels, and frontiers that flow along."""
    rng = random.Random(3)
    feed = sample.Feed(RUN, controllog.header_pins(run), PINNED)
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

    bus = MemoryBus(PINNED)
    bus.create(PINNED)
    bus.producer().publish(lines)
    found = set()
    for part in range(run.lanes):
        lane = Lane(plan_of(run), part)
        for topic in lane.starts():
            place = (topic, lane.place(topic))
            for record in bus.read(place, 0, bus.span(place)[1]):
                lane.take(record)
        found |= {(out.partition, out.header, out.value) for out in lane.advance()}
    return found


def distinct(records: Sequence[Record]) -> set[tuple[int, bytes, bytes]]:
    return {(record.partition, record.header, record.value) for record in records}


def snapshots(cell: Cell) -> list[Record]:
    return [record for record in cell.read(topics.RTDL) if kind_of(record.header) == Kind.FEATURE_SNAPSHOT]


def armed_at(cell: Cell, drill_id: str) -> int:
    """When the drill was armed (µs); 0 while it is not."""
    with cell.open() as conn:
        row = conn.execute("SELECT armed_us FROM rtdl.drill WHERE drill_id = %s", (drill_id,)).fetchone()
    return 0 if row is None else int(row[0])


def close_ingress(cell: Cell, header: RunHeader) -> None:
    """Say that the window ended and P7 passed, as wsp and ig would."""
    cell.tell_window_ended(header)
    cell.tell_passed(header, "P7")


def test_killed_at_every_failpoint_all_snapshots_are_there_once_and_p8_closes(cell: Cell, header: RunHeader) -> None:
    lines = stream(header)
    cell.left = {f"rtdl-{n}": [f"{point}:kill:1" for point in POINTS] for n in (0, 1)}
    cell.left["archive-0"] = [f"{point}:kill:1" for point in PUTS]
    for instance in ("rtdl-0", "rtdl-1", "archive-0"):
        cell.start(instance)
    for number, at in enumerate(range(0, len(lines), 150)):
        cell.write(lines[at : at + 150])
        if number < 3:
            cell.wait(lambda: len(cell.killed) >= 3 * (number + 1), f"round {number + 1} of kills")  # noqa: B023 - called in this turn only
    close_ingress(cell, header)
    cell.wait(lambda: cell.state(header).state_of("P8") != "OPEN", "P8 closes")
    attempt = cell.state(header).attempts["P8"]
    assert attempt.event is not None
    assert [check for check in attempt.event.checks if not check.ok] == []
    assert attempt.state == "PASS"
    records = snapshots(cell)
    assert distinct(records) == expected_snapshots(header, lines)
    assert len(distinct(records)) == 300
    assert len({(r.partition, r.header) for r in records}) == 300  # once by (source, seq)
    assert len(records) > 300  # the crashes did repeat some
    assert sorted(cell.killed) == sorted(["rtdl-0"] * 3 + ["rtdl-1"] * 3 + ["archive-0"] * 3)
    with cell.open() as conn:
        archived = load_objects(conn, RUN)
    assert sum(done.records for done in archived) >= len(lines) + len(records)


def test_a_drill_kills_the_named_member_and_reports_its_recovery(cell: Cell, header: RunHeader) -> None:
    lines = stream(header)
    cell.start("rtdl-0")
    cell.start("rtdl-1")
    cell.start("archive-0")
    cell.write(lines[:300])
    cell.wait(lambda: len(snapshots(cell)) > 10, "snapshots before the drill")
    drill_id = h32("drill", RUN)
    request = DrillRequested(drill_id=drill_id, instance="rtdl-1", failpoint=POINTS[1], actor="test")
    cell.tell(header, request, drill_id)
    cell.write(lines[300:])
    close_ingress(cell, header)
    cell.wait(lambda: drill_id in cell.state(header).drill_reports, "the drill is reported")
    report = cell.state(header).drill_reports[drill_id]
    assert cell.killed == ["rtdl-1"]
    assert report.instance == "rtdl-1"
    assert report.killed_us <= report.restarted_us <= report.recovered_us
    assert report.lag_at_restart > 0
    cell.wait(lambda: cell.state(header).passed("P8"), "P8 closes after the drill")
    assert distinct(snapshots(cell)) == expected_snapshots(header, lines)
    numbers = {"merged_n", "degraded", "lag_records", "watermark_us"}
    cell.wait(lambda: numbers <= cell.state(header).heartbeats["rtdl-0"].metrics.keys(), "a heartbeat with numbers")
    documents = {ref.key.rpartition("/")[2]: ref for ref in cell.state(header).attempts["P8"].event.evidence}  # type: ignore[union-attr]
    assert documents.keys() == {"core_snapshot.json", "archive_closure.json"}
    root = cell.folder / "evidence"
    core = orjson.loads((root / documents["core_snapshot.json"].key).read_bytes())
    assert core["stream"]["auth_requests"] == core["stream"]["snapshots"] == 300
    assert core["stream"]["join_statuses"].keys() == {"READY", "DEGRADED"}


def test_an_orderly_end_is_no_kill_and_the_next_process_arms_the_drill_again(cell: Cell, header: RunHeader) -> None:
    process, drill_id = cell.start("rtdl-1"), h32("drill", RUN)
    never_hit = PUTS[0]  # it is the archive's
    request = DrillRequested(drill_id=drill_id, instance="rtdl-1", failpoint=never_hit, actor="test")
    cell.tell(header, request, drill_id)
    cell.wait(lambda: armed_at(cell, drill_id), "the drill is armed")
    before = armed_at(cell, drill_id)
    process.terminate()
    assert process.wait(30) == 0
    assert armed_at(cell, drill_id) == 0
    cell.start("rtdl-1")
    cell.wait(lambda: armed_at(cell, drill_id) > before, "the next process arms it")
    assert cell.killed == []
    assert cell.state(header).drill_reports == {}
