"""Train the candidate and examine it: everything the report says, from a table to values. Pure but for the fitting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fp_contracts.bundle import PPM, Boosting, EvalReport, Metrics, Thresholds, TrainRequest
from fp_mf import leakage, metrics
from fp_mf.errors import fail
from fp_mf.fit import Curve, boosting_for, fit_boosted, fit_logistic
from fp_mf.metrics import ppm
from fp_mf.progress import Progress
from fp_mf.split import Split, split
from fp_mf.table import Table
from fp_models import Bundle, NotFinite, open_model
from fp_models.model import Model, Scores, score

ENOUGH_BETWEEN = 1_000  # with fewer payments between train and test, thresholds are set on the train window
_WIDE_BAND = 0.1
_MANY_ROWS = 50_000  # below this a second thread waits more than it works


class Check(NamedTuple):
    """One condition of eligibility with both sides as text."""

    name: str
    observed: str
    required: str
    ok: bool


class Challenger(NamedTuple):
    """The baseline as a model of its own, with thresholds on its own scale of scores."""

    model_bytes: bytes
    thresholds: Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted candidate, as its pictures show it; scores are of the test rows."""

    model_bytes: bytes
    curve: Curve
    split: Split
    scores: Scores
    baseline_scores: Scores
    active_scores: Scores | None
    importance: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Fitted):
    """A fitted candidate and all that was found about it. `challenger`: the baseline, unless it is no model."""

    challenger: Challenger | None
    settings: Boosting
    thresholds: Thresholds
    shuffled: leakage.Shuffled
    checks: Sequence[Check]
    summary: EvalReport

    @property
    def failed(self) -> tuple[Check, ...]:
        """The conditions that do not hold."""
        return tuple(check for check in self.checks if not check.ok)


def _nobody(_: Fitted) -> None:
    """Nobody draws."""


def train(
    request: TrainRequest, table: Table, active: Bundle | None, progress: Progress, notes: Sequence[str] = (),
    on_fitted: Callable[[Fitted], None] = _nobody,
) -> Trained:  # fmt: skip
    """Fit and examine; `notes` go to the report. `on_fitted` hears the fit before the checks, which take longer.

    Errors: Blocked B14 when the windows do not carry a training or a model answers what is no number.
    """
    parts = split(table, request.split, request.floors)
    settings = boosting_for(len(parts.train.labels), parts.train.frauds, request.boosting)
    body, curve = _fit(request, parts, settings, progress)
    model = open_model(request.family, body)
    scores = _scores(model, parts.test, "candidate")
    baseline_scores, challenger = _baseline(request, parts)
    active_scores = None if active is None else _scores(active.model, parts.test, "active bundle")
    thresholds = _thresholds(request, parts, model, "candidate")
    fitted = Fitted(
        model_bytes=body, curve=curve, split=parts, scores=scores, baseline_scores=baseline_scores,
        active_scores=active_scores, importance=_importance(request, model, table.names),
    )  # fmt: skip
    on_fitted(fitted)
    shuffled = leakage.shuffle_check(parts, _refit(request, settings), request.seed, progress)
    summary, checks = _summary(request, parts, (scores, baseline_scores, active_scores), shuffled, notes)
    found = {name: getattr(fitted, name) for name in Fitted.__slots__}
    return Trained(
        **found, challenger=challenger, settings=settings, thresholds=thresholds, shuffled=shuffled, checks=checks,
        summary=summary,
    )  # fmt: skip


def _threads(parts: Split) -> int:
    return 1 if len(parts.train.labels) < _MANY_ROWS else 2


def _fit(request: TrainRequest, parts: Split, settings: Boosting, progress: Progress) -> tuple[bytes, Curve]:
    if request.family == "logistic":
        return fit_logistic(parts.train.features, parts.train.labels), {}
    return fit_boosted(
        parts.train.features, parts.train.labels, settings, request.seed, _threads(parts), progress,
        watch=(parts.test.features, parts.test.labels),
    )  # fmt: skip


