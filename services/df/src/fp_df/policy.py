"""Decision policies as data: typed predicates behind one `evaluate(rule, facts)` (learning.md §5). Pure.

Thresholds are integer thousandths, so that a policy document has a canonical form and a digest.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Literal

from pydantic import Field

from fp_contracts.canonical import digest_of, parse_strict
from fp_contracts.envelope import Closed
from fp_contracts.reasons import Action
from fp_features import CORE_V1

_STRENGTH = (Action.ALLOW, Action.STEP_UP, Action.REVIEW, Action.BLOCK)
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq,
}  # fmt: skip
Facts = Mapping[str, float]
FACTS = (*CORE_V1.names, "degraded")
"""What rules may ask for."""


class Term(Closed):
    """One comparison of a fact with a threshold (thousandths)."""

    fact: str
    op: Literal[">=", ">", "<=", "<", "=="]
    value_milli: int


class Rule(Closed):
    """A named guardrail: when all terms hold, its action is asked for, with its reason code."""

    name: str
    when: tuple[Term, ...] = Field(min_length=1)
    action: Literal["STEP_UP", "REVIEW", "BLOCK"]
    reason: str


class Escalation(Closed):
    """Which decisions become case triggers; never all."""

    actions: tuple[Literal["STEP_UP", "REVIEW", "BLOCK"], ...]


class Policy(Closed):
    """One immutable revision of the decision policy."""

    policy_rev: str
    rules: tuple[Rule, ...]
    errored_action: Literal["REVIEW", "BLOCK"]
    escalation: Escalation
    review_capacity_per_day: int

    @cached_property
    def tests(self) -> tuple[tuple[tuple[int, Callable[[float, float], bool], float], ...], ...]:
        """Per rule its terms as (place in FACTS, comparison, threshold), but for those whose fact nobody provides."""
        return tuple(
            tuple(
                (FACTS.index(term.fact), _COMPARISONS[term.op], term.value_milli / 1000)
                for term in rule.when
                if term.fact in FACTS
            )
            for rule in self.rules
        )


class Outcome(StrEnum):
    """What one rule says of one payment. ERRORED is an unknown, and an unknown is never an approval."""

    HIT = "HIT"
    MISS = "MISS"
    ERRORED = "ERRORED"


def parse_policy(raw: bytes) -> tuple[Policy, str]:
    """A policy document and its digest (hex64 of its canonical JSON); ValueError when it is not one."""
    document = parse_strict(raw)
    return Policy.model_validate_json(raw), digest_of(document)


def evaluate(rule: Rule, facts: Facts) -> Outcome:
    """HIT when every term holds; a fact that is missing or not finite makes the rule ERRORED, unless a term fails."""
    errored = False
    for term in rule.when:
        held = _holds(term, facts.get(term.fact))
        if held is None:
            errored = True
        elif not held:
            return Outcome.MISS
    return Outcome.ERRORED if errored else Outcome.HIT


def _holds(term: Term, value: float | None) -> bool | None:
    if value is None or not math.isfinite(value):
        return None
    return _COMPARISONS[term.op](value, term.value_milli / 1000)


def silent(policy: Policy, values: Sequence[float]) -> bool:
    """Whether it is certain at a glance that no rule hits and none is errored, as for most payments.

    `values` are those of FACTS. False says nothing: then `decide` has to be asked.
    """
    if not math.isfinite(sum(values)):
        return False
    for rule in policy.tests:
        for place, holds, threshold in rule:
            if not holds(values[place], threshold):
                break  # one term that fails settles a rule
        else:
            return False
    return True


def decide(policy: Policy, facts: Facts) -> tuple[Action, tuple[str, ...]]:
    """The strongest action asked for and every reason for it, in rule order; no hit and nothing unknown = ALLOW."""
    action, reasons = Action.ALLOW, []
    for rule in policy.rules:
        match evaluate(rule, facts):
            case Outcome.HIT:
                action = stronger(action, Action(rule.action))
                reasons.append(rule.reason)
            case Outcome.ERRORED:
                action = stronger(action, Action(policy.errored_action))
                reasons.append(f"RULE_ERRORED:{rule.name}")
            case Outcome.MISS:
                pass
    return action, tuple(reasons)


def stronger(one: Action, other: Action) -> Action:
    """The stronger of two actions."""
    return max(one, other, key=_STRENGTH.index)


def escalates(policy: Policy, action: Action) -> bool:
    """Whether a decision with this action becomes a case trigger."""
    return action in policy.escalation.actions


def unknown_facts(policy: Policy, names: Sequence[str]) -> set[str]:
    """Facts that rules ask for and nobody provides: a policy with any is refused at activation."""
    return {term.fact for rule in policy.rules for term in rule.when} - set(names)
