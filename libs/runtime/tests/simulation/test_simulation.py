"""The rules hold: same outputs for all interleavings, members, batch sizes and kills.

FP_SIM_SEEDS=2000 makes a long run of it.
"""

import os

import pytest

from .checks import bytes_of, check
from .expect import expect
from .kernel import Plan, random_plan
from .run import simulate
from .world import build

SEEDS = int(os.environ.get("FP_SIM_SEEDS", "40"))


@pytest.mark.parametrize("seed", range(4))
def test_a_quiet_run_gives_what_the_world_says(seed: int) -> None:
    world = build(seed)
    check(simulate(world, Plan(seed)), expect(world))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_schedule_and_any_faults_give_the_same(seed: int) -> None:
    world = build(seed)
    run = simulate(world, random_plan(seed))
    check(run, expect(world))


@pytest.mark.parametrize("seed", range(1000, 1000 + SEEDS // 8))
def test_one_world_under_other_plans_and_rerun_from_its_logs(seed: int) -> None:
    world = build(seed)
    wanted = expect(world)
    first = simulate(world, random_plan(seed))
    check(first, wanted)
    for other in (seed + 1, seed + 2):
        check(simulate(world, random_plan(other)), wanted)
        again = simulate(world, random_plan(other)._replace(faults=40), recorded=first)
        check(again, wanted)
        assert bytes_of(again) == bytes_of(first)


def test_the_worlds_hold_what_they_should() -> None:
    """Without disturbances, empty partitions and degraded snapshots the simulation would prove little."""
    worlds = [build(seed) for seed in range(SEEDS)]
    expected = [expect(world) for world in worlds]
    statuses = {snapshot["status"] for one in expected for snapshot in one.snapshots.values()}
    classes = {got for one in expected for got in one.classes.values()}
    assert statuses == {"READY", "DEGRADED"}
    assert classes == {"ADMITTED", "DUPLICATE", "QUARANTINED"}
    assert any(not lines for world in worlds for lines in world.lanes.values())
    assert any(line.event and line.order > line.event.ts for world in worlds for line in world.lanes["0"])
