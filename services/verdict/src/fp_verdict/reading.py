"""Reads what the run page shows from evidence, by reference, and keeps it: evidence is written once."""

from typing import Any

import orjson

from fp_contracts.control import EvidenceRef
from fp_contracts.fold import RunState
from fp_runtime import evidence
from fp_runtime.evidence import EvidenceStore
from fp_verdict.page import page_key, render
from fp_verdict.report import RunReport, make_report

_SHOWN = ("P11", "P16")


class PageDesk:
    """Reports of a run; safe to ask from several threads."""

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._kept: dict[str, Any] = {}

    def report(self, state: RunState) -> RunReport:
        """The report as of this state; a document that cannot be read back is not shown."""
        documents = {}
        for phase in _SHOWN:
            attempt = state.attempts.get(phase)
            if attempt is None or attempt.event is None:
                continue
            for ref in attempt.event.evidence:
                document = self._document(ref)
                if document is not None:
                    documents[phase, ref.key.rpartition("/")[2].removesuffix(".json")] = document
        return make_report(state, documents, documents.get(("P16", "final_verdict")))

    def put_page(self, state: RunState) -> None:
        """Write the page of a run that has its verdict, once."""
        key = page_key(state.platform_run_id)
        if not self._store.exists(key):
            self._store.put(key, render(self.report(state)).encode())

    def _document(self, ref: EvidenceRef) -> dict[str, Any] | None:
        if ref.sha256 not in self._kept:
            try:
                self._kept[ref.sha256] = orjson.loads(evidence.read(self._store, ref))
            except (evidence.EvidenceMissing, evidence.EvidenceBroken, orjson.JSONDecodeError):
                return None
        found: dict[str, Any] = self._kept[ref.sha256]
        return found
