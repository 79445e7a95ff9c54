"""Gathers the facts of P11 from tables, topics, the control log and evidence: never from memory (law 12)."""

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import orjson

from fp_contracts import topics, windows
from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.control import GatePassed
from fp_contracts.fold import RunState
from fp_contracts.ids import run_tag
from fp_contracts.runconfig import RunConfig
from fp_contracts.waivers import Waiver
from fp_runtime import controllog, evidence, meter, progress
from fp_runtime.bus import Consumer, Record
from fp_runtime.evidence import EvidenceStore
from fp_runtime.postgres import Connection, transaction, truth_breaches
from fp_runtime.readback import read_back
from fp_runtime.spans import Span, breaks
from fp_verdict import busfacts, governance, reconcile
from fp_verdict.buscount import BusCount, Place
from fp_verdict.busfacts import load_objects
from fp_verdict.reconcile import ArchiveState, SpineFacts
from fp_verify.chain import FIRST, chain_fault, chained

READ_BACK = ("P3", "P6", "P7", "P8", "P9", "P10")
# What changes no result: two runs that differ only here must give equal fingerprints.
_INDIFFERENT = (
    "profile", "scope", "lanes", "writers", "members", "lane_skew_limit", "watermark_interval_ms", "batch_lines",
    "pace_per_s", "lag_limit_ms", "authority_digest", "handles_digest", "image_manifest_digest", "price_table_digest",
    "envelopes",
)  # fmt: skip
_ROWS = {
    "intents": "SELECT coalesce(sum(intents), 0) FROM df.decision WHERE run = %(run)s",
    "decisions": "SELECT count(*) FROM df.decision WHERE run = %(run)s",
    "escalated": "SELECT count(*) FROM df.decision WHERE run = %(run)s AND escalated",
    "outcomes": "SELECT count(*) FROM df.outcome WHERE run = %(run)s",
    "decided": "SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'DECIDED'",
    "outcome_audits": "SELECT count(*) FROM df.audit WHERE run = %(run)s AND kind = 'OUTCOME'",
    "triggers": "SELECT count(*) FROM cm.trigger WHERE run = %(run)s",
    "triggered_entries": "SELECT count(*) FROM cm.timeline WHERE run = %(run)s AND kind = 'CASE_TRIGGERED'",
    "cases": "SELECT count(*) FROM cm.case_file WHERE run = %(run)s",
    "assertions": "SELECT count(*) FROM cm.assertion WHERE run = %(run)s",
    "quarantined_records": "SELECT count(*) FROM ops.quarantine WHERE run = %(run)s",
    "open_unknowns": "SELECT count(*) FROM ig.unknown u JOIN ig.run r USING (run_no) WHERE r.run = %(run)s AND NOT"
    " EXISTS (SELECT FROM ig.fact f WHERE f.run_no = u.run_no AND f.lane = u.lane AND f.topic = u.topic"
    " AND u.seq >= f.first_seq AND u.seq < f.first_seq + f.n)",
}


