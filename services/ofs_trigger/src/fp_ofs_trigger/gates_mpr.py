"""P15: promoted by the book, resolved by every member, rolled back and forward, window 2 reconciled (gates.md). Pure.

Predicates come in the order of the corridor; those of a step that was not reached are not asked, so a block names its
cause and not everything behind it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fp_contracts.control import WindowEnded, WindowReconciled
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES
from fp_contracts.resolution import Registry, resolve
from fp_ofs_trigger.corridor import Trail
from fp_ofs_trigger.members import Members
from fp_ofs_trigger.seen import Seen

PROMOTION, DRILL = PHASES["P15"].blockers
RTO_S = 900
GOAL_S = 10
WINDOW = 2
_SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class MprFacts:
    """P15: the corridor's trail, what the control log says of window 2, and fp.bundle.active as it reads back."""

    trail: Trail
    ended: WindowEnded | None
    reconciled: WindowReconciled | None
    seen: Seen


def evaluate_p15(facts: MprFacts) -> Evaluation:
    """Every step in its order, up to the first that does not hold."""
    predicates: list[Predicate] = []
    for step in _steps(facts):
        predicates += step
        if not all(predicate.ok for predicate in step):
            break
    return Evaluation(tuple(predicates), _documents(facts))


def _steps(facts: MprFacts) -> Iterator[tuple[Predicate, ...]]:
    trail = facts.trail
    yield (
        _none("eligibility", trail.candidate.faults, PROMOTION),
        _none("compatibility", trail.incompatible, PROMOTION),
        Predicate("second window", "declared" if trail.times else "none", "declared", trail.times is not None,
                  PROMOTION, final=True),
        _waits("experiment registry answers", trail.tracker_fault or "it answers", "it answers",
               trail.tracker_fault is None, PROMOTION),
    )  # fmt: skip
    probe = trail.probe
    yield (
        Predicate("incompatible bundle refused", "; ".join(trail.probe_reasons[:2]) or "let in", "refused, read back",
                  probe is not None and probe.equal, PROMOTION, final=True),
    )  # fmt: skip
    yield (_parity(trail),)
    yield (_approval(trail),)
    yield (_challenger(trail),)
    yield from _promotion(trail)
    yield from _drill(trail)
    yield _resolution(trail)
    yield _window(facts)
    yield facts.seen.waiting(PROMOTION)


def _parity(trail: Trail) -> Predicate:
    """A df process scores the evaluation as the trainer did, from the vectors that it served itself."""
    found, wanted = trail.rescored, trail.candidate.evaluated
    named = trail.candidate.published.eval_rows is not None
    observed = "df has not answered" if named else "P14 names no rows that df could score"
    if found is not None:
        told = (found.scores_sha256 or "none")[:12]
        observed = f"{found.rows} rows, {found.missing} missing, scores {told} {found.reason}".strip()
    required = f"{wanted.rows} rows, 0 missing, scores {(wanted.scores_sha256 or 'none')[:12]}"
    return Predicate(
        "train/serve parity", observed, required, trail.parity, PROMOTION, final=found is not None or not named
    )


def _challenger(trail: Trail) -> Predicate:
    """A baseline that was trained is named and read back; whether it ever scores disturbs nobody."""
    offered, fault = trail.candidate.challenger, trail.candidate.challenger_fault
    held = trail.challenged
    named = "named, read back" if offered is not None else "none was trained"
    observed = fault or "; ".join(trail.challenger_faults[:2]) or (named if held else "not named")
    return Predicate("challenger in shadow", observed, "named, read back", held, PROMOTION, final=True)


def _approval(trail: Trail) -> Predicate:
    faults = "; ".join(trail.approval_faults[:2])
    observed = "approved" if trail.approval else faults or "nobody yet"
    held = trail.approval is not None and trail.approval.equal
    return Predicate("approved by another actor", observed, "approved", held, PROMOTION, final=bool(faults))


def _promotion(trail: Trail) -> Iterator[tuple[Predicate, ...]]:
    promoted = trail.promoted
    yield (
        _none("promotion", trail.promotion_faults, PROMOTION),
        Predicate("promotion acknowledged and read back", str(promoted is not None and promoted.equal), "True",
                  promoted is not None and promoted.equal, PROMOTION, final=True),
        Predicate("second promotion of one revision", "; ".join(trail.rival_faults) or "counted", "refused",
                  bool(trail.rival_faults), PROMOTION, final=True),
    )  # fmt: skip
    yield (_members("members on the promoted bundle", trail.on_promotion, PROMOTION),)


def _drill(trail: Trail) -> Iterator[tuple[Predicate, ...]]:
    yield (
        Predicate("rollback acknowledged and read back", str(trail.rolled_back is not None and trail.rolled_back.equal),
                  "True", trail.rolled_back is not None and trail.rolled_back.equal, DRILL, final=True),
        _members("members after the rollback", trail.on_rollback, DRILL),
    )  # fmt: skip
    yield (
        _within("rollback took, µs", trail.rollback_us),
        Predicate("re-promotion acknowledged and read back", str(trail.repromoted is not None), "True",
                  trail.repromoted is not None and trail.repromoted.equal, DRILL, final=True),
        _members("members after the re-promotion", trail.on_repromotion, DRILL),
    )  # fmt: skip
    yield (_within("re-promotion took, µs", trail.repromotion_us),)


