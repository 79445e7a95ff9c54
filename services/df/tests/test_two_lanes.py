"""What df takes from the header of a run of two lanes."""

from collections.abc import Callable

from fp_contracts import topics
from fp_contracts.header import Kind
from fp_contracts.runconfig import RunHeader
from fp_df import sample
from fp_df.catalogue import policies
from fp_df.marks import Truth
from fp_df.partition import Partition
from fp_df.plan import plan_of
from fp_df.records import RecordWriter
from fp_runtime.memory import MemoryBus

LOCAL = topics.pinned("local")


def test_a_plan_has_the_partitions_of_its_run(run_header: Callable[..., RunHeader]) -> None:
    header = run_header({rev: digest for rev, (_, digest) in policies().items()})
    starts = {name: {str(part): 0 for part in range(topic.partitions)} for name, topic in LOCAL.items()}
    plan = plan_of(header.model_copy(update={"start_offsets": starts}), policies())
    assert [plan.owned("df", 0), plan.owned("actions", 0)] == [(0, 1), (0, 1)]
    assert [key.source for key in plan.inputs()] == ["rtdl:0", "rtdl:1"]
    assert plan.partitions == {topics.RTDL: 2, topics.AUDIT: 1, topics.CASE_TRIGGERS: 1}
    writer = RecordWriter(plan.pins, "df:0", plan.partitions)
    for kind, most in ((Kind.DECISION, 2), (Kind.AUDIT_RECORD, 1), (Kind.CASE_TRIGGER, 1)):
        places = {writer.write(kind, "e", f"acc-{n}", 1, "{}", None).out.partition for n in range(50)}
        assert places == set(range(most))


def test_two_sources_are_merged_and_decided_on_two_partitions() -> None:
    plan, bus, end_us = sample.plan(policies()["spine-v1"][0], pinned=LOCAL), MemoryBus(LOCAL), sample.START_US + 10**9
    bus.create(LOCAL)
    bus.producer().publish(list(sample.world(sample.Feed(parts=2), 80, end_us)))
    decided = 0
    for part in plan.owned("df", 0):
        partition = Partition(plan, part, Truth(), None, {})
        for record in bus.read((topics.RTDL, part), *bus.span((topics.RTDL, part))):
            partition.take(record)
        while partition.advance(1_000, None):
            pass
        batch = partition.drain()
        assert batch is not None
        assert batch.truth.horizon_us >= end_us
        decided += len(batch.rows)
    assert decided == 80
