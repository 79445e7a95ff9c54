"""Gathering what P4 and P7 judge: live probes of the own endpoint, and topics and tables read back."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import httpx
import structlog

from fp_contracts.canonical import trusted_bytes
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.header import Header, Kind, pack
from fp_contracts.ids import run_tag
from fp_contracts.ingress import EVENT_CLASSES
from fp_contracts.runconfig import RunHeader
from fp_contracts.topics import INGRESS, Topic
from fp_contracts.waivers import Waiver
from fp_ig import journal
from fp_ig.audit import IngestFacts, LaneCount, Offsets, PartitionAudit
from fp_ig.claims import KIND_TOPIC
from fp_ig.gates import Canary, PreflightFacts, Probe, evaluate_p4, evaluate_p7
from fp_ig.records import Stamp
from fp_runtime.aside import Aside
from fp_runtime.bus import Admin, Consumer, Out, Producer, TopicPartition, TopicState
from fp_runtime.errors import Unavailable
from fp_runtime.postgres import Connection
from fp_runtime.readback import read_back
from fp_runtime.tokens import Claims, issue

WINDOW = 1
_HOUR_US = 3_600_000_000
_OTHER_RUN = "platform_19700101T000000Z"

log = structlog.get_logger()


class Bus(Protocol):
    """Fresh clients of the bus; each is closed by the one who asked."""

    def consumer(self) -> Consumer: ...

    def producer(self) -> Producer: ...

    def admin(self) -> Admin: ...


# --- P4 ---


class Preflight:
    """Evaluates P4: probes the gateway at its own public address and the bus behind it."""

    def __init__(
        self, bus: Bus, url: str, keys: Mapping[str, bytes], writer: str, now_us: Callable[[], int],
        pinned: Mapping[str, Topic],
    ) -> None:  # fmt: skip
        """`pinned`: the topics as they must be in this environment."""
        self._bus = bus
        self._pinned = pinned
        self._url = url
        self._keys = keys
        self._writer = writer
        self._now_us = now_us

    def __call__(self, state: RunState) -> Evaluation:
        """The evaluation as of now; a bus that cannot be asked has no topics."""
        topics: dict[str, TopicState] = {}
        canaries: list[Canary] = []
        try:
            with closing(self._bus.admin()) as admin:
                topics = admin.describe()
            canaries = self._canaries(state.platform_run_id, [topic for topic in INGRESS if topic in topics])
        except Unavailable as down:
            log.warning("preflight cannot ask the bus", reason=str(down))
        with httpx.Client(base_url=self._url, timeout=5.0) as client:
            health = [Probe(path, 200, _status(client, "GET", path, None)) for path in ("/livez", "/readyz")]
            auth = [
                Probe(name, status, _status(client, "POST", "/v1/events", token))
                for name, status, token in self._credentials(state.platform_run_id)
            ]
        return evaluate_p4(PreflightFacts(health, auth, topics, canaries), self._pinned)

    def _credentials(self, run: str) -> Iterator[tuple[str, int, str | None]]:
        """(name, status it must get, token): nothing but the good one may pass, and it sends no line."""
        kid = next(iter(self._keys))
        exp_us = self._now_us() + _HOUR_US
        good = Claims(kid=kid, sub="preflight", run=run, classes=EVENT_CLASSES, exp_us=exp_us)
        yield "no credential", 401, None
        yield "wrong key", 401, issue({kid: secrets.token_bytes(32)}, good)
        yield "expired", 401, issue(self._keys, good.model_copy(update={"exp_us": 1}))
        yield "other run", 403, issue(self._keys, good.model_copy(update={"run": _OTHER_RUN}))
        yield "good", 200, issue(self._keys, good)

    def _canaries(self, run: str, topics: Sequence[str]) -> list[Canary]:
        """Produce one canary each and consume it at its offset; it has no sequence and no frontier."""
        header = pack(Header(Kind.CANARY, run_tag(run), self._writer, 0, 0))
        bodies = {
            topic: trusted_bytes({"writer": self._writer, "nonce": secrets.token_hex(16)}) for topic in topics
        }  # fmt: skip
        with closing(self._bus.producer()) as producer:
            deliveries = producer.publish([Out(topic, 0, b"", body, header) for topic, body in bodies.items()])
        offsets = {topic: delivery.offset for topic, delivery in zip(topics, deliveries, strict=True)}
        starts = {(topic, 0): offset for topic, offset in offsets.items() if offset is not None}
        with closing(self._bus.consumer()) as consumer:
            records = read_back(consumer, starts, {place: offset + 1 for place, offset in starts.items()})
            found = {record.topic for record in records if record.value == bodies[record.topic]}
        return [Canary(topic, 0, offsets[topic], read_back=topic in found) for topic in topics]


def _status(client: httpx.Client, method: str, path: str, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        return client.request(method, path, headers=headers).status_code
    except httpx.HTTPError:
        return 0


# --- P7 ---


class Committed:
    """Evaluates P7 in a thread of its own, once the window has ended."""

    def __init__(self, bus: Bus, connect: Callable[[], Connection], now_us: Callable[[], int]) -> None:
        self._bus = bus
        self._connect = connect
        self._now_us = now_us
        self._aside = Aside("P7", self._unless_down)

    def __call__(self, state: RunState) -> Evaluation | None:
        """The evaluation, once it is there; None before, and while bus or tables cannot be asked."""
        return self._aside(state) if WINDOW in state.windows_ended else None

    def _unless_down(self, state: RunState) -> Evaluation | None:
        try:
            return self.evaluate(state)
        except Unavailable as down:
            log.warning("the proof of admissions waits", reason=str(down))
            return None

    def evaluate(self, state: RunState) -> Evaluation:
        """Gather and judge now. Raises Unavailable."""
        with closing(self._connect()) as conn:
            return evaluate_p7(gather(conn, self._bus, state, self._now_us()))


def gather(conn: Connection, bus: Bus, state: RunState, now_us: int) -> IngestFacts:
    """What tables and topics say of window 1, from the run's start offsets to the ends as of now."""
    header = state.header
    assert header is not None
    declared = {lane: state.windows_ended[WINDOW].lane_seqs.get(str(lane), 0) for lane in range(header.config.lanes)}
    run_no = _run_no(conn, state.platform_run_id)
    audits = _read_topics(conn, bus, header, run_no, declared)
    for lane in declared:
        for row, raw in journal.claimed_lines(conn, run_no, lane, declared[lane]):
            audit = audits[INGRESS[KIND_TOPIC[row.kind]], lane]
            audit.claim(journal.attempt_of(audit.stamp, row, raw))
    reasons, kept, digest = _aside(conn, run_no, declared)
    open_count, seen = _unknowns(conn, run_no)
    lanes = [_count(conn, run_no, lane, last) for lane, last in declared.items()]
    return IngestFacts(
        lanes,
        list(audits.values()),
        reasons,
        kept,
        digest,
        _identities(conn, run_no, declared),
        open_count,
        seen,
        state.waived(Waiver.EMPTY_RUN, now_us),
    )


