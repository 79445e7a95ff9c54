"""The digest of what an archive object says: any cut gives the same one, any change another."""

import hashlib
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.archived import ContentDigest, Said, streams

PARTS = st.none() | st.binary(max_size=4)
RECORDS = st.lists(st.tuples(st.integers(0, 2**63 - 1), PARTS, PARTS, PARTS, PARTS), max_size=12)
SAMPLE: list[Said] = [(5, b"k", b"h", b"v", None), (6, None, b"", b"", b"t"), (7, b"", b"h", b"x", b"")]


def digest_of(records: Sequence[Said]) -> str:
    digest = ContentDigest()
    for record in records:
        digest.take(record)
    return digest.hexdigest()


@given(RECORDS, st.data())
def test_any_cut_into_pieces_gives_the_same_digest(records: list[Said], data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.integers(0, len(records)), max_size=4).map(sorted))
    digest = ContentDigest()
    for first, end in zip([0, *ends], [*ends, len(records)], strict=True):
        piece = records[first:end]
        if piece and data.draw(st.booleans()):
            offsets, *columns = zip(*piece, strict=True)
            digest.add(streams(offsets, columns))
        else:
            for record in piece:
                digest.take(record)
        if data.draw(st.booleans()):
            digest.hexdigest()  # asked on the way, it changes nothing
    assert digest.hexdigest() == digest_of(records)


@given(RECORDS, RECORDS)
def test_other_records_have_another_digest(one: list[Said], other: list[Said]) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)


@given(RECORDS.filter(bool), st.data())
def test_every_single_change_gives_another_digest(records: list[Said], data: st.DataObject) -> None:
    at, column = data.draw(st.integers(0, len(records) - 1)), data.draw(st.integers(0, 4))
    values = list(records[at])
    values[column] = data.draw(
        (PARTS if column else st.integers(0, 2**63 - 1)).filter(lambda new: new != values[column])
    )
    changed = [*records[:at], tuple(values), *records[at + 1 :]]
    assert digest_of(changed) != digest_of(records)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [
    SAMPLE[:2], [SAMPLE[1], SAMPLE[0], SAMPLE[2]],
    [*SAMPLE[:2], (7, None, b"h", b"x", b"")],  # absent is not empty
    [*SAMPLE[:2], (7, b"h", b"", b"x", b"")],  # from one column to the next
    [(5, b"", b"h", b"v", None), (6, b"k", b"", b"", b"t"), SAMPLE[2]],  # from one record to the next
    [SAMPLE[0], (6, None, b"", b"x", b"t"), (7, b"", b"h", b"", b"")],
])  # fmt: skip
def test_the_digest_tells_what_moved(change: list[Said]) -> None:
    assert digest_of(change) != digest_of(SAMPLE)


def test_the_definition_is_the_recorded_one() -> None:
    pairs = [((1, -1, 0), b"k"), ((1, 0, 1), b"hh"), ((1, 0, 1), b"vx"), ((-1, 1, 0), b"t")]
    parts = [struct.pack("<3q", 5, 6, 7)]
    for lengths, values in pairs:
        parts += [struct.pack("<3i", *lengths), values]
    expected = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    assert digest_of(SAMPLE) == expected == "e74ad79b99e136d728bf1eccd453ecb214631d81c1d44608f4460aa4fae6dbac"


def test_more_records_than_are_hashed_at_once() -> None:
    many: list[Said] = [(at, b"%d" % at, b"h", b"v" * (at % 7), None) for at in range(1_000)]
    digest = ContentDigest()
    offsets, *columns = zip(*many, strict=True)
    digest.add(streams(offsets, columns))
    assert digest.hexdigest() == digest_of(many) != digest_of(many[:-1])
