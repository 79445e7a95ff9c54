"""The handbook's four folds, trained on features that went through the whole platform; one table beside the book's.

    python -m bench.handbook --data FOLDER [--keep FOLDER] [--days N] [--no-long] [--choose]

Imports 2018-06-18 to 2018-09-04 as a world (757 k payments, 3.8 M events), runs it on an embedded stack of its own to
the spine verdict, reads snapshots, decisions and labels back from that run's archive and label store, compares them
with the published features, builds the dataset by the dataset job, trains. A longer train window than that slice holds
is trained on features that one process streams from the whole set. Progress on stderr, the table (markdown) on stdout.
Exit code 1 when a bar is missed: AP ≥ 0.687 and CP@100 ≥ 0.303 over four folds, AP ≥ 0.715 with a longer train window,
parity, equations, dataset. `--keep`: work there and leave everything; what it already holds of an earlier pass is not
done again (wrong after a change of code). `--days`: only the first days of the slice, nothing is trained. `--choose`:
only compare the candidates (trees of the 7 days, trees and days of the longer window) on weeks before the published.
"""

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np

from bench.handbook import choice, folds, report, span, whole
from bench.handbook.bars import Bar, at_least, told
from bench.handbook.folds import Fold
from bench.handbook.platform import streamed_by_platform
from bench.handbook.report import Result
from bench.handbook.streamed import Cost, Streamed
from bench.handbook.telling import tell
from fp_contracts.bundle import Boosting
from fp_mf.fit import boosting_for, fit_boosted, fit_logistic
from fp_models.model import Model, open_model, score

BATCHES = (1, 10, 100)
BAR_AP, BAR_CP, BAR_LONG_AP = 0.687, 0.303, 0.715
_TIMED_S = 2.0


Fit = Callable[[np.ndarray, np.ndarray], Model]


def boosted(features: np.ndarray, labels: np.ndarray, asked: Boosting | None = None) -> Model:
    """The candidate as jobs/mf fits it."""
    settings = boosting_for(len(labels), int(labels.sum()), asked)
    return open_model("xgboost", fit_boosted(features, labels, settings, 7)[0])


def logistic(features: np.ndarray, labels: np.ndarray) -> Model:
    """The baseline as jobs/mf fits it."""
    return open_model("logistic", fit_logistic(features, labels))


def examine(name: str, data: Streamed, chosen: Sequence[Fold], fit: Fit) -> tuple[Result, Model]:
    """Train on what was known, score and judge every fold by the truth."""
    found, spent_s, model = [], 0.0, None
    for number, (train, test, labels) in enumerate(chosen, 1):
        began = time.process_time()
        model = fit(data.vectors[train], labels[train])
        spent_s += time.process_time() - began
        found.append(folds.figures(data, test, score(model, data.vectors[test])))
        tell(f"{name}: fold {number} of {len(chosen)}, AP {found[-1].ap:.3f}, CP@100 {found[-1].cp:.3f}")
    assert model is not None
    return Result(name, folds.mean(found), tuple(one.ap for one in found), spent_s / len(chosen)), model


def scoring_us(model: Model, vectors: np.ndarray) -> dict[int, float]:
    """CPU µs per payment of the scorer that df uses, by batch size."""
    found = {}
    for size in BATCHES:
        calls, began = 0, time.process_time()
        while time.process_time() - began < _TIMED_S:
            at = calls * size % (len(vectors) - size)
            score(model, vectors[at : at + size])
            calls += 1
        found[size] = (time.process_time() - began) / calls / size * 1e6
    return found


def choose(data: Streamed) -> int:
    """Compare the candidates by AP on the validation weeks."""
    for one in (*choice.WEEK_CANDIDATES, *choice.CANDIDATES):
        found, _ = examine(one.told(), data, list(choice.validation(data, one)), partial(boosted, asked=one.trees))
        mark = ", chosen" if one in (choice.WEEK_CHOSEN, choice.CHOSEN) else ""
        print(f"{one.told()}{mark}: AP {found.mean.ap:.4f}, CP@100 {found.mean.cp:.4f}", flush=True)
    return 0