def _refit(request: TrainRequest, settings: Boosting) -> leakage.FitAndScore:
    def fit_and_score(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        if request.family == "logistic":
            body = fit_logistic(features, labels)
        else:
            threads = 1 if len(labels) < _MANY_ROWS else 2
            body, _ = fit_boosted(features, labels, settings, request.seed, threads)
        return score(open_model(request.family, body), others)

    return fit_and_score


def _scores(model: Model, part: Table, who: str) -> Scores:
    try:
        return score(model, part.features)
    except NotFinite as error:
        fail(f"the {who} answers what is no number: {error}")


def _baseline(request: TrainRequest, parts: Split) -> tuple[Scores, Challenger | None]:
    """The logistic model; for a logistic candidate it is the prevalence, said for every payment alike, and no model."""
    if request.family == "logistic":
        return np.full(len(parts.test.labels), parts.train.labels.mean()), None
    body = fit_logistic(parts.train.features, parts.train.labels)
    model = open_model("logistic", body)
    thresholds = _thresholds(request, parts, model, "baseline")
    return _scores(model, parts.test, "baseline"), Challenger(body, thresholds)


def _thresholds(request: TrainRequest, parts: Split, model: Model, who: str) -> Thresholds:
    part = parts.between if len(parts.between.labels) >= ENOUGH_BETWEEN else parts.train
    return metrics.thresholds_for(_scores(model, part, who), request.budgets)


def _importance(request: TrainRequest, model: Any, names: Sequence[str]) -> dict[str, int]:
    """Share (ppm) of each feature: gain of its splits, or size of its weight; by falling share."""
    if request.family == "logistic":
        weights = {name: abs(weight) for name, weight in zip(names, model.weights, strict=True)}
    else:
        gains = model.booster.get_score(importance_type="total_gain")
        weights = {name: float(gains.get(f"f{index}", 0.0)) for index, name in enumerate(names)}
    total = sum(weights.values()) or 1.0
    return {name: ppm(weight / total) for name, weight in sorted(weights.items(), key=lambda item: (-item[1], item[0]))}


def _summary(
    request: TrainRequest,
    parts: Split,
    scored: tuple[Scores, Scores, Scores | None],
    shuffled: leakage.Shuffled,
    notes: Sequence[str],
) -> tuple[EvalReport, list[Check]]:
    candidate, baseline = _measure(request, parts, scored[0]), _measure(request, parts, scored[1])
    active = None if scored[2] is None else _measure(request, parts, scored[2])
    floor = _ap(baseline) + request.floors.margin_ppm
    if active is not None:
        floor = max(floor, _ap(active) - request.floors.tolerance_ppm)
    low, high = metrics.ap_band(parts.test.labels, scored[0], request.seed)
    checks = _checks(request, parts, _ap(candidate), min(floor, PPM), shuffled)
    summary = EvalReport(
        train_request_digest=request.digest,
        windows=parts.bounds,
        candidate=candidate,
        baseline=baseline,
        active=active,
        floor_ppm=min(floor, PPM),
        average_precision_low_ppm=ppm(low),
        average_precision_high_ppm=ppm(high),
        shuffled_ap_ppm=ppm(shuffled.observed),
        prevalence_ppm=ppm(parts.test.labels.mean()),
        checks=tuple((check.name, check.ok) for check in checks),
        notes=(*notes, *_notes(request, parts, low, high)),
    )
    return summary, checks


def _measure(request: TrainRequest, parts: Split, scores: Scores) -> Metrics:
    test = parts.test
    return metrics.measure(test.labels, scores, test.accounts, test.times_us, request.alert_budget_per_day)


def _ap(figures: Metrics) -> int:
    return figures.average_precision_ppm or 0


def _checks(
    request: TrainRequest, parts: Split, ap_ppm: int, floor_ppm: int, shuffled: leakage.Shuffled
) -> list[Check]:
    ordered, order_can_fail = leakage.time_order(parts, request.split.delay_us)
    seen, limit = f"{shuffled.observed:.4f}", f"at most {shuffled.limit:.4f}"
    return [
        Check("ap_reaches_floor", f"{ap_ppm} ppm", f"at least {floor_ppm} ppm", ap_ppm >= floor_ppm),
        Check("shuffled_labels_teach_nothing", seen, limit, shuffled.clean),
        Check(
            "shuffle_check_can_fail", f"{shuffled.poisoned:.4f}", f"over {shuffled.limit:.4f}", shuffled.able_to_fail
        ),
        Check("test_follows_train", str(ordered), f"by {request.split.delay_us // 1_000_000} s", ordered),
        Check("time_check_can_fail", str(order_can_fail), "True", order_can_fail),
    ]


def _notes(request: TrainRequest, parts: Split, low: float, high: float) -> tuple[str, ...]:
    notes = []
    if high - low > _WIDE_BAND:
        frauds = parts.test.frauds
        notes.append(f"the test window holds {frauds} frauds: AP is known within {low:.2f}..{high:.2f} (95 %) only")
    if len(parts.between.labels) < ENOUGH_BETWEEN:
        notes.append("too few payments between train and test: thresholds were set on the train window")
    if request.active is None:
        notes.append("no active bundle: the floor is that of the baseline alone")
    return tuple(notes)
