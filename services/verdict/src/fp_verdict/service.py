"""The control thread's part of verdict: the budget posture, alerts as events, and the gates it owns (gates.md)."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fp_contracts.control import BudgetPosture, GatePassed
from fp_contracts.evaluation import Evaluation
from fp_contracts.fold import RunState
from fp_contracts.pins import alert_level
from fp_runtime import evidence
from fp_runtime.controllog import Event
from fp_runtime.evidence import EvidenceStore
from fp_runtime.postgres import Connection
from fp_verdict import adapters
from fp_verdict.finale import announcement
from fp_verdict.gates import ReadinessFacts, evaluate_p2
from fp_verdict.reading import PageDesk

POSTURE_EVERY_US = 3_600_000_000


class Reporter:
    """Reactions of one verdict instance; used by its control thread only."""

    def __init__(
        self, conn: Connection, store: EvidenceStore, pages: PageDesk, instance: str, now_us: Callable[[], int]
    ) -> None:
        self._conn = conn
        self._store = store
        self._pages = pages
        self._paged = ""
        self._instance = instance
        self._now_us = now_us
        self._posted: tuple[str, int] = ("", 0)

    def react(self, state: RunState) -> Sequence[Event]:
        """Renew the reporter lock; the posture when due; journaled alerts that are not on the log; verdict and page."""
        run = state.platform_run_id
        if state.verdict is not None and run != self._paged:
            self._pages.put_page(state)
            self._paged = run
        if state.header is None or state.closed is not None or state.stopped is not None:
            return ()
        adapters.hold_reporter(self._conn, run, self._instance)
        return [*self._posture(run), *self._alerts(state), *self._verdict(state)]

    def _posture(self, run: str) -> list[Event]:
        posted_run, posted_us = self._posted
        if posted_run == run and self._now_us() - posted_us < POSTURE_EVERY_US:
            return []
        month, spend, as_of_us = adapters.month_spend(self._conn)
        self._posted = (run, self._now_us())
        posture = BudgetPosture.model_validate(
            {"month": month, "spend_microusd": spend, "alert": alert_level(spend), "as_of_us": as_of_us}
        )
        return [(posture, (str(as_of_us),))]

    def _alerts(self, state: RunState) -> list[Event]:
        """Turns are many and alerts few: while as many are on the log as were journaled, none is looked at."""
        if adapters.alert_count(self._conn, state.platform_run_id) == len(state.alerts):
            return []
        return [
            (alert, (alert.rule, alert.instance, str(alert.at_us)))
            for alert in adapters.alerts_of(self._conn, state.platform_run_id)
            if alert not in state.alerts
        ]

    def _verdict(self, state: RunState) -> list[Event]:
        """The final verdict as P16's evidence says it, once the gate is on the log."""
        attempt = state.attempts.get("P16")
        if state.verdict is not None or attempt is None or attempt.event is None:
            return []
        ref = next((ref for ref in attempt.event.evidence if ref.key.endswith("/final_verdict.json")), None)
        if ref is None:
            return []
        final = orjson.loads(evidence.read(self._store, ref))
        return [(announcement(final, ref), (str(attempt.number),))]

    def evaluate_p2(self, state: RunState) -> Evaluation | None:
        """P2 as of now."""
        assert state.header is not None
        return evaluate_p2(
            ReadinessFacts(
                header=state.header,
                heartbeats=state.heartbeats,
                now_us=self._now_us(),
                manifest=read_manifest(self._store, state),
                reporter=adapters.reporter_of(self._conn, state.platform_run_id),
                instance=self._instance,
            )
        )


def read_manifest(store: EvidenceStore, state: RunState) -> dict[str, Any] | None:
    """The digest manifest that P(-1)'s gate names, read back by (key, sha256, size); None when it is not readable."""
    attempt = state.attempts.get("P(-1)")
    if attempt is None or not isinstance(attempt.event, GatePassed):
        return None
    for ref in attempt.event.evidence:
        if ref.key.endswith("/digest_manifest.json"):
            try:
                found: dict[str, Any] = orjson.loads(evidence.read(store, ref))
            except (evidence.EvidenceMissing, evidence.EvidenceBroken, orjson.JSONDecodeError):
                return None
            return found
    return None
