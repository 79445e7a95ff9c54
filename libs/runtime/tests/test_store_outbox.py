from random import Random

import lz4.block  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_runtime.bus import Delivery, Out, PublishError
from fp_runtime.outbox import Fact, Published, Queued, acknowledged, merge, packed, stored, unpacked

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


contents = st.tuples(st.binary(max_size=20), st.binary(max_size=20), st.none() | st.binary(max_size=20), st.binary())


@given(st.lists(contents, max_size=20))
def test_a_pack_gives_back_what_it_was_given(items: list[tuple[bytes, bytes, bytes | None, bytes]]) -> None:
    assert unpacked(packed(items)) == items


def test_a_pack_is_what_its_table_says_it_is() -> None:
    body = packed([(b"key", b"head", None, b"value")])
    assert msgspec.msgpack.decode(lz4.block.decompress(body)) == [[b"key", b"head", None, b"value"]]


@pytest.mark.parametrize(
    ("seqs", "rows"),
    [([1, 2, 3], 1), ([7, 8], 1), ([2, 1], 2), ([1, 3], 2), ([1, 1], 2), ([0, 1], 1)],
    ids=["from the beginning", "further on", "out of order", "one missing", "one twice", "none before"],
)
def test_a_chain_is_one_row_up_to_a_break(seqs: list[int], rows: int) -> None:
    (step,) = stored("run", [Queued("df-0", seq, Out("t", 0, b"", b"", b"")) for seq in seqs])
    assert step.values[4][12:16] == rows.to_bytes(4, "big")  # the length of the array of first sequences


def test_chains_may_come_in_any_mixture() -> None:
    places = [(source, topic, part) for source in ("df-0", "df-1") for topic in "tu" for part in (0, 1)]
    mixed = [
        Queued(source, seq, Out(topic, part, b"", b"", b"")) for seq in (1, 2, 3) for source, topic, part in places
    ]
    (step,) = stored("run", mixed)
    assert step.values[4][12:16] == len(places).to_bytes(4, "big")