class SpineDesk:
    """Gathers P11's facts for the control thread; keeps, per run, where the topics ended when it first looked."""

    def __init__(
        self, conn: Connection, store: EvidenceStore, archive: EvidenceStore, open_reader: Callable[[], Consumer],
        now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self._conn = conn
        self._store = store
        self._archive = archive
        self._open_reader = open_reader
        self._now_us = now_us
        self._ends: dict[str, Mapping[Place, int]] = {}

    def gather(self, state: RunState) -> SpineFacts:
        """All facts as of now; the topics are read only once the archive has no hole."""
        header = state.header
        assert header is not None
        run = state.platform_run_id
        documents, unreadable = read_documents(self._store, state)
        objects = load_objects(self._conn, run)
        with closing(self._open_reader()) as reader:
            starts = {(topic, part): at for topic in topics.DATA for part, at in header.starts(topic).items()}
            ends = self._ends.setdefault(run, reader.ends(list(starts)))
            archive, extents = busfacts.archive_state(objects, starts, ends)
            complete = not any(found.holes for found in archive.values())
            count = BusCount(run_tag(run), objects)
            mismatches = busfacts.count(reader, self._archive, count, extents) if complete else []
            bus = count.counts() if complete else None
            entries, cut = self._governance(reader, state)
        if mismatches:
            first = archive[topics.RTDL]
            archive[topics.RTDL] = ArchiveState(first.on_bus, first.archived, first.holes, tuple(mismatches))
        spend = meter.totals(self._conn, run)
        rates = {"lines_per_s": int(documents.get(("P6", "counters"), {}).get("rate_per_s", 0))}
        computation = computation_of(header.config)
        pack = reconcile.compare(
            reconcile.results_of(documents), baseline_pack(self._conn, run, computation), computation, rates
        )
        return SpineFacts(
            documents=documents, unreadable=tuple(unreadable), declared_lines=declared(state, windows.FIRST),
            rows=row_counts(self._conn, run), archive=archive, bus=bus, metered=spend.metered, booked=spend.booked,
            unbooked=spend.unbooked, truth_breaches=tuple(truth_breaches(self._conn)),
            report=_report(state, documents), comparison={"run": run, **pack},
            waived=state.waived(Waiver.NON_REGRESSION, self._now_us()),
            governance=tuple(entries), chain_fault=chain_fault(entries), cut=cut,
        )  # fmt: skip

    def _governance(self, reader: Consumer, state: RunState) -> tuple[list[dict[str, Any]], int]:
        """Append what the control log says and the table does not yet have; (the whole log, offset read up to)."""
        run = state.platform_run_id
        records = run_records(reader, state)
        with transaction(self._conn) as cur:
            cur.execute("SELECT entry FROM verdict.governance WHERE run = %s ORDER BY n", (run,))
            entries: list[dict[str, Any]] = [orjson.loads(row[0]) for row in cur.fetchall()]
            known = {entry["event_id"] for entry in entries}
            for record, envelope, payload in controllog.read(records):
                if not isinstance(payload, governance.GOVERNED) or envelope.event_id in known:
                    continue
                known.add(envelope.event_id)
                previous = entries[-1]["entry_hash"] if entries else FIRST
                fact = governance.entry_of(envelope.event_id, record.offset, sha256_hex(record.value), payload)
                entries.append(chained(previous, len(entries) + 1, fact))
                cur.execute(
                    "INSERT INTO verdict.governance (run, n, event_id, entry, prev_hash, entry_hash)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (run, len(entries), envelope.event_id, orjson.dumps(entries[-1]), previous,
                     entries[-1]["entry_hash"]),
                )  # fmt: skip
        return entries, records[-1].offset + 1 if records else 0


def run_records(reader: Consumer, state: RunState) -> list[Record]:
    """Every record of the run on the control log, from its pin to the end as of now."""
    assert state.header is not None
    place = (topics.CONTROL, state.header.pin_partition)
    own = state.platform_run_id.encode()
    return [r for r in read_back(reader, {place: state.header.pin_offset}) if r.key == own]


def read_documents(store: EvidenceStore, state: RunState) -> tuple[dict[tuple[str, str], dict[str, Any]], list[str]]:
    """(documents of the passed gates that P11 reads, refs of P1–P10 that cannot be read back)."""
    documents: dict[tuple[str, str], dict[str, Any]] = {}
    unreadable = []
    for phase, attempt in state.attempts.items():
        if not isinstance(attempt.event, GatePassed):
            continue
        for ref in attempt.event.evidence:
            try:
                body = evidence.read(store, ref)
            except (evidence.EvidenceMissing, evidence.EvidenceBroken):
                unreadable.append(ref.key)
                continue
            if phase in READ_BACK:
                name = ref.key.rpartition("/")[2].removesuffix(".json")
                documents[phase, name] = orjson.loads(body)
    return documents, unreadable


