"""Proof cells of the lane teardown: a scratch namespace made, half torn down, torn down, scanned, read again. Pure.

Every cell judges what its own document recorded, not what the rehearsal thought of it; the last rehearsal counts.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fp_contracts import control as c
from fp_contracts.pins import alert_level
from fp_contracts.proofs import PROOFS
from fp_contracts.scratch import KINDS, Scratch
from fp_verify.cells import Cell, Check
from fp_verify.log import REHEARSAL, Documents, Log

LANE = "teardown"
SIGKILL = 9
MADE = ("process", "topic", "database", "key", "evidence")
IDLE_US = 1_000_000
Document = Mapping[str, Any]
Recipe = Callable[[c.TeardownRehearsed, Mapping[str, Document]], list[Check]]


def rehearsal_cells(log: Log, documents: Documents) -> tuple[Cell, ...]:
    """All six cells."""
    told = log.state.rehearsals[-1] if log.state.rehearsals else None
    if told is None:
        return tuple(_open(proof, "none reported: fp rehearse makes one between P11 and P16") for proof in PROOFS)
    found = {proof: documents.get((REHEARSAL, proof)) or {} for proof in PROOFS}
    return tuple(_cell(log, told, found, proof) for proof in PROOFS)


def _open(proof: str, why: str) -> Cell:
    return Cell(proof, (("teardown on a scratch namespace", why, "rehearsed", False),), {}, LANE)


def _cell(log: Log, told: c.TeardownRehearsed, found: Mapping[str, Document], proof: str) -> Cell:
    own = found[proof]
    if told.fault or not own:
        return _open(proof, told.fault or "its document is missing or not what the control log names")
    recipes: Mapping[str, Recipe] = {
        "deploy": _deploy, "monitor": _monitor, "failure_drill": _failure_drill, "recovery": _recovery,
        "rollback": _rollback, "cost_control": _cost_control,
    }  # fmt: skip
    entry = log.first(told)
    closed = log.state.attempts.get("P11")
    gate = log.first(closed.event).offset if closed is not None and closed.event is not None else entry.offset
    place = [
        _is("rehearsal of", f"{own.get('run')} on {own.get('scratch_run')}", f"{log.run} on {told.scratch_run}"),
        ("rehearsed after P11", f"offset {entry.offset}", f"over {gate}, P11 passed",
         log.state.passed("P11") and entry.offset > gate),
    ]  # fmt: skip
    facts = {"told": {"offset": entry.offset, "event_id": entry.event_id, "sha256": entry.sha256}, "document": own}
    return Cell(proof, (*place, *recipes[proof](told, found)), facts, LANE)


def _deploy(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """Made under names of its own, and read back from each server."""
    own = found["deploy"]
    made, back = _names(own.get("created")), _names(own.get("read_back"))
    scratch = Scratch(told.scratch_run)
    foreign = [name for kind, name in made if not scratch.owns(kind, name)]
    missing = [kind for kind in MADE if not any(kind == k for k, _ in made)]
    return [
        ("kinds of resources not made", ", ".join(missing) or "none", "none", not missing),
        ("names outside the namespace", ", ".join(foreign) or "none", "none", not foreign),
        ("read back", f"{len(back & made)} of {len(made)}", "every one", bool(made) and back == made),
    ]


def _monitor(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """One residual of each kind planted into the empty namespace, found by name, removed."""
    own = found["monitor"]
    planted, seen = _names(own.get("planted")), _names(own.get("found"))
    missing = [kind for kind in KINDS if not any(kind == k for k, _ in planted)]
    return [
        _nothing("scan before planting", own.get("before")),
        ("kinds of residuals not planted", ", ".join(missing) or "none", "none", not missing),
        ("planted and not found", _shown(planted - seen), "none", bool(planted) and planted <= seen),
        ("found and not planted", _shown(seen - planted), "none", seen <= planted),
        _nothing("scan after their removal", own.get("after")),
    ]


def _failure_drill(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """A teardown in a process of its own got SIGKILL with some of it done and some left."""
    own = found["failure_drill"]
    before, left = _names(own.get("before")), _names(own.get("left"))
    return [
        _is("signal that ended the teardown", str(own.get("signal")), str(SIGKILL)),
        ("ended by then", _shown(before - left), "something", bool(before - left)),
        ("left by it", _shown(left), "something, all of it there before", bool(left) and left <= before),
    ]


def _recovery(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """Another teardown began where the killed one stopped, and left nothing."""
    own, drill = found["recovery"], found["failure_drill"]
    killed_us, began_us, ended_us = drill.get("ended_us"), own.get("began_us"), own.get("ended_us")
    timed = all(isinstance(at, int) for at in (killed_us, began_us, ended_us))
    return [
        ("second process", f"{own.get('pid')} after {drill.get('pid')}", "another one",
         own.get("pid") not in (None, drill.get("pid"))),
        ("began with", _shown(_names(own.get("before"))), "what the killed one left",
         bool(own.get("before")) and _names(own.get("before")) == _names(drill.get("left"))),
        _is("exit code", str(own.get("exit_code")), "0"),
        ("killed, began, ended at, µs", f"{killed_us}, {began_us}, {ended_us}", "in this order",
         timed and 0 < killed_us <= began_us < ended_us),  # type: ignore[operator]  # `timed` says that they are numbers
        _nothing("left by it", own.get("left")),
    ]  # fmt: skip


def _rollback(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """What the scratch run had written reads as recorded, by another process, after all else was gone."""
    own = found["rollback"]
    recorded = {ref.key: (ref.sha256, ref.size) for ref in told.outlived}
    again = {o.get("key"): (o.get("sha256"), o.get("size")) for o in own.get("objects") or ()}
    differing = sorted(key for key in recorded if again.get(key) != recorded[key])
    scratch = Scratch(told.scratch_run)
    foreign = [key for key in recorded if not scratch.owns("evidence", key)]
    return [
        ("objects that outlived it", str(len(recorded)), "at least 1, all of the scratch run",
         bool(recorded) and not foreign),
        ("objects that do not read as recorded", ", ".join(differing) or "none", "none", not differing),
        _is("objects read again", str(len(again)), str(len(recorded))),
        ("reader", f"{own.get('reader_pid')}, rehearsed by {own.get('pid')}", "a process of its own",
         own.get("reader_pid") not in (None, own.get("pid"))),
        _after("read at, µs", own, found["recovery"]),
    ]  # fmt: skip


def _cost_control(told: c.TeardownRehearsed, found: Mapping[str, Document]) -> list[Check]:
    """The meter saw it cost something while it ran, and nothing once it was torn down."""
    own = found["cost_control"]
    up, idle = own.get("running") or {}, own.get("idle") or {}
    spent, month, window_us = up.get("cost_microusd"), own.get("month_spend_microusd"), idle.get("window_us")
    posture = f"{month} µUSD, alert {alert_level(month)}" if isinstance(month, int) else "not queryable"
    return [
        ("metered while it ran, µUSD", str(spent), "over 0", isinstance(spent, int) and spent > 0),
        _is("metered once torn down, µUSD", str(idle.get("cost_microusd")), "0"),
        _is("processes the meter found then", str(len(idle.get("processes", (None,)))), "0"),
        ("metered then for, µs", str(window_us), f"at least {IDLE_US}",
         isinstance(window_us, int) and window_us >= IDLE_US),
        _after("metered at, µs", own, found["recovery"]),
        ("month to date", posture, "known, below alert 3", isinstance(month, int) and alert_level(month) < 3),
    ]  # fmt: skip


def _after(name: str, own: Document, recovery: Document) -> Check:
    began_us, ended_us = own.get("began_us"), recovery.get("ended_us")
    ok = isinstance(began_us, int) and isinstance(ended_us, int) and began_us >= ended_us
    return (name, str(began_us), f"after the teardown ended, {ended_us}", ok)


def _names(found: Any) -> set[tuple[str, str]]:
    """(kind, name) of each resource of a list."""
    return {(str(item["kind"]), str(item["name"])) for item in found or ()}


def _nothing(name: str, found: Any) -> Check:
    """A scan that was made and found nothing."""
    return (name, "not made" if found is None else _shown(_names(found)), "none", found == [])


def _shown(names: set[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} {name}" for kind, name in sorted(names)) or "none"


def _is(name: str, observed: str, required: str) -> Check:
    return (name, observed, required, observed == required)
