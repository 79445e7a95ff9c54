"""A wave reaches df in pieces, one per member of rtdl: committed once, and nobody waits for what does not come."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fp_contracts import topics
from fp_contracts.header import unpack
from fp_df import sample, service
from fp_df.service import Decider
from fp_runtime.bus import Consumer, Out, Record, TopicPartition


class Drip:
    """A consumer before whose polls pieces of a wave arrive; each poll takes 4 ms."""

    def __init__(self, world: Any, inner: Consumer) -> None:
        self.world, self.inner = world, inner
        self.pieces: list[Sequence[Out]] = []
        self.polls = 0

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        self.polls += 1
        self.world.now += 0.004
        if self.pieces:
            self.world.write(self.pieces.pop(0))
        return self.inner.poll(max_records, timeout_s)

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        self.inner.assign(starts)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.inner.commit(offsets)


Started = tuple[Any, Decider, Drip, sample.Feed]


@pytest.fixture
def started(kit: Any, monkeypatch: pytest.MonkeyPatch) -> Started:
    """A decider that has committed a first wave up to second 12, and reads what drips."""
    feed = sample.Feed()
    lines = [*_payments(feed, range(12)), *feed.marks(_at(12))]
    world = kit.world(lines=lines)
    drip = Drip(world, world.bus.consumer("df"))
    monkeypatch.setattr(world.bus, "consumer", lambda _: drip)
    decider = world.decider()
    decider.turn()
    assert (len(world.tables.decisions), world.tables.commits) == (12, 1)
    drip.polls = 0
    return world, decider, drip, feed


def _at(second: int) -> int:
    return sample.START_US + second * 1_000_000


def _payments(feed: sample.Feed, numbers: range) -> list[Out]:
    return [feed.snapshot(number, _at(number), f"acc-{number % 5}") for number in numbers]


def _of(marks: Sequence[Out], *lanes: int) -> list[Out]:
    sources = {f"rtdl:{lane}" for lane in lanes}
    return [mark for mark in marks if unpack(mark.header).source in sources]


def test_the_pieces_of_a_wave_are_committed_together(started: Started) -> None:
    world, decider, drip, feed = started
    payments, marks = _payments(feed, range(12, 24)), feed.marks(_at(24))
    drip.pieces = [[*payments, *_of(marks, 0, 1, 2)], _of(marks, 3, 4, 5)]
    decider.turn()
    assert (len(world.tables.decisions), world.tables.commits, drip.polls) == (24, 2, 2)


def test_a_whole_wave_is_not_held_up(started: Started) -> None:
    world, decider, drip, feed = started
    drip.pieces = [[*_payments(feed, range(12, 24)), *feed.marks(_at(24))]]
    decider.turn()
    assert (len(world.tables.decisions), drip.polls) == (24, 1)


@pytest.mark.parametrize("chatter", [False, True])
def test_nobody_waits_longer_for_the_rest_of_a_wave(started: Started, chatter: bool) -> None:
    """Neither when nothing more comes nor when one lane goes on talking."""
    world, decider, drip, feed = started
    payments = _payments(feed, range(12, 24))
    drip.pieces = [[*payments, *_of(feed.marks(_at(24)), 0, 1, 2)]]
    if chatter:
        drip.pieces += [_of(feed.marks(_at(24) + more), 0) for more in range(1, 50)]
    decider.turn()
    assert 12 < len(world.tables.decisions) < 24
    assert drip.polls <= 2 + service.GATHER_S / 0.004


def test_a_full_batch_is_committed_before_more_is_read(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    world, decider, drip, feed = started
    monkeypatch.setattr(service, "BATCH", 1)
    payments, marks = _payments(feed, range(12, 24)), feed.marks(_at(24))
    drip.pieces = [[*payments, *_of(marks, 0, 1, 2)]]
    decider.turn()
    assert (drip.polls, world.tables.commits) == (1, 2)


def test_what_was_said_before_the_commit_is_no_news(started: Started) -> None:
    """All lanes rose for the first wave; for the second one only those that spoke again did."""
    world, decider, _drip, feed = started
    partition = next(one for one in decider.partitions.values())
    assert not partition.all_rose()
    world.write([mark for mark in feed.marks(_at(13)) if mark.partition == partition.part])
    for record in world.bus.read((topics.RTDL, partition.part), *world.bus.span((topics.RTDL, partition.part))):
        partition.take(record)
    assert partition.all_rose()
