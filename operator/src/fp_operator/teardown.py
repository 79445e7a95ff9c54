"""P17: what is left after a teardown, judged (gates.md). Pure.

The gate is published while Kafka still takes it: services are gone, servers are about to stop. What is true after the
servers have stopped goes into an addendum over the verdict's hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.pins import ALERTS_MICROUSD, MONTHLY_LIMIT_MICROUSD, alert_level

RESIDUE, UNREADABLE = PHASES["P17"].blockers


@dataclass(frozen=True, slots=True)
class TeardownFacts:
    """`stopped`: service -> state after the stop; `strays`: processes of ours that nobody supervises;
    `open_ports`: service ports that still answer; `scratch`: what rehearsals left behind;
    `objects`: evidence key -> fault or None, by re-reading.
    """

    verdict_sha256: str | None
    stopped: Mapping[str, str]
    servers: Mapping[str, str]
    strays: tuple[str, ...]
    open_ports: tuple[str, ...]
    spend_microusd: int | None
    month_spend_microusd: int | None
    objects: Mapping[str, str | None]
    actor: str
    reason: str
    at_us: int
    scratch: tuple[str, ...] = ()


def evaluate(facts: TeardownFacts) -> Evaluation:
    """Everything that runs for nothing is gone, the cost is known, every evidence object still reads as recorded."""
    left = [f"{name} {state}" for name, state in sorted(facts.stopped.items()) if state not in ("STOPPED", "EXITED")]
    broken = [f"{key}: {fault}" for key, fault in sorted(facts.objects.items()) if fault is not None]
    spend, month = facts.spend_microusd, facts.month_spend_microusd
    known = spend is not None and month is not None and alert_level(month) < 3
    posture = "not queryable" if spend is None or month is None else f"{spend} µUSD, alert {alert_level(month)}"
    return Evaluation(
        (
            Predicate("final verdict", facts.verdict_sha256 or "none", "published", facts.verdict_sha256 is not None,
                      RESIDUE, True),
            Predicate("services at zero", ", ".join(left) or f"{len(facts.stopped)} stopped", "all stopped", not left,
                      RESIDUE, True),
            Predicate("residual processes", ", ".join(facts.strays) or "none", "none", not facts.strays, RESIDUE, True),
            Predicate("residual ports", ", ".join(facts.open_ports) or "none", "none", not facts.open_ports, RESIDUE,
                      True),
            Predicate("residue of rehearsals", ", ".join(facts.scratch[:5]) or "none", "none", not facts.scratch,
                      RESIDUE, True),
            Predicate("cost after the verdict", posture, "known, below alert 3", known, RESIDUE, True),
            Predicate("evidence readable", "; ".join(broken[:5]) or f"{len(facts.objects)} objects as recorded",
                      "every object as recorded", bool(facts.objects) and not broken, UNREADABLE, True),
        ),
        _documents(facts),
    )  # fmt: skip


def _documents(facts: TeardownFacts) -> dict[str, Any]:
    return {
        "snapshot": {
            "services": dict(facts.stopped), "servers": dict(facts.servers), "actor": facts.actor,
            "reason": facts.reason, "at_us": facts.at_us, "verdict_sha256": facts.verdict_sha256,
        },
        "cost_guardrail": {
            "spend_after_verdict_microusd": facts.spend_microusd, "month_spend_microusd": facts.month_spend_microusd,
            "limit_microusd": MONTHLY_LIMIT_MICROUSD, "alerts_microusd": list(ALERTS_MICROUSD),
        },
        "residual_scan": {
            "strays": list(facts.strays), "open_ports": list(facts.open_ports), "scratch": list(facts.scratch),
        },
        "readability": {"objects": len(facts.objects), "faults": {k: f for k, f in facts.objects.items() if f}},
    }  # fmt: skip
