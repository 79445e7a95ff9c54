"""A merge that is held at one switch has passed those before it, in partitions without traffic too."""

from pathlib import Path
from typing import Any

from fp_df import sample
from fp_df.domain import Switch

from .learning import T1, make


def test_a_hold_keeps_no_earlier_switch_back_where_nothing_is_decided(kit: Any, tmp_path: Path) -> None:
    policy_us = T1 - 10_000_000
    feed = sample.Feed()
    lines = [feed.snapshot(0, sample.START_US, "acc-1"), *feed.marks(T1)]
    learning = make(kit, tmp_path, later=(Switch(policy_us, kit.older),), lines=lines)
    learning.world.announced.add(policy_us)
    decider = learning.run()
    assert {part.horizon_us() for part in decider.partitions.values()} == {T1}
    passed = {part: partition.switched for part, partition in decider.partitions.items()}
    assert {part: set(found) for part, found in passed.items()} == {part: {1} for part in passed}
    assert sum(found[1] for found in passed.values()) == 1
