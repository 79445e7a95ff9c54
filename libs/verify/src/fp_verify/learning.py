"""Proof cells of the lanes ofs, mf and mpr, from the control log and evidence documents alone. Pure.

A cell that does not hold is OPEN, with the reason (gates.md, Six proofs).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fp_contracts import control as c
from fp_verify import drillcells, jobcells
from fp_verify.cells import Cell, Check, rtdl_partitions
from fp_verify.jobcells import Proof
from fp_verify.log import WINDOW_REPORT, Documents, Log
from fp_verify.reading import at as _at

PHASES_OF = {"ofs": ("P12", "P13"), "mf": ("P14",), "mpr": ("P15",)}
RTO_US = 900_000_000


def learning_cells(log: Log, documents: Documents) -> tuple[Cell, ...]:
    """All 18 cells of the three lanes."""
    proven: Mapping[tuple[str, str], Callable[[Log, Documents], Proof]] = {
        ("ofs", "deploy"): jobcells.ofs_deploy,
        ("ofs", "monitor"): jobcells.ofs_monitor,
        ("ofs", "failure_drill"): partial(drillcells.failure_drill, "P13"),
        ("ofs", "recovery"): drillcells.ofs_recovery,
        ("ofs", "rollback"): _recipe,
        ("mf", "deploy"): jobcells.mf_deploy,
        ("mf", "monitor"): jobcells.mf_monitor,
        ("mf", "failure_drill"): partial(drillcells.failure_drill, "P14"),
        ("mf", "recovery"): drillcells.mf_recovery,
        ("mf", "rollback"): _safe_disable,
        ("mpr", "deploy"): _promotion,
        ("mpr", "monitor"): jobcells.mpr_monitor,
        ("mpr", "failure_drill"): _refusal,
        ("mpr", "recovery"): _resolution,
        ("mpr", "rollback"): _rollback,
    }
    cells = []
    for (lane, proof), recipe in proven.items():
        checks, facts = recipe(log, documents)
        cells.append(Cell(proof, (*_closed(log, lane), *checks), facts, lane))
    return (*cells, *(_cost(log, lane) for lane in PHASES_OF))


def _closed(log: Log, lane: str) -> list[Check]:
    return [(f"{phase} closed", log.state.state_of(phase), "PASS", log.state.passed(phase))
            for phase in PHASES_OF[lane]]  # fmt: skip


def _recipe(log: Log, documents: Documents) -> Proof:
    """The previous dataset was active again, then this one."""
    recipe = _at(documents, ("P13", "rollback_recipe"), "document")
    executed = _at(recipe, "executed") or []
    moves = " ".join(str(_at(made, "move")) for made in executed) if isinstance(executed, list) else "none"
    return [
        _is("moves executed", moves or "none", "activate roll_back re_activate"),
        _is("history read back", str(_at(recipe, "ok")), "True"),
    ], {"recipe": recipe}


def _safe_disable(log: Log, documents: Documents) -> Proof:
    """Every partition went to guardrails under traffic and back, and window 2 adds up."""
    drill = documents.get(("P15", "rollback_drill"))
    revision = _at(drill, "rolled_back", "event", "revision")
    off = sorted({r.partition for r in log.state.bundles if r.revision == revision and r.bundle_ref is None})
    report = documents.get(WINDOW_REPORT)
    decided = _at(report, "decisions_by_bundle") or {}
    guarded = int(decided.get("guardrails", 0))
    failed = [str(_at(check, "name")) for check in _at(report, "checks") or [] if _at(check, "ok") is not True]
    return [
        _is("partitions on guardrails", str(len(off)), str(rtdl_partitions(log))),
        ("decisions by guardrails meanwhile", str(guarded), "at least 1", guarded > 0),
        ("decisions by a bundle before and after", str(sum(decided.values()) - guarded), "at least 1",
         sum(decided.values()) > guarded),
        ("equations of window 2 that do not hold", ", ".join(failed[:3]) or "none", "none",
         bool(_at(report, "checks")) and not failed),
    ], {"revision": revision, "partitions": off, "decisions_by_bundle": dict(decided)}  # fmt: skip


def _promotion(log: Log, documents: Documents) -> Proof:
    """The corridor is live: event, acknowledgement, read-back, every partition on the bundle."""
    receipt = documents.get(("P15", "promotion_receipt"))
    promotion = _at(receipt, "promotion")
    positions = _at(receipt, "members", "positions") or {}
    return [
        _is("event", str(_at(promotion, "event", "type")), "BUNDLE_PROMOTED_ACTIVE"),
        _is("read back at its offset, equal", str(_at(promotion, "read_back_equal")), "True"),
        _is("partitions on the bundle", str(len(positions)), str(rtdl_partitions(log))),
        _is("approved by another actor", str(_other_actor(log, _at(receipt, "approval", "event"))), "True"),
    ], {"promotion": promotion}


def _other_actor(log: Log, approved: Any) -> bool:
    """Whether a person other than the requester said on the control log that they approve."""
    actor, requester = _at(approved, "actor"), _at(approved, "requester")
    return actor not in (None, requester) and actor in {given.actor for given in log.state.approvals}


def _refusal(log: Log, documents: Documents) -> Proof:
    """A bundle for other features was offered and not let in."""
    found = documents.get(("P15", "compatibility"))
    probe, reasons = _at(found, "probe"), _at(found, "probe_reasons") or []
    return [
        _is("event", str(_at(probe, "event", "type")), "BUNDLE_REFUSED"),
        _is("read back at its offset, equal", str(_at(probe, "read_back_equal")), "True"),
        ("reasons", str(len(reasons)), "at least 1", bool(reasons)),
    ], {"probe": probe, "reasons": reasons}


def _resolution(log: Log, documents: Documents) -> Proof:
    """A registry that reads the topic from its beginning resolves to what the journal does."""
    found = documents.get(("P15", "active_resolution"))
    journal, restarted = _at(found, "journal"), _at(found, "restarted")
    return [
        ("active bundle", str(_at(journal, "bundle_id")), "one", _at(journal, "bundle_id") is not None),
        ("resolution of a restarted registry", str(_at(restarted, "bundle_id")), "the same",
         bool(journal) and journal == restarted),
    ], {"resolution": journal}  # fmt: skip


def _rollback(log: Log, documents: Documents) -> Proof:
    """Back and forward under traffic, in measured time."""
    drill = documents.get(("P15", "rollback_drill"))
    back, forth = _at(drill, "rollback_us"), _at(drill, "repromotion_us")
    away, again = (_at(drill, name, "positions") or {} for name in ("members_rolled_back", "members_repromoted"))
    return [
        _is("partitions rolled back", str(len(away)), str(rtdl_partitions(log))),
        _is("partitions promoted again", str(len(again)), str(rtdl_partitions(log))),
        ("rollback took, µs", str(back), f"at most {RTO_US}", isinstance(back, int) and 0 <= back <= RTO_US),
        ("re-promotion took, µs", str(forth), f"at most {RTO_US}", isinstance(forth, int) and 0 <= forth <= RTO_US),
    ], {"rollback_us": back, "repromotion_us": forth, "rolled_back": away, "promoted_again": again}


def _cost(log: Log, lane: str) -> Cell:
    """A receipt for each phase of the lane, none over its envelope."""
    header = log.state.header
    limits = {e.phase: e.max_spend_microusd for e in header.config.envelopes} if header else {}
    receipts: dict[str, c.Receipt] = {
        f"{event.phase}/{event.attempt}": event.receipt for event in log.state.history if event.phase in PHASES_OF[lane]
    }
    over = [key for key, found in receipts.items() if found.spend_microusd > limits.get(found.phase, -1)]
    idle = [key for key, found in receipts.items() if found.spend_microusd <= 0]
    return Cell(
        "cost_control",
        (
            *_closed(log, lane),
            ("receipts over their envelope", ", ".join(over) or "none", "none", not over),
            ("receipts without metered spend", ", ".join(idle) or "none", "none", not idle),
        ),
        {"receipts_microusd": {key: found.spend_microusd for key, found in sorted(receipts.items())}},
        lane,
    )


def _is(name: str, observed: str, required: str) -> Check:
    return (name, observed, required, observed == required)
