"""The six proof cells of the spine lane, computed from the control log and evidence documents alone. Pure.

A cell whose checks all hold is an artifact of its own; any other cell is OPEN with the reason (gates.md, Six proofs).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.canonical import digest_of
from fp_contracts.learning import DRILLED
from fp_contracts.phases import SPINE
from fp_contracts.proofs import PROOFS
from fp_contracts.services import instances
from fp_verify.log import Documents, Log

ALERT_GRACE_US = 5_000_000
Check = tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its checks (name, observed, required, ok) and the facts they rest on."""

    proof: str
    checks: tuple[Check, ...]
    facts: Mapping[str, Any]
    lane: str = "spine"

    @property
    def ok(self) -> bool:
        """Whether the proof holds."""
        return bool(self.checks) and all(ok for *_, ok in self.checks)

    @property
    def reason(self) -> str:
        """Why it is open; empty when it holds."""
        failed = [f"{name}: {observed}, required {required}" for name, observed, required, ok in self.checks if not ok]
        return "" if self.ok else (failed or ["not looked at"])[0]

    def document(self, run: str) -> dict[str, Any]:
        """The artifact."""
        return {
            "run": run,
            "lane": self.lane,
            "proof": self.proof,
            "checks": [
                {"name": name, "observed": observed, "required": required, "ok": ok}
                for name, observed, required, ok in self.checks
            ],
            "facts": dict(self.facts),
        }


def spine_cells(log: Log, documents: Documents, metered_microusd: int) -> dict[str, Cell]:
    """All six cells. `metered_microusd`: what the meter counted up to the last sample that P11's receipt booked."""
    recipes: Mapping[str, Callable[[], Cell]] = {
        "deploy": lambda: _deploy(log, documents),
        "monitor": lambda: _monitor(log),
        "failure_drill": lambda: _failure_drill(log),
        "recovery": lambda: _recovery(log, documents),
        "rollback": lambda: _rollback(log, documents),
        "cost_control": lambda: _cost_control(log, metered_microusd),
    }
    return {proof: recipes[proof]() for proof in PROOFS}


def _deploy(log: Log, documents: Documents) -> Cell:
    header = log.state.header
    manifest = documents.get(("P(-1)", "digest_manifest")) or {}
    running = (documents.get(("P2", "binding_matrix")) or {}).get("services", {})
    pinned = header.config.image_manifest_digest if header else "not pinned"
    required = instances(header.config.members, header.config.writers) if header else ()
    builds = manifest.get("services", {})
    foreign = [
        name
        for name in required
        if name not in running or running[name]["build_digest"] != builds.get(name.rpartition("-")[0])
    ]
    return Cell(
        "deploy",
        (
            _same("digest of the manifest", digest_of(manifest), pinned),
            ("running builds that are not the manifest's", ", ".join(foreign) or "none", "none",
             bool(required) and not foreign),
        ),
        {"manifest_digest": pinned, "running": {name: running.get(name) for name in required}},
    )  # fmt: skip


def _drill(log: Log) -> tuple[c.DrillRequested | None, c.DrillReported | None]:
    """The drill of a member of the spine: those of learning jobs belong to their own lanes."""
    drills = {key: drill for key, drill in log.state.drills.items() if drill.instance not in DRILLED.values()}
    for drill_id, requested in drills.items():
        if drill_id in log.state.drill_reports:
            return requested, log.state.drill_reports[drill_id]
    return next(iter(drills.values()), None), None


def _no_drill(proof: str, log: Log) -> Cell:
    requested, _ = _drill(log)
    seen = "not requested" if requested is None else f"requested of {requested.instance}, not reported"
    return Cell(proof, (("drill", seen, "requested and reported", False),), {})


def _monitor(log: Log) -> Cell:
    _, report = _drill(log)
    if report is None:
        return _no_drill("monitor", log)
    upto_us = report.recovered_us + ALERT_GRACE_US
    during = [alert for alert in log.state.alerts if report.killed_us <= alert.at_us <= upto_us]
    own = [alert for alert in during if alert.instance == report.instance]
    if not own:
        seen = f"{len(during)} alerts during the drill, none of {report.instance}"
        return Cell("monitor", (("alert that fired during the drill", seen, "at least 1", False),), {})
    alert = own[0]
    entry = log.first(alert)
    return Cell(
        "monitor",
        (
            ("alert that fired during the drill", f"{alert.rule} of {alert.instance}", "at least 1", True),
            ("observed over the threshold", str(alert.observed), f"at least {alert.threshold}",
             alert.observed >= alert.threshold),
        ),
        {
            "alert": alert.model_dump(mode="json"), "drill_id": report.drill_id,
            "read_back": {"offset": entry.offset, "sha256": entry.sha256, "event_id": entry.event_id},
        },
    )  # fmt: skip


