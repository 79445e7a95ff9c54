"""The I/O behind `windows`: gathers a later window's facts, writes its report once, publishes what it says."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import GatePassed
from fp_contracts.derive import multiset_digest
from fp_contracts.fold import RunState
from fp_contracts.header import NONE_TS, Header, Kind
from fp_contracts.ids import run_tag
from fp_contracts.registry import FRAUD_SLOT, switch_times
from fp_contracts.windows import FIRST, SECOND, switches_passed
from fp_runtime import evidence, meter, progress
from fp_runtime.aside import Aside
from fp_runtime.bus import Consumer, Record
from fp_runtime.controllog import Event
from fp_runtime.evidence import EvidenceStore, ref_of
from fp_runtime.postgres import Connection, truth_breaches
from fp_verdict import busfacts, windows
from fp_verdict.buscount import COUNTED, BusCount, Place
from fp_verdict.reconcile import ArchiveState, SpineFacts
from fp_verdict.spinefacts import declared, read_documents, row_counts
from fp_verdict.windows import Deciders, WindowFacts

STILL = 3
"""So many equal looks, each at least PAUSE_S apart, before something that does not hold is said to be so."""
PAUSE_S = 5.0
SOON_S = 0.5
"""Between looks while something is still on its way, so that the topics were not read."""


class WindowDesk:
    """Re-checks window 2 of one run at a time; looks beside the control thread, with what is its own to read with."""

    def __init__(
        self, conn: Connection, store: EvidenceStore, archive: EvidenceStore, open_reader: Callable[[], Consumer],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._conn = conn
        self._store = store
        self._archive = archive
        self._open_reader = open_reader
        self._clock = clock
        self._looking = Aside("P16", self.gather, clock)
        self._look_at = 0.0
        self._looks: tuple[str, int] = ("", 0)

    def react(self, state: RunState) -> Sequence[Event]:
        """window_reconciled once the window is through: when all holds, or when what does not stays so."""
        over = state.header is None or state.closed is not None or state.stopped is not None
        if over or SECOND not in state.windows_ended or SECOND in state.reconciled or not switches_passed(state):
            return ()  # what df holds at a switch is not missing: it waits for the corridor
        key = report_key(state.platform_run_id)
        if not self._store.exists(key) and not self._judged(state, key):
            return ()
        body = self._store.get(key)
        return [(windows.announcement(orjson.loads(body), ref_of(key, body)), (str(SECOND),))]

    def _judged(self, state: RunState, key: str) -> bool:
        """Look once more, if it is time; whether the report was written."""
        if self._clock() < self._look_at or (facts := self._looking(state)) is None:
            return False
        self._look_at = self._clock() + (PAUSE_S if windows.complete(facts) else SOON_S)
        if not windows.complete(facts):
            return False
        report = windows.report(state.platform_run_id, facts)
        if not windows.settled(windows.evaluate(facts)) and not self._stands_still(report):
            return False
        self._store.put(key, canonical_bytes(report))
        return True

    def _stands_still(self, report: Mapping[str, Any]) -> bool:
        """Whether the same was seen for the last looks."""
        seen = str(windows.outline(report))
        self._looks = (seen, self._looks[1] + 1 if self._looks[0] == seen else 1)
        return self._looks[1] >= STILL

    def gather(self, state: RunState) -> WindowFacts:
        """All facts as of now; the topics are read only once everything is merged and the archive has no hole."""
        header = state.header
        assert header is not None
        run, window = state.platform_run_id, header.config.windows[SECOND - 1]
        deciders = Deciders([r for r in state.bundles if r.bundle_slot == FRAUD_SLOT])
        count = BusCount(
            run_tag(run), busfacts.load_objects(self._conn, run), window.start_us,
            window.start_us + header.config.label_effect_delay_us, (*topics.INGRESS, *COUNTED),
        )  # fmt: skip
        merged_us = merged(self._conn, run, header.lanes)
        _, unreadable = read_documents(self._store, state)
        before = self._before(state)
        with closing(self._open_reader()) as reader:
            archive, read = self._topics(reader, state, count, deciders, merged_us >= window.end_us)
        spend = meter.totals(self._conn, run)
        whole = SpineFacts(
            documents={}, unreadable=(*unreadable, *([] if before else ["P11 run_report"])), declared_lines=0,
            rows=row_counts(self._conn, run), archive=archive, bus=count.counts() if read else None,
            metered=spend.metered, booked=spend.booked, unbooked=spend.unbooked,
            truth_breaches=tuple(truth_breaches(self._conn)), report={}, comparison=None, waived=False, governance=(),
            chain_fault=None, cut=0,
        )  # fmt: skip
        lines = declared(state, SECOND) - declared(state, FIRST)
        counted = windows.over_window(whole, before, lines, count.requests(), count.ingress())
        return WindowFacts(
            SECOND, window, merged_us, counted, deciders.by_bundle, tuple(deciders.faults), _promoted(state),
            multiset_digest(deciders.fingerprints), deciders.shadows, multiset_digest(deciders.shadow_prints),
        )  # fmt: skip

    def _topics(
        self, reader: Consumer, state: RunState, count: BusCount, deciders: Deciders, through: bool
    ) -> tuple[dict[str, ArchiveState], bool]:
        """(archive by topic, whether the topics were read)."""
        assert state.header is not None
        starts: dict[Place, int] = {
            (topic, part): at for topic in topics.DATA for part, at in state.header.starts(topic).items()
        }
        archive, extents = busfacts.archive_state(count.objects, starts, reader.ends(list(starts)))
        if not through or any(found.holes for found in archive.values()):
            return archive, False
        mismatches = busfacts.count(reader, self._archive, count, extents, partial(_decided, deciders))
        first = archive[topics.RTDL]
        archive[topics.RTDL] = ArchiveState(first.on_bus, first.archived, first.holes, tuple(mismatches))
        return archive, True

    def _before(self, state: RunState) -> Mapping[str, int]:
        """The rows that P11 counted, from its evidence; empty when that does not read back."""
        attempt = state.attempts.get("P11")
        event = attempt.event if attempt is not None else None
        refs = event.evidence if isinstance(event, GatePassed) else ()
        ref = next((ref for ref in refs if ref.key.endswith("/run_report.json")), None)
        try:
            return {} if ref is None else dict(orjson.loads(evidence.read(self._store, ref))["rows"])
        except (evidence.EvidenceMissing, evidence.EvidenceBroken):
            return {}


def report_key(run: str) -> str:
    """Where the report of window 2 lies."""
    return f"evidence/runs/{run}/obs/window-{SECOND}/reconciliation.json"


def merged(conn: Connection, run: str, lanes: int) -> int:
    """Up to where every ingress partition is merged and saved (µs); the beginning of time while one is missing."""
    positions = progress.load_all(conn, run, "rtdl")
    if len(positions) < lanes:
        return NONE_TS
    return min(int(orjson.loads(at.doc)["bound_us"]) for at in positions.values())


def _decided(deciders: Deciders, header: Header, record: Record) -> None:
    if header.kind is Kind.DECISION:
        deciders.take(header.order_us, record.partition, record.value)


def _promoted(state: RunState) -> str | None:
    """The bundle that decides from the start of window 2 on, as the partitions reported it."""
    assert state.header is not None
    times = switch_times(state.header.config.windows)
    found = {r.bundle_ref for r in state.bundles if times is not None and r.effective_us == times.promote_us}
    return found.pop() if len(found) == 1 else None
