"""Account states are saved partition by partition: no turn waits for all of them."""

from typing import Any

from fp_df import service


def test_partitions_are_saved_one_after_the_other_and_none_is_forgotten(kit: Any) -> None:
    lines, world = kit.lines(), kit.world(lines=[])
    decider, saved = world.decider(), dict[tuple[str, int], int]()
    for start in range(0, len(lines), 30):
        world.write(lines[start : start + 30])
        world.now += service.CHECKPOINT_S / 6
        decider.turn()
        before, saved = saved, {place: n for place, (n, _) in world.tables.progress.items() if place[0] == "df.state"}
        assert sum(before.get(place) != n for place, n in saved.items()) <= 1
    assert set(saved) == {("df.state", part) for part in range(6)}
