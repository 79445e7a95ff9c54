"""Which rows teach, which set thresholds, which examine: by time only. Pure."""

from dataclasses import dataclass

import numpy as np

from fp_contracts.bundle import PPM, Floors, SplitRule, TimeBounds
from fp_mf.errors import fail
from fp_mf.table import Table


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of each window. `between` lies after `train` and before `test`: its labels are not used."""

    bounds: TimeBounds
    train: Table
    between: Table
    test: Table


def bounds_of(rule: SplitRule, times_us: np.ndarray) -> TimeBounds:
    """The windows that the rule gives for these event times (µs); Blocked B14 when they do not fit."""
    if rule.bounds is not None:
        if rule.bounds.test_start_us - rule.bounds.train_end_us < rule.delay_us:
            fail("the windows leave less than the label delay between train and test")
        return rule.bounds
    first, end = int(times_us.min()), int(times_us.max()) + 1
    test_start = end - (end - first) * rule.test_share_ppm // PPM
    train_end = test_start - rule.delay_us
    if not first < train_end <= test_start < end:
        fail(f"{(end - first) // 1_000_000} s of payments leave no train window before the label delay")
    return TimeBounds(train_start_us=first, train_end_us=train_end, test_start_us=test_start, test_end_us=end)


def split(table: Table, rule: SplitRule, floors: Floors) -> Split:
    """The windows of the rule; Blocked B14 when a window has fewer frauds than the floors ask for."""
    bounds, times = bounds_of(rule, table.times_us), table.times_us
    train = table.where((times >= bounds.train_start_us) & (times < bounds.train_end_us))
    between = table.where((times >= bounds.train_end_us) & (times < bounds.test_start_us))
    test = table.where((times >= bounds.test_start_us) & (times < bounds.test_end_us))
    for name, part, floor in (("train", train, floors.min_train_frauds), ("test", test, floors.min_test_frauds)):
        if part.frauds < floor:
            fail(f"the {name} window has {part.frauds} frauds in {len(part.labels)} rows, the floor is {floor}")
        if part.frauds == len(part.labels):
            fail(f"the {name} window has frauds only")
    return Split(bounds, train, between, test)
