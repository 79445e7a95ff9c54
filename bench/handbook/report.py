"""The table beside the book's, as markdown. Pure."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from bench.handbook import choice
from bench.handbook.folds import Figures
from bench.handbook.platform import Platform
from bench.handbook.streamed import Cost

BOOK = {
    "logistic regression": Figures(0.868, 0.623, 0.297),
    "XGBoost": Figures(0.869, 0.687, 0.303),
}
_MB, _GB = 1e6, 1e9


class Result(NamedTuple):
    """One line of the table: mean figures, AP of each fold, CPU seconds of one training."""

    name: str
    mean: Figures
    aps: tuple[float, ...]
    train_cpu_s: float


def models(results: Sequence[Result]) -> list[str]:
    """The table of models."""
    lines = ["| model | AUC | AP | CP@100 | AP by fold | one training, CPU s |", "|---|---|---|---|---|---|"]
    lines += [f"| book: {name} | {f.auc:.3f} | {f.ap:.3f} | {f.cp:.3f} | | |" for name, f in BOOK.items()]
    for one in results:
        aps = " ".join(f"{ap:.3f}" for ap in one.aps)
        f = one.mean
        lines.append(f"| {one.name} | {f.auc:.3f} | {f.ap:.3f} | {f.cp:.3f} | {aps} | {one.train_cpu_s:.1f} |")
    return lines


def platform(found: Platform) -> list[str]:
    """What the whole platform did of the slice."""
    compared, read = found.parity, found.found
    largest = sorted(found.programs.items(), key=lambda item: -item[1])[:5]
    told = ", ".join(f"{name} {size / _MB:,.0f}" for name, size in largest)
    lines = [
        f"- Through the whole platform: {found.payments:,} payments, {found.lines:,} lines, imported in"
        f" {found.import_s:.0f} s, streamed in {found.stream_s:.0f} s ({found.lines / max(found.stream_s, 1):,.0f}"
        f" lines/s), to the spine verdict in {found.verdict_s:.0f} s; all {found.equations} equations hold, spine"
        f" verdict {found.verdict} (nothing was killed, so no recovery is proven). Memory at its peak"
        f" {found.peak_bytes / _GB:.1f} GB in all; resident by process, MB: {told}.",
        f"- Read back from the archive: {read.snapshots:,} snapshots ({read.degraded} degraded), {read.decisions:,}"
        f" decisions; {read.labels:,} fraud labels, known at most {read.lag_days:.2f} days after their payments."
        f" Published features: {compared.differing} rows differ, {compared.tied} of them tied; compared are"
        f" {compared.whole:,} rows in all 14 columns (their windows lie wholly inside the stream), and"
        f" {min(compared.compared.values()):,} to {max(compared.compared.values()):,} by column: {compared.ok}.",
    ]  # fmt: skip
    lines += [
        f"- Dataset job, stage {one.stage}: {one.status}, {one.payments:,} payments to {one.rows:,} rows in"
        f" {one.wall_s:.0f} s ({one.payments / max(one.wall_s, 1e-9):,.0f} payments/s), CPU {one.cpu_s:.0f} s,"
        f" {one.peak_bytes / _MB:,.0f} MB at its peak."
        for one in found.dataset
    ]
    return lines


def one_process(cost: Cost) -> list[str]:
    """What the pass over the whole set did, for the longer window."""
    rate = 1e6 / cost.cpu_us_per_payment
    weeks = ", ".join(str(start + timedelta(days=14)) for start in choice.LONG)
    return [
        f"- The whole set in one process, for the longer window: {cost.rows:,} payments at"
        f" {cost.cpu_us_per_payment:.1f} µs CPU each ({rate:,.0f} rows/s and core); {cost.rows_differing} differ from"
        f" the published features, all in the same second on one card: {cost.parity_passed}. Window and trees were"
        f" chosen by AP on test weeks before every published week ({weeks}): `--choose` repeats that.",
    ]


def scoring(timed: dict[int, float]) -> list[str]:
    """What df's scorer takes."""
    told = ", ".join(f"{size}: {us:.1f}" for size, us in timed.items())
    return [f"- Scoring, CPU µs per payment by batch size: {told}."]
