"""The I/O of P16: reads the log and the objects back, puts the proof artifacts, asks a second process."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from fp_contracts.canonical import canonical_bytes
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES, VERDICT_INPUTS
from fp_contracts.proofs import proof_key
from fp_runtime.aside import Aside
from fp_runtime.bus import Consumer
from fp_runtime.evidence import EvidenceConflict, EvidenceMissing, EvidenceStore
from fp_runtime.logs import logger
from fp_runtime.participant import Evaluate
from fp_runtime.postgres import Connection
from fp_verdict.finale import FinalFacts, evaluate_p16
from fp_verdict.spinefacts import run_records
from fp_verify.bundle import export
from fp_verify.cells import receipts
from fp_verify.check import recompute
from fp_verify.log import RawRecord, read_log
from fp_verify.verdict import Cells

log = logger(__name__)
VERIFY_S = 300.0
DRILL_GRACE_US = 60_000_000


class ClosingDesk:
    """Evaluates P16; what it reads with is its own."""

    def __init__(
        self, conn: Connection, store: EvidenceStore, open_reader: Callable[[], Consumer], now_us: Callable[[], int]
    ) -> None:
        self._conn = conn
        self._store = store
        self._open_reader = open_reader
        self._now_us = now_us
        self._asked: dict[str, int] = {}

    def due(self, state: RunState) -> bool:
        """Whether P16 can be judged: the pin's scope has no open phase and no requested drill may still report."""
        if scope_is_open(state):
            return False
        asked_us = self._asked.setdefault(state.platform_run_id, self._now_us())
        waits = state.drills.keys() - state.drill_reports.keys()
        return not waits or self._now_us() - asked_us >= DRILL_GRACE_US

    def evaluate(self, state: RunState) -> Evaluation:
        """P16 as of now."""
        run = state.platform_run_id
        with closing(self._open_reader()) as reader:
            records = [RawRecord(r.offset, r.key or b"", r.value) for r in run_records(reader, state)]
        known, cut = read_log(run, records), records[-1].offset + 1
        metered = metered_until(
            self._conn, run, max((receipt.last_sample for receipt in receipts(known).values()), default=0)
        )
        found = recompute(self.read, known, cut, metered)
        conflicts = self._put_cells(run, found.cells)
        execution = phase_execution_id(run, "P16", state.attempt_of("P16"))
        candidate = {
            PHASES["P16"].evidence_key(run, execution, name): canonical_bytes(document)
            for name, document in found.documents.items()
        }
        final_key = PHASES["P16"].evidence_key(run, execution, "final_verdict")
        opinion = self._second_opinion(run, records, found.cells, candidate, final_key)
        faults = [f"{mismatch.key}: {mismatch.why}" for mismatch in found.faults]
        return evaluate_p16(FinalFacts(found.documents, faults, conflicts, opinion))

    def read(self, key: str) -> bytes:
        """An object's bytes; KeyError when there is none."""
        try:
            return self._store.get(key)
        except EvidenceMissing as error:
            raise KeyError(key) from error

    def _put_cells(self, run: str, cells: Cells) -> list[str]:
        conflicts = []
        for (lane, proof), cell in cells.items():
            if not cell.ok:
                continue
            try:
                self._store.put(proof_key(run, lane, proof), canonical_bytes(cell.document(run)))
            except EvidenceConflict:
                conflicts.append(f"{lane}/{proof}")
        return conflicts

    def _second_opinion(
        self, run: str, records: Sequence[RawRecord], cells: Cells, candidate: Mapping[str, bytes], final_key: str,
    ) -> dict[str, Any] | None:  # fmt: skip
        """What `python -m fp_verify` says of a bundle of read-back objects; None when it gives no answer."""
        keys = [proof_key(run, lane, proof) for (lane, proof), cell in cells.items() if cell.ok]
        with tempfile.TemporaryDirectory(prefix="fp-verdict-") as folder:
            export(
                run, lambda key: candidate[key] if key in candidate else self.read(key), [*keys, *candidate], records,
                Path(folder),
            )  # fmt: skip
            command = [sys.executable, "-m", "fp_verify", folder, "-o", "json", "--candidate", final_key]
            try:
                done = subprocess.run(command, capture_output=True, timeout=VERIFY_S, check=False)
                opinion: dict[str, Any] = orjson.loads(done.stdout)
            except (OSError, subprocess.TimeoutExpired, orjson.JSONDecodeError) as error:
                log.error("second_opinion_failed", run=run, why=str(error))
                return None
        return opinion


def evaluator(desk: ClosingDesk) -> Evaluate:
    """P16 beside the control thread, once it is due."""
    aside = Aside("P16", desk.evaluate)
    return lambda state: aside(state) if desk.due(state) else None


def scope_is_open(state: RunState) -> bool:
    """Whether phases of a full scope may still close; a spine's scope ends with P11.

    A blocked phase is waited for: P16 opens without unresolved blockers (spec P16), so a resume finds the run open.
    So is the rehearsal of a teardown: a run is closed once, and nothing that comes later could prove that lane.
    """
    if state.header is None or state.header.config.scope == "spine":
        return False
    return not state.rehearsals or not all(state.passed(key) for key in VERDICT_INPUTS)


def metered_until(conn: Connection, run: str, last_sample: int) -> int:
    """Metered micro-USD of a run up to a sample."""
    row = conn.execute(
        "SELECT coalesce(sum(cost_microusd), 0)::bigint FROM ops.meter WHERE run = %s AND id <= %s", (run, last_sample)
    ).fetchone()
    assert row is not None
    return int(row[0])
