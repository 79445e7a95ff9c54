"""What the model changed in window 2: its decisions against the guardrails alone on the same payments."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fp_contracts.fold import RunState
from fp_contracts.reasons import Action
from fp_contracts.timestamps import to_text
from fp_df import domain
from fp_df.catalogue import Catalogue, policies
from fp_df.plan import plan_of
from fp_operator.decisions import DecisionRow, Truth, decided_rows, second_window, truths
from fp_operator.ranking import average_precision, card_precision
from fp_runtime.errors import UserError
from fp_runtime.postgres import Connection

_STRENGTH = (Action.ALLOW, Action.STEP_UP, Action.REVIEW, Action.BLOCK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way to decide the judged payments. Shares in ppm (None = the window cannot tell), money in minor units.

    Payments rank by the action's strength, then by score where there is one: that is the order of a review queue.
    stopped = any action but ALLOW; false_positive = share of legitimate payments that were stopped.
    """

    average_precision_ppm: int | None
    card_precision_ppm: int | None
    false_positive_ppm: int | None
    fraud_blocked_minor: int
    fraud_stopped_minor: int
    legit_blocked_minor: int
    by_action: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Effect:
    """Both ways to decide the payments of window 2 that a bundle decided and whose truth is known.

    What was left out is counted: `immature` (not adjudicated yet when the window ended), `uncertain` (no verdict),
    `without_model` (decided while no bundle was in force). `score_average_precision_ppm` ranks by score alone.
    """

    run: str
    as_of_us: int
    per_day: int
    payments: int
    frauds: int
    fraud_minor: int
    currency: str
    immature: int
    uncertain: int
    without_model: int
    score_average_precision_ppm: int | None
    with_model: Outcome
    guardrails: Outcome

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "as_of": to_text(self.as_of_us)}


def of_run(conn: Connection, state: RunState, catalogue: Catalogue | None = None) -> Effect:
    """The effect in window 2 of a full run, by what was known at its end. UserError when there is none to tell of."""
    header, window = second_window(state)
    known_policies = catalogue or policies()
    rows = decided_rows(conn, header, window, known_policies)
    per_day = domain.policy_at(plan_of(header, known_policies).switches, window.end_us).review_capacity_per_day
    return measure(header.platform_run_id, rows, truths(conn, header, window, rows), window.end_us, per_day)


def measure(run: str, rows: Sequence[DecisionRow], known: Mapping[str, Truth], as_of_us: int, per_day: int) -> Effect:
    """Pure. UserError when no payment is left to judge by; `known` has every event id of `rows`."""
    decided = [row for row in rows if row.bundle_ref is not None]
    judged = [row for row in decided if known[row.event_id] in (Truth.FRAUD, Truth.LEGIT)]
    if not judged:
        why = "no model decided any payment" if not decided else "the truth of none of its payments is known yet"
        raise UserError(f"effect in window 2 of {run}", why, "a longer world leaves more of window 2 adjudicated")
    frauds = [known[row.event_id] is Truth.FRAUD for row in judged]
    counted = Counter(known[row.event_id] for row in decided)
    return Effect(
        run=run, as_of_us=as_of_us, per_day=per_day, payments=len(judged), frauds=sum(frauds),
        fraud_minor=sum(row.amount_minor for row, fraud in zip(judged, frauds, strict=True) if fraud),
        currency=judged[0].currency, immature=counted[Truth.IMMATURE], uncertain=counted[Truth.UNCERTAIN],
        without_model=len(rows) - len(decided),
        score_average_precision_ppm=average_precision(frauds, [row.score or 0.0 for row in judged]),
        with_model=_outcome(judged, frauds, [row.action for row in judged], [row.score for row in judged], per_day),
        guardrails=_outcome(judged, frauds, [row.guardrails for row in judged], [None] * len(judged), per_day),
    )  # fmt: skip


def _outcome(
    rows: Sequence[DecisionRow], frauds: Sequence[bool], actions: Sequence[Action], scores: Sequence[float | None],
    per_day: int,
) -> Outcome:  # fmt: skip
    ranks = [2.0 * _STRENGTH.index(action) + (score or 0.0) for action, score in zip(actions, scores, strict=True)]
    each = list(zip(rows, frauds, actions, strict=True))
    legit = [action for _, fraud, action in each if not fraud]
    stopped = sum(action is not Action.ALLOW for action in legit)
    counts = Counter(action.value for action in actions)

    def money(fraud: bool, *wanted: Action) -> int:
        return sum(row.amount_minor for row, bad, action in each if bad is fraud and action in wanted)

    return Outcome(
        average_precision_ppm=average_precision(frauds, ranks),
        card_precision_ppm=card_precision(
            [row.account for row in rows], [row.event_us for row in rows], frauds, ranks, per_day
        ),
        false_positive_ppm=stopped * 1_000_000 // len(legit) if legit else None,
        fraud_blocked_minor=money(True, Action.BLOCK),
        fraud_stopped_minor=money(True, Action.STEP_UP, Action.REVIEW, Action.BLOCK),
        legit_blocked_minor=money(False, Action.BLOCK),
        by_action={action.value: counts[action.value] for action in _STRENGTH},
    )
