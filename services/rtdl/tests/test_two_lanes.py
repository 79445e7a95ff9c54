"""A run of two lanes: the same payments give the same snapshots, each once, on as many partitions."""

import random

from fp_contracts import topics
from fp_contracts.header import unpack
from fp_rtdl import sample
from fp_rtdl.lane import Lane
from fp_runtime.memory import MemoryBus

END_US = sample.START_US + 200_000_000


def snapshots(pinned: dict[str, topics.Topic]) -> tuple[set[bytes], set[int], set[str]]:
    """(hashes, partitions, sources) of the snapshots of one small world."""
    rng, feed, bus = random.Random(5), sample.Feed(pinned=pinned), MemoryBus(pinned)
    payments = [
        sample.Payment(n, sample.START_US + 1_000_000 + n * 1_000_000, f"m-{n % 11}", f"acc-{rng.randrange(30)}", n + 1)
        for n in range(120)
    ]
    bus.create(pinned)
    bus.producer().publish(sample.world(feed, payments, END_US))
    plan, outs = sample.plan(END_US, pinned=pinned), []
    for part in range(plan.lanes):
        lane = Lane(plan, part)
        for topic in lane.starts():
            place = (topic, lane.place(topic))
            for record in bus.read(place, 0, bus.span(place)[1]):
                lane.take(record)
        outs += lane.advance()
    headers = [unpack(out.header) for out in outs]
    assert len(outs) == len(payments)
    return {h.payload_hash for h in headers}, {out.partition for out in outs}, {h.source for h in headers}


def test_the_number_of_lanes_changes_where_a_snapshot_lies_and_not_what_it_says() -> None:
    two, six = snapshots(dict(topics.pinned("local"))), snapshots(dict(topics.pinned("kind")))
    assert two[0] == six[0]
    assert (two[1], two[2]) == ({0, 1}, {"rtdl:0", "rtdl:1"})
    assert (six[1], six[2]) == (set(range(6)), {f"rtdl:{part}" for part in range(6)})