def _read_topics(
    conn: Connection, bus: Bus, header: RunHeader, run_no: int, declared: Mapping[int, int]
) -> dict[TopicPartition, PartitionAudit]:
    """Every ingress partition, read together: one after the other each would wait for its own first fetch."""
    starts = {(topic, lane): header.starts(topic)[lane] for lane in declared for topic in INGRESS}
    with closing(bus.consumer()) as consumer:
        ends = consumer.ends(starts)
        audits = {}
        for (topic, lane), start in starts.items():
            stamp = Stamp(run_tag(header.platform_run_id), header.lane_writers[str(lane)])
            number, last = INGRESS.index(topic), declared[lane]
            audits[topic, lane] = _partition(conn, stamp, run_no, lane, number, last, start, ends[topic, lane])
        for record in read_back(consumer, starts, ends):
            audits[record.topic, record.partition].see(record)
    return audits


def _partition(
    conn: Connection, stamp: Stamp, run_no: int, lane: int, number: int, declared: int, start: int, end: int
) -> PartitionAudit:
    kinds = [kind for kind, topic in KIND_TOPIC.items() if topic == number]
    (last_seq,) = _one(
        conn, "SELECT coalesce(max(seq), 0) FROM ig.line WHERE run_no = %s AND lane = %s AND lane_seq <= %s"
        " AND class = 'A' AND kind = ANY(%s)", (run_no, lane, declared, kinds),
    )  # fmt: skip
    unknown = conn.execute(
        "SELECT seq FROM ig.unknown WHERE run_no = %s AND lane = %s AND topic = %s", (run_no, lane, number)
    ).fetchall()
    with conn.cursor() as cur:
        offsets = Offsets(journal.facts(cur, run_no, lane, number))
    return PartitionAudit(
        stamp, INGRESS[number], lane, start, end, last_seq, offsets, frozenset(seq for (seq,) in unknown)
    )