def published(data: Streamed) -> tuple[list[Result], Model, list[Bar]]:
    """The four published folds, and the longest train window that the slice itself holds; the bars of the folds."""
    week = [folds.fold(data, start) for start in folds.STARTS]
    baseline, _ = examine("logistic, 7 days", data, week, logistic)
    asked = choice.WEEK_CHOSEN
    candidate, model = examine(f"XGBoost, {asked.told()}", data, week, partial(boosted, asked=asked.trees))
    days = (folds.STARTS[0] - span.PUBLISHED.first).days + folds.WEEK
    longest = [folds.fold(data, start, days) for start in folds.STARTS]
    inside = choice.Candidate(days, choice.CHOSEN.trees)
    longer_inside, _ = examine(f"XGBoost, {inside.told()}", data, longest, partial(boosted, asked=inside.trees))
    mean = candidate.mean
    bars = [at_least("AP", mean.ap, BAR_AP), at_least("CP@100", mean.cp, BAR_CP)]
    return [baseline, candidate, longer_inside], model, bars


def longer(data: Streamed) -> tuple[Result, Bar]:
    """The published folds with the chosen longer window, and its bar."""
    asked = choice.CHOSEN
    chosen = [folds.fold(data, start, asked.days) for start in folds.STARTS]
    name = f"XGBoost, {asked.told()}; features streamed in one process"
    found, _ = examine(name, data, chosen, partial(boosted, asked=asked.trees))
    return found, at_least("AP with a longer window", found.mean.ap, BAR_LONG_AP)


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Stream what is not yet there, train, print; the exit code."""
    began = time.monotonic()
    if arguments.choose:
        whole.make(arguments.data, folder)
        return choose(whole.load(folder))
    chosen = span.short(arguments.days) if arguments.days else span.PUBLISHED
    with whole.beside(arguments.data, folder, not (arguments.days or arguments.no_long)) as pending:
        platform, data = streamed_by_platform(arguments.data, chosen, folder)
        lines, bars = report.platform(platform), list(platform.bars())
        if not arguments.days:
            trained, more = _trained(folder, data, pending)
            lines, bars = [*trained, *lines], [*more, *bars]
    lines += told(bars)
    print("\n".join(lines), flush=True)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(f"- This process: {peak_mb:,.0f} MB at its peak; {(time.monotonic() - began) / 60:.1f} minutes in all.")
    return 0 if all(bar.ok for bar in bars) else 1


def _trained(
    folder: Path, data: Streamed, pending: "Future[Cost] | None"
) -> tuple[list[str], list[Bar]]:  # fmt: skip
    results, model, bars = published(data)
    costs = report.scoring(scoring_us(model, data.vectors[folds.fold(data, folds.STARTS[0]).test]))
    if pending is not None:
        cost = pending.result()
        found, bar = longer(whole.load(folder))
        results.append(found)
        costs = [*report.one_process(cost), *costs]
        bars += [bar, Bar("parity of the whole set", f"{cost.rows_differing} differ", cost.parity_passed)]
    return [*report.models(results), "", *costs], bars


def main() -> int:
    """Read the arguments and run; the folder goes unless it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="transactions.parquet and features_golden.parquet")
    parser.add_argument("--keep", type=Path, default=None, help="state folder that stays (a short path)")
    parser.add_argument("--days", type=int, default=0, help="only the first days of the slice, to try the way")
    parser.add_argument("--no-long", action="store_true", help="leave out the longer train window")
    parser.add_argument("--choose", action="store_true", help="only compare candidates on weeks before the published")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack is stopped and the folder goes
    if arguments.keep is not None:
        folder = arguments.keep.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return run(arguments, folder)
    with tempfile.TemporaryDirectory(prefix="fp-handbook-") as scratch:
        return run(arguments, Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