def _failure_drill(log: Log) -> Cell:
    requested, report = _drill(log)
    if requested is None or report is None:
        return _no_drill("failure_drill", log)
    asked, told = log.first(requested), log.first(report)
    ended = [entry.offset for entry in log.entries if isinstance(entry.payload, c.WindowEnded)]
    streaming = not ended or told.offset < ended[0]
    return Cell(
        "failure_drill",
        (
            _same("instance that was killed", report.instance, requested.instance),
            ("killed, then started again", f"{report.restarted_us - report.killed_us} µs apart", "in this order",
             0 < report.killed_us <= report.restarted_us),
            ("killed in mid-stream",
             f"{report.lag_at_restart} records waited at the restart, {'' if streaming else 'not '}reported before the"
             " window ended", "records waited, or reported before the window ended",
             report.lag_at_restart > 0 or streaming),
        ),
        {
            "drill": requested.model_dump(mode="json"), "report": report.model_dump(mode="json"),
            "requested_at": asked.offset, "reported_at": told.offset,
        },
    )  # fmt: skip


def _recovery(log: Log, documents: Documents) -> Cell:
    _, report = _drill(log)
    if report is None:
        return _no_drill("recovery", log)
    equations = (documents.get(("P11", "reconciliation")) or {}).get("equations", [])
    failed = [e["name"] for e in equations if e["left"] != e["right"]]
    pack = documents.get(("P11", "non_regression")) or {}
    checks: list[Check] = [
        ("recovered", f"{report.recovered_us - report.killed_us} µs after the kill", "after the restart",
         report.restarted_us <= report.recovered_us),
        ("lag 0 at the window's end", log.state.state_of("P8"), "PASS", log.state.passed("P8")),
        ("equations that hold", f"{len(equations) - len(failed)} of {len(equations)}", "all", bool(equations)
         and not failed),
    ]  # fmt: skip
    reference = str(pack.get("baseline", "none"))
    if reference != "none":
        different = [str(name) for name in pack["different"]]
        checks.append(
            ("results that differ from the reference run", ", ".join(different) or "none", "none", not different)
        )
    return Cell(
        "recovery",
        tuple(checks),
        {
            "drill_id": report.drill_id,
            "recovery_us": report.recovered_us - report.restarted_us,
            "outage_us": report.recovered_us - report.killed_us,
            "lag_at_restart": report.lag_at_restart,
            "reference": reference,
        },
    )


def _rollback(log: Log, documents: Documents) -> Cell:
    header = log.state.header
    switches = header.config.policy_switches if header else ()
    partitions = rtdl_partitions(log)
    reported = {
        f"{switch.policy_rev}@{switch.effective_us}": sorted(
            done.partition
            for done in log.state.switched
            if (done.policy_rev, done.effective_us) == (switch.policy_rev, switch.effective_us)
        )
        for switch in switches
    }
    decided = (documents.get(("P9", "decision_snapshot")) or {}).get("by_policy_rev", {})
    idle = sorted({switch.policy_rev for switch in switches} - {rev for rev, n in decided.items() if n > 0})
    back = bool(header and switches and switches[-1].policy_rev == header.config.policy_initial)
    return Cell(
        "rollback",
        (
            ("pinned switches", str(len(switches)), "at least 2: away and back", len(switches) >= 2 and back),
            *(
                (f"partitions that switched to {name}", str(len(parts)), str(partitions),
                 partitions is not None and parts == list(range(partitions)))
                for name, parts in reported.items()
            ),
            ("revisions that decided nothing", ", ".join(idle) or "none", "none", bool(decided) and not idle),
        ),
        {"switched": reported, "decisions_by_policy_rev": dict(decided)},
    )  # fmt: skip


def rtdl_partitions(log: Log) -> int | None:
    """Partitions that df decides on, by the run's header; None where no header tells."""
    header = log.state.header
    return header.partitions(topics.RTDL) if header and topics.RTDL in header.start_offsets else None


def receipts(log: Log) -> dict[tuple[str, int], c.Receipt]:
    """(phase, attempt) -> receipt of every attempt of P1–P11 on the log."""
    return {
        (event.phase, event.attempt): event.receipt
        for event in log.state.history
        if event.phase in SPINE and event.phase not in ("P(-1)", "P0")
    }


def _cost_control(log: Log, metered_microusd: int) -> Cell:
    header = log.state.header
    found = receipts(log)
    limits = {e.phase: e.max_spend_microusd for e in header.config.envelopes} if header else {}
    missing = [key for key in SPINE if key not in ("P(-1)", "P0") and not any(key == phase for phase, _ in found)]
    over = [f"{phase}/{n}" for (phase, n), r in found.items() if r.spend_microusd > limits.get(phase, -1)]
    total = sum(receipt.spend_microusd for receipt in found.values())
    return Cell(
        "cost_control",
        (
            ("phases without a receipt", ", ".join(missing) or "none", "none", not missing),
            _same("receipts, µUSD", str(total), str(metered_microusd)),
            ("receipts over their envelope", ", ".join(over) or "none", "none", not over),
        ),
        {
            "metered_microusd": metered_microusd,
            "receipts_microusd": {f"{phase}/{n}": r.spend_microusd for (phase, n), r in sorted(found.items())},
            "last_sample": max((r.last_sample for r in found.values()), default=0),
        },
    )


def _same(name: str, observed: str, required: str) -> Check:
    return (name, observed, required, observed == required)
