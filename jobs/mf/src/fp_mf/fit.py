"""Fitting, from a matrix and labels to the bytes of a model. The same input gives the same bytes."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fp_contracts.bundle import Boosting
from fp_mf.progress import Progress, silent
from fp_models.boosted import OBJECTIVE, xgboost
from fp_models.logistic import LogisticModel, standardised

FEW_FRAUDS, MANY_FRAUDS, MANY_ROWS = 500, 2_000, 200_000
_LOGISTIC_ITERATIONS = 2_000
Curve = dict[str, list[float]]


def boosting_for(rows: int, frauds: int, asked: Boosting | None = None) -> Boosting:
    """The hyperparameters asked for, else by the train window's rows and frauds.

    Few frauds (< 500): shallow trees that no single fraud can shape. More: what was best on handbook weeks before its
    published folds (bench/handbook/choice.py), from 2,000 frauds on twice the trees and less damping. Many rows
    (> 200,000): binned splits, since exact ones take minutes.
    """
    if asked is not None:
        return asked
    if frauds < FEW_FRAUDS:
        return Boosting(trees=100, max_depth=3, eta_milli=100, min_child_weight_milli=2_000, lambda_milli=2_000)
    return Boosting(
        method="hist" if rows > MANY_ROWS else "exact",
        trees=200 if frauds >= MANY_FRAUDS else 100,
        max_depth=6,
        eta_milli=100,
        min_child_weight_milli=5_000,
        lambda_milli=1_000 if frauds >= MANY_FRAUDS else 10_000,
    )


def fit_logistic(features: np.ndarray, labels: np.ndarray) -> bytes:
    """The baseline: standardised and clipped columns, L2, natural prevalence. One thread, since sums depend on it."""
    shift, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0.0] = 1.0
    columns = np.column_stack(standardised(features, shift.tolist(), scale.tolist()))
    with threadpool_limits(limits=1):
        fitted = LogisticRegression(C=1.0, max_iter=_LOGISTIC_ITERATIONS, tol=1e-6).fit(columns, labels)
    weights, bias = fitted.coef_[0].tolist(), float(fitted.intercept_[0])
    return LogisticModel(tuple(shift.tolist()), tuple(scale.tolist()), tuple(weights), bias).to_bytes()


def fit_boosted(
    features: np.ndarray, labels: np.ndarray, settings: Boosting, seed: int, threads: int = 2,
    progress: Progress = silent, watch: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[bytes, Curve]:  # fmt: skip
    """Trees from a base score of 0.5, by exact splits unless asked: what reproduces the handbook's figures.

    `watch`: rows and labels whose average precision is noted after each tree, for the picture alone. The number of
    threads changes no bit of the result.
    """
    library = xgboost()
    matrix = library.DMatrix(features, labels, nthread=threads)
    watched = [(matrix, "train")]
    if watch is not None:
        watched.append((library.DMatrix(*watch, nthread=threads), "test"))
    curve: dict[str, dict[str, list[float]]] = {}
    booster = library.train(
        _parameters(settings, seed, threads), matrix, settings.trees,
        evals=watched if watch is not None else (), evals_result=curve, verbose_eval=False,
        callbacks=[_reporter(library, progress, settings.trees)],
    )  # fmt: skip
    return bytes(booster.save_raw("ubj")), {name: values["aucpr"] for name, values in curve.items()}


def _parameters(settings: Boosting, seed: int, threads: int) -> dict[str, Any]:
    return {
        "objective": OBJECTIVE,
        "eval_metric": "aucpr",
        "tree_method": settings.method,
        "base_score": 0.5,
        "max_depth": settings.max_depth,
        "eta": settings.eta_milli / 1_000,
        "min_child_weight": settings.min_child_weight_milli / 1_000,
        "lambda": settings.lambda_milli / 1_000,
        "seed": seed,
        "nthread": threads,
    }


def _reporter(library: Any, progress: Progress, total: int) -> Any:
    class Reporter(library.callback.TrainingCallback):  # type: ignore[misc]  # imported at first use
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress("fit", epoch + 1, total)
            return False

    return Reporter()
