"""What sr keeps and reads: runs and READY in PostgreSQL, pin requests and READY records on the control topic."""

from collections.abc import Mapping

from fp_contracts import topics
from fp_contracts.canonical import sha256_hex
from fp_contracts.control import RunReady
from fp_contracts.fold import RunState
from fp_contracts.runconfig import RunHeader
from fp_runtime import controllog, gate
from fp_runtime.bus import Consumer
from fp_runtime.postgres import Connection, transaction
from fp_runtime.readback import read_back
from fp_sr.domain import RunLock
from fp_sr.gates import ReadyRecord

_ONE_OPEN_RUN = 5140


def run_lock(conn: Connection) -> RunLock | None:
    """The run that is pinned and has not ended, if there is one: it holds the lock."""
    row = conn.execute(
        "SELECT run, run_config_digest, (extract(epoch FROM at) * 1000000)::bigint FROM sr.run r"
        " WHERE NOT EXISTS (SELECT 1 FROM sr.run_end e WHERE e.run = r.run) LIMIT 1"
    ).fetchone()
    return None if row is None else RunLock(*row)


def refusal(conn: Connection, run: str) -> gate.Closure | None:
    """The journaled refusal of a run that was never pinned, None while it is not answered."""
    with conn.cursor() as cur:
        return gate.load(cur, run, "P1", 1)


def commit_header(conn: Connection, header: RunHeader) -> bool:
    """Insert the run once, while no other run is open; False when another one is."""
    with transaction(conn) as cur:
        cur.execute("SELECT pg_advisory_xact_lock(%s)", (_ONE_OPEN_RUN,))
        cur.execute(
            "INSERT INTO sr.run (run, scenario_run_id, run_config_digest, pin_partition, pin_offset, header)"
            " SELECT %s, %s, %s, %s, %s, %s WHERE NOT EXISTS (SELECT 1 FROM sr.run r WHERE NOT EXISTS"
            " (SELECT 1 FROM sr.run_end e WHERE e.run = r.run))",
            (header.platform_run_id, header.scenario_run_id, header.run_config_digest, header.pin_partition,
             header.pin_offset, header.model_dump_json().encode()),
        )  # fmt: skip
        return cur.rowcount == 1


def load_header(conn: Connection, run: str) -> RunHeader | None:
    """The committed header of a run, None before it is pinned."""
    row = conn.execute("SELECT header FROM sr.run WHERE run = %s", (run,)).fetchone()
    return None if row is None else RunHeader.model_validate_json(row[0])


def commit_ready(conn: Connection, run: str, ready_id: str) -> None:
    """Record the intent to publish READY, once."""
    conn.execute("INSERT INTO sr.ready (run, ready_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (run, ready_id))


def recorded_ready(conn: Connection, run: str) -> str | None:
    """The READY identity on record, None before it."""
    row = conn.execute("SELECT ready_id FROM sr.ready WHERE run = %s", (run,)).fetchone()
    return None if row is None else str(row[0])


def commit_end(conn: Connection, run: str, reason: str) -> None:
    """Record that a run ended: the next one may be pinned."""
    conn.execute("INSERT INTO sr.run_end (run, reason) VALUES (%s, %s) ON CONFLICT DO NOTHING", (run, reason))


def scan_starts(conn: Connection, begins: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """Where to look for pin requests: behind the last pin of each control partition, else from its beginning."""
    rows = conn.execute("SELECT pin_partition, max(pin_offset) + 1 FROM sr.run GROUP BY 1").fetchall()
    known = {(topics.CONTROL, int(part)): int(offset) for part, offset in rows}
    return {tp: max(begin, known.get(tp, begin)) for tp, begin in begins.items()}


def start_offsets(consumer: Consumer, profile: str) -> dict[str, dict[str, int]]:
    """The end of every topic of the profile now: where the run starts, and how many partitions it has."""
    tps = [(topic.name, part) for topic in topics.pinned(profile).values() for part in range(topic.partitions)]
    starts: dict[str, dict[str, int]] = {}
    for (name, part), offset in consumer.ends(tps).items():
        starts.setdefault(name, {})[str(part)] = offset
    return starts


def ready_records(consumer: Consumer, state: RunState) -> tuple[ReadyRecord, ...]:
    """Every READY of the run between its pin and the end of the log as of now, with its offset."""
    assert state.header is not None
    place = (topics.CONTROL, state.header.pin_partition)
    own = state.platform_run_id.encode()
    records = [record for record in read_back(consumer, {place: state.header.pin_offset}) if record.key == own]
    return tuple(
        ReadyRecord(payload.ready_id, envelope.event_id, record.partition, record.offset, sha256_hex(record.value))
        for record, envelope, payload in controllog.read(records)
        if isinstance(payload, RunReady)
    )
