"""Our bytes of a fetch are those of aiokafka's schemas, both ways."""

import struct

import pytest
from aiokafka.protocol.fetch import FetchRequest_v4, FetchResponse_v4
from hypothesis import given
from hypothesis import strategies as st

from fp_runtime import kafka_wire

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
int32s, int64s = st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)
places = st.dictionaries(st.tuples(names, int32s), int64s, max_size=12)
partitions = st.tuples(
    int32s, st.integers(-1, 80), int64s, int64s,
    st.none() | st.lists(st.tuples(int64s, int64s), max_size=3), st.binary(max_size=40),
)  # fmt: skip
topics = st.lists(st.tuples(names, st.lists(partitions, max_size=4)), max_size=4)


@given(int32s, names, places, int32s, int32s, int32s)
def test_a_request_is_the_schemas(
    number: int, client: str, asked: dict[tuple[str, int], int], wait_ms: int, least: int, most: int
) -> None:
    wanted: dict[str, list[tuple[int, int, int]]] = {}
    for (topic, partition), offset in asked.items():
        wanted.setdefault(topic, []).append((partition, offset, most))
    theirs = FetchRequest_v4(-1, wait_ms, least, most, 0, list(wanted.items()))
    message = theirs.build_request_header(number, client).encode() + theirs.encode()
    ours = kafka_wire.request(number, client, asked, wait_ms, least, most)
    assert ours == len(message).to_bytes(4, "big") + message


@given(topics)
def test_a_response_is_read_as_the_schemas_write_it(told: list[tuple[str, list[tuple[int, ...]]]]) -> None:
    frame = FetchResponse_v4(0, told).encode()
    expected = [(topic, one[0], one[1], one[5]) for topic, found in told for one in found]
    assert list(kafka_wire.response(frame)) == expected


def test_a_response_that_ends_early_is_refused_wherever_it_ends() -> None:
    frame = FetchResponse_v4(0, [("t", [(1, 0, 5, 5, [], b"abcdef")])]).encode()
    for size in range(len(frame)):
        with pytest.raises(struct.error):
            list(kafka_wire.response(frame[:size]))
