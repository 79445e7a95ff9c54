"""Champion and challenger on the same decisions of window 2: what each asked for, by its own thresholds and score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from fp_contracts.fold import RunState
from fp_contracts.reasons import Action
from fp_contracts.timestamps import to_text
from fp_df import domain
from fp_df.catalogue import Catalogue, policies
from fp_df.plan import plan_of
from fp_operator.decisions import DecisionRow, Truth, decided_rows, second_window, truths
from fp_operator.ranking import average_precision, card_precision, rank_correlation
from fp_runtime.errors import UserError
from fp_runtime.postgres import Connection


class Told(NamedTuple):
    """What one model said of one payment: its score and the action its thresholds alone ask for."""

    score: float
    action: Action


class Pair(NamedTuple):
    """One payment that both models scored."""

    row: DecisionRow
    champion: Told
    challenger: Told


@dataclass(frozen=True, slots=True)
class Side:
    """One model on the payments whose truth is known. Shares in ppm (None = they cannot tell), money in minor units."""

    bundle_ref: str
    average_precision_ppm: int | None
    card_precision_ppm: int | None
    fraud_blocked_minor: int
    legit_blocked_minor: int
    by_action: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models. `payments`: scored by both; `known`: those of them whose truth is; `unscored`: reason -> payments.

    `agreement`: champion's action -> challenger's -> payments, over all `payments`; `rank_correlation_ppm` is
    Spearman's, from −1,000,000 to 1,000,000 (None where one side says the same of all).
    """

    run: str
    as_of_us: int
    per_day: int
    payments: int
    unscored: Mapping[str, int]
    known: int
    frauds: int
    currency: str
    rank_correlation_ppm: int | None
    agreed: int
    agreement: Mapping[str, Mapping[str, int]]
    champion: Side
    challenger: Side

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "as_of": to_text(self.as_of_us)}


def of_run(conn: Connection, state: RunState, catalogue: Catalogue | None = None) -> Comparison:
    """The comparison in window 2 of a full run, by what was known at its end. UserError when there is none."""
    header, window = second_window(state)
    known_policies = catalogue or policies()
    rows = decided_rows(conn, header, window, known_policies)
    per_day = domain.policy_at(plan_of(header, known_policies).switches, window.end_us).review_capacity_per_day
    return compare(header.platform_run_id, rows, truths(conn, header, window, rows), window.end_us, per_day)


def compare(
    run: str, rows: Sequence[DecisionRow], known: Mapping[str, Truth], as_of_us: int, per_day: int
) -> Comparison:
    """Pure. UserError when there was no challenger, or no payment that both models scored."""
    beside = [row for row in rows if row.shadow is not None]
    what, fix = f"challenger of {run}", "one is named with the promotion in P15: see `fp models list`"
    if not beside:
        raise UserError(what, "no decision of window 2 was scored by one", fix)
    pairs = [pair for row in beside if (pair := _pair(row)) is not None]
    unscored = Counter(why for row in beside if (why := _unscored(row)) is not None)
    if not pairs:
        told = ", ".join(f"{why} {n}" for why, n in sorted(unscored.items()))
        raise UserError(what, f"no payment was scored by both models ({told})", "see the log of df for why")
    judged = [pair for pair in pairs if known[pair.row.event_id] in (Truth.FRAUD, Truth.LEGIT)]
    frauds = [known[pair.row.event_id] is Truth.FRAUD for pair in judged]
    assert beside[0].shadow is not None
    return Comparison(
        run=run, as_of_us=as_of_us, per_day=per_day, payments=len(pairs), unscored=dict(sorted(unscored.items())),
        known=len(judged), frauds=sum(frauds), currency=pairs[0].row.currency,
        rank_correlation_ppm=rank_correlation(
            [pair.champion.score for pair in pairs], [pair.challenger.score for pair in pairs]
        ),
        agreed=sum(pair.champion.action is pair.challenger.action for pair in pairs),
        agreement=_agreement(pairs),
        champion=_side(str(pairs[0].row.bundle_ref), judged, frauds, [pair.champion for pair in judged], per_day),
        challenger=_side(
            beside[0].shadow.bundle_ref, judged, frauds, [pair.challenger for pair in judged], per_day
        ),
    )  # fmt: skip


def _pair(row: DecisionRow) -> Pair | None:
    shadow = row.shadow
    if row.score is None or shadow is None or shadow.score is None or shadow.action is None:
        return None
    return Pair(row, Told(row.score, row.asked), Told(shadow.score, shadow.action))


def _unscored(row: DecisionRow) -> str | None:
    """Why a payment with a challenger cannot be compared; None when it can."""
    if row.score is None:
        return "WITHOUT_CHAMPION"
    return None if row.shadow is None or row.shadow.score is not None else str(row.shadow.reason)


def _agreement(pairs: Sequence[Pair]) -> dict[str, dict[str, int]]:
    counts = Counter((pair.champion.action, pair.challenger.action) for pair in pairs)
    return {one.value: {other.value: counts[one, other] for other in Action} for one in Action}


def _side(ref: str, pairs: Sequence[Pair], frauds: Sequence[bool], told: Sequence[Told], per_day: int) -> Side:
    scores, rows = [one.score for one in told], [pair.row for pair in pairs]
    counts = Counter(one.action for one in told)

    def blocked(fraud: bool) -> int:
        each = zip(rows, frauds, told, strict=True)
        return sum(row.amount_minor for row, bad, one in each if bad is fraud and one.action is Action.BLOCK)

    return Side(
        bundle_ref=ref,
        average_precision_ppm=average_precision(frauds, scores),
        card_precision_ppm=card_precision(
            [row.account for row in rows], [row.event_us for row in rows], frauds, scores, per_day
        ),
        fraud_blocked_minor=blocked(True),
        legit_blocked_minor=blocked(False),
        by_action={action.value: counts[action] for action in Action},
    )
