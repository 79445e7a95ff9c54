from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fp_runtime.bus import Delivery, Out, PublishError
from fp_runtime.outbox import Fact, Published, Queued, acknowledged, merge

published = st.builds(
    Published,
    source=st.sampled_from(["df-0", "df-1"]),
    topic=st.sampled_from(["fp.bus.rtdl.v1", "fp.bus.audit.v1"]),
    partition=st.integers(0, 1),
    seq=st.integers(1, 12),
    offset=st.integers(0, 14),
)


def expand(facts: list[Fact]) -> list[Published]:
    return [
        Published(f.source, f.topic, f.partition, f.first_seq + i, f.first_offset + i)
        for f in facts
        for i in range(f.n)
    ]


@given(st.lists(published, max_size=40))
def test_facts_say_exactly_what_was_acknowledged(items: list[Published]) -> None:
    assert sorted(expand(merge(items))) == sorted(set(items))


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 50), st.randoms())
def test_a_run_without_breaks_is_one_fact(seq: int, offset: int, n: int, random: Random) -> None:
    items = [Published("df-0", "t", 0, seq + i, offset + i) for i in range(n)]
    random.shuffle(items)
    assert merge(items) == [Fact("df-0", "t", 0, seq, offset, n)]


def test_a_watermark_between_breaks_the_range() -> None:
    items = [Published("df-0", "t", 0, 1, 10), Published("df-0", "t", 0, 2, 12)]
    assert merge(items) == [Fact("df-0", "t", 0, 1, 10, 1), Fact("df-0", "t", 0, 2, 12, 1)]


def test_only_a_delivery_with_an_offset_is_acknowledged() -> None:
    rows = [Queued("df-0", seq, Out("t", 0, b"k", b"v", b"h")) for seq in (1, 2, 3)]
    deliveries = [Delivery(7), Delivery(None, PublishError.UNKNOWN), Delivery(None, PublishError.FAILED)]
    assert acknowledged(rows, deliveries) == [Published("df-0", "t", 0, 1, 7)]