def row_counts(conn: Connection, run: str) -> dict[str, int]:
    """Counts of truth rows, all from one snapshot; lines by class; spans that do not follow each other."""
    statement = "SELECT " + ", ".join(f"({query})::bigint" for query in _ROWS.values())
    row = conn.execute(statement.encode(), {"run": run}).fetchone()
    assert row is not None
    counts = dict(zip(_ROWS, map(int, row), strict=True))
    classes: dict[str, int] = dict(
        conn.execute(
            "SELECT l.class::text, count(*) FROM ig.line l JOIN ig.run r USING (run_no) WHERE r.run = %s GROUP BY 1",
            (run,),
        ).fetchall()
    )
    for letter, name in (("A", "admitted"), ("D", "duplicate"), ("Q", "quarantined")):
        counts[f"lines_{name}"] = int(classes.get(letter, 0))
    counts["span_breaks"] = _span_breaks(conn, run)
    positions = [orjson.loads(at.doc) for at in progress.load_all(conn, run, "rtdl").values()]
    counts["labels_merged"] = sum(int(doc["counts"].get("labels", 0)) for doc in positions)
    counts["labels_pending"] = sum(int(doc["pending_labels"]) for doc in positions)
    return counts


def _span_breaks(conn: Connection, run: str) -> int:
    rows = conn.execute(
        "SELECT stage, topic, part, first_offset, next_offset FROM ops.span WHERE run = %s"
        " ORDER BY stage, topic, part, first_offset",
        (run,),
    ).fetchall()
    by_place: dict[tuple[str, str, int], list[Span]] = {}
    for stage, topic, part, first, upto in rows:
        by_place.setdefault((stage, topic, part), []).append(Span(topic, part, first, upto))
    return sum(len(breaks(own, own[0].first_offset, own[-1].next_offset)) for own in by_place.values())


def baseline_pack(conn: Connection, run: str, computation: str) -> dict[str, Any] | None:
    """The pack of the last other run of the same computation whose spine closed; None = this is the first."""
    rows = conn.execute(
        "SELECT event, names, bodies FROM ops.gate_closure WHERE phase = 'P11' AND run <> %s ORDER BY at DESC", (run,)
    )
    for event, names, bodies in rows.fetchall():
        body = dict(zip(names, bodies, strict=True)).get("non_regression")
        if body is None or orjson.loads(event)["type"] != "gate_passed":
            continue
        pack: dict[str, Any] = orjson.loads(body)
        if pack["computation"] == computation:
            return pack
    return None


def computation_of(config: RunConfig) -> str:
    """Digest of everything in a configuration that decides results: world, windows, policies, features, realism."""
    return digest_of({name: value for name, value in config.model_dump(mode="json").items()
                      if name not in _INDIFFERENT})  # fmt: skip


def declared(state: RunState, window: int) -> int:
    """Lines that wsp declared up to the end of a window, over all ingress lanes; 0 before it ended."""
    assert state.header is not None
    if window not in state.windows_ended:
        return 0
    lanes = state.windows_ended[window].lane_seqs
    return sum(lanes.get(str(lane), 0) for lane in range(state.header.config.lanes))


def _report(state: RunState, documents: reconcile.Documents) -> dict[str, Any]:
    assert state.header is not None
    config = state.header.config
    return {
        "run": state.platform_run_id,
        "profile": config.profile,
        "scope": config.scope,
        "run_config_digest": state.header.run_config_digest,
        "world": documents.get(("P3", "readiness"), {}),
        "windows": [[w.start_us, w.end_us] for w in config.windows],
        "receipts": dict(documents.get(("P7", "receipt_summary"), {})),
        "decisions": dict(documents.get(("P9", "decision_snapshot"), {})),
        "cases": dict(documents.get(("P10", "closure"), {})),
        "policy_switches": [s.model_dump(mode="json") for s in state.switched],
        "drills": [r.model_dump(mode="json") for r in state.drill_reports.values()],
        "alerts": [a.model_dump(mode="json") for a in state.alerts],
    }
