"""Envelope against receipt, phase by phase, and the three sums that must agree."""

from typing import Any

from fp_contracts.fold import RunState
from fp_contracts.pins import ALERTS_MICROUSD, MONTHLY_LIMIT_MICROUSD
from fp_runtime import meter
from fp_runtime.postgres import Connection


def document(conn: Connection, state: RunState) -> dict[str, Any]:
    """Phases with cap, spend and seconds; totals of the run; the month against its limit and alerts (micro-USD)."""
    config = state.header.config if state.header else None
    limits = {e.phase: e for e in config.envelopes} if config else {}
    phases = [
        {
            "phase": event.phase, "attempt": event.attempt, "spend_microusd": event.receipt.spend_microusd,
            "cap_microusd": limits[event.phase].max_spend_microusd if event.phase in limits else None,
            "seconds": round(event.receipt.window_us / 1e6, 1),
            "expected_s": limits[event.phase].expected_duration_s if event.phase in limits else None,
            "artifacts": len(event.receipt.artifacts), "risk_retired": event.receipt.risk_retired,
        }
        for event in state.history
    ]  # fmt: skip
    totals = meter.totals(conn, state.platform_run_id)
    by_process = conn.execute(
        "SELECT process, sum(cost_microusd)::bigint FROM ops.meter WHERE run = %s GROUP BY process ORDER BY 2 DESC",
        (state.platform_run_id,),
    ).fetchall()
    posture = state.budget
    return {
        "platform_run_id": state.platform_run_id,
        "phases": phases,
        "metered_microusd": totals.metered, "booked_microusd": totals.booked, "unbooked_microusd": totals.unbooked,
        "sums_agree": totals.metered == totals.booked + totals.unbooked,
        "by_process_microusd": dict(by_process),
        "month": posture.model_dump(mode="json") if posture else None,
        "limit_microusd": MONTHLY_LIMIT_MICROUSD, "alerts_microusd": list(ALERTS_MICROUSD),
    }  # fmt: skip