def _resolution(trail: Trail) -> tuple[Predicate, ...]:
    wanted = trail.candidate.published.bundle.bundle_id
    live, restarted = _resolved(trail.journal, trail), _resolved(trail.topic, trail)
    passed_over = trail.topic.passed_over if trail.topic is not None else ()
    return (
        Predicate("active bundle", str(live.get("bundle_id")), wanted, live.get("bundle_id") == wanted, PROMOTION,
                  final=True),
        Predicate("resolution of a restarted registry", str(restarted.get("bundle_id")), "the same",
                  bool(live) and live == restarted, PROMOTION, final=True),
        _none("events passed over by the fold", passed_over, PROMOTION),
        _waits("aliases follow", trail.alias_fault or "they follow", "they follow", _aliases_follow(trail), PROMOTION),
    )  # fmt: skip


def _aliases_follow(trail: Trail) -> bool:
    offered = trail.candidate.challenger
    wanted = {"champion": trail.candidate.published.bundle, "challenger": None if offered is None else offered.bundle}
    named = {alias: bundle.bundle_id for alias, bundle in wanted.items() if bundle is not None}
    return trail.alias_fault is None and (not trail.aliases or named.items() <= trail.aliases.items())


def _window(facts: MprFacts) -> tuple[Predicate, ...]:
    checks = facts.reconciled.checks if facts.reconciled is not None else ()
    failed = [f"{check.name}: {check.observed}" for check in checks if not check.ok]
    ended, reconciled = facts.ended is not None, facts.reconciled is not None
    return (
        _waits("window 2 ended", str(ended), "True", ended, PROMOTION),
        _waits("window 2 reconciled", str(reconciled), "True", reconciled and bool(checks), PROMOTION),
        _none("equations of window 2 that do not hold", failed, PROMOTION),
    )


def _resolved(registry: Registry | None, trail: Trail) -> Mapping[str, Any]:
    """What df would resolve to from the end of the corridor on."""
    if registry is None or trail.times is None:
        return {}
    scope = trail.candidate.published.scope
    found = resolve(registry, scope, trail.times.repromote_us, lambda _: None)
    return {
        "source": found.source,
        "bundle_id": found.bundle.bundle_id if found.bundle else None,
        "model_digest": found.bundle.model_digest if found.bundle else None,
        "revision": found.revision,
    }


def _documents(facts: MprFacts) -> dict[str, Any]:
    trail = facts.trail
    offered = trail.candidate.published.model_dump(mode="json")
    return {
        "promotion_receipt": {
            "offered": offered, "eligibility": list(trail.candidate.faults),
            "approval": _receipt(trail.approval), "approval_faults": list(trail.approval_faults),
            "promotion": _receipt(trail.promoted), "promotion_faults": list(trail.promotion_faults),
            "members": _positions(trail.on_promotion),
            "challenger": _receipt(trail.challenger), "challenger_faults": list(trail.challenger_faults),
        },
        "rollback_drill": {
            "rolled_back": _receipt(trail.rolled_back), "members_rolled_back": _positions(trail.on_rollback),
            "rollback_us": trail.rollback_us, "repromoted": _receipt(trail.repromoted),
            "members_repromoted": _positions(trail.on_repromotion), "repromotion_us": trail.repromotion_us,
            "limit_s": RTO_S, "goal_s": GOAL_S,
            "within_goal": trail.rollback_us is not None and trail.rollback_us <= GOAL_S * _SECOND_US,
        },
        "active_resolution": {
            "journal": dict(_resolved(trail.journal, trail)), "restarted": dict(_resolved(trail.topic, trail)),
            "aliases": trail.aliases, "alias_fault": trail.alias_fault,
        },
        "compatibility": {
            "faults": list(trail.incompatible), "probe": _receipt(trail.probe),
            "probe_reasons": list(trail.probe_reasons), "second_promotion": list(trail.rival_faults),
            "parity": {
                "report": {"rows": trail.candidate.evaluated.rows,
                           "scores_sha256": trail.candidate.evaluated.scores_sha256},
                "df": trail.rescored.model_dump(mode="json") if trail.rescored else None,
            },
        },
        "window_2": {
            "ended": facts.ended.model_dump(mode="json") if facts.ended else None,
            "reconciled": facts.reconciled.model_dump(mode="json") if facts.reconciled else None,
            "switches_us": list(trail.times.ascending()) if trail.times else None,
        },
        "telemetry": facts.seen.document(),
    }  # fmt: skip


def _receipt(receipt: Any) -> Any:
    return None if receipt is None else receipt.document()


def _positions(members: Members | None) -> Any:
    return None if members is None else {**members.document(), "otherwise": list(members.otherwise)}


def _members(name: str, members: Members | None, code: str) -> Predicate:
    if members is None:
        return Predicate(name, "nothing to report on yet", "every partition", False, code)
    observed = "; ".join(members.otherwise[:2]) or f"{len(members.positions)} of {members.partitions}"
    required = f"{members.partitions} of {members.partitions}"
    return Predicate(name, observed, required, members.complete, code, final=bool(members.otherwise))


def _within(name: str, took_us: int | None) -> Predicate:
    held = took_us is not None and 0 <= took_us <= RTO_S * _SECOND_US
    return Predicate(name, str(took_us), f"at most {RTO_S * _SECOND_US}", held, DRILL, final=took_us is not None)


def _none(name: str, found: tuple[str, ...] | list[str], code: str) -> Predicate:
    return Predicate(name, "; ".join(found[:3]) or "no fault", "no fault", not found, code, final=True)


def _waits(name: str, observed: str, required: str, ok: bool, code: str) -> Predicate:
    """A check that time can make true."""
    return Predicate(name, observed, required, ok, code)