def _run_no(conn: Connection, run: str) -> int:
    row = conn.execute("SELECT run_no FROM ig.run WHERE run = %s", (run,)).fetchone()
    return 0 if row is None else int(row[0])  # no run has number 0: everything is empty then


def _one(conn: Connection, query: str, values: tuple[object, ...]) -> tuple[int, ...]:
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row


def _count(conn: Connection, run_no: int, lane: int, declared: int) -> LaneCount:
    rows = conn.execute(
        "SELECT class::text, count(*) FROM ig.line WHERE run_no = %s AND lane = %s AND lane_seq <= %s GROUP BY class",
        (run_no, lane, declared),
    ).fetchall()
    found = {str(name): int(n) for name, n in rows}
    return LaneCount(lane, declared, found.get("A", 0), found.get("D", 0), found.get("Q", 0))


def _identities(conn: Connection, run_no: int, declared: Mapping[int, int]) -> int:
    (n,) = _one(
        conn, "SELECT count(DISTINCT identity) FROM ig.line l JOIN unnest(%s::int[], %s::bigint[]) AS d (lane, last)"
        " ON l.lane = d.lane AND l.lane_seq <= d.last WHERE run_no = %s AND class = 'A'",
        (list(declared), list(declared.values()), run_no),
    )  # fmt: skip
    return n


def _aside(conn: Connection, run_no: int, declared: Mapping[int, int]) -> tuple[dict[str, int], int, str]:
    """Quarantined lines by reason, how many were set aside with their hash, and a digest over those hashes in order."""
    window = (list(declared), list(declared.values()), run_no)
    reasons = conn.execute(
        "SELECT reason, count(*) FROM ig.line l JOIN unnest(%s::int[], %s::bigint[]) AS d (lane, last)"
        " ON l.lane = d.lane AND l.lane_seq <= d.last WHERE run_no = %s AND class = 'Q' GROUP BY reason",
        window,
    ).fetchall()
    kept, digest = conn.execute(
        "SELECT count(*), encode(sha256(coalesce(string_agg(sha256, ''::bytea ORDER BY q.lane, lane_seq), ''::bytea)),"
        " 'hex') FROM ig.quarantined q JOIN unnest(%s::int[], %s::bigint[]) AS d (lane, last)"
        " ON q.lane = d.lane AND q.lane_seq <= d.last WHERE run_no = %s",
        window,
    ).fetchall()[0]
    return {str(reason): int(n) for reason, n in reasons}, int(kept), str(digest)


def _unknowns(conn: Connection, run_no: int) -> tuple[int, int]:
    """Publishes in doubt without a fact now, and all that ever were."""
    open_count, seen = _one(
        conn, "SELECT count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM ig.fact f WHERE f.run_no = u.run_no"
        " AND f.lane = u.lane AND f.topic = u.topic AND u.seq BETWEEN f.first_seq AND f.first_seq + f.n - 1)), count(*)"
        " FROM ig.unknown u WHERE run_no = %s", (run_no,),
    )  # fmt: skip
    return open_count, seen
