"""Counting and hashing what lies on the topics."""

import hashlib
import struct

from fp_contracts import topics
from fp_contracts.header import Header, Kind, pack
from fp_contracts.ids import run_tag
from fp_verdict.buscount import ArchiveObject, BusCount, holes

TAG = run_tag("platform_20260101T000000Z")


def header(seq: int, kind: Kind = Kind.LABEL_ASSERTION, tag: bytes = TAG) -> bytes:
    return pack(Header(kind, tag, "ls", seq, 1))


def item(first: int, upto: int, digest: str = "x") -> ArchiveObject:
    return ArchiveObject(topics.LABELS, 0, first, upto, f"k{first}", "s", 1, upto - first, digest)


def framed(offset: int, head: bytes) -> bytes:
    return struct.pack(">qiiii", offset, 1, len(head), 1, -1) + b"k" + head + b"v"


def test_repeats_strangers_and_watermarks_do_not_count() -> None:
    count = BusCount(TAG, [])
    heads = (header(1), header(1), header(2), header(3, tag=b"x" * 8), header(0, Kind.WATERMARK), b"junk")
    for offset, head in enumerate(heads):
        count.take(topics.LABELS, 0, offset, b"k", head, b"v", None)
    assert count.counts()["labels"] == 2


def test_an_object_must_say_what_the_topic_holds() -> None:
    digest = hashlib.sha256(framed(0, header(1)) + framed(1, header(2))).hexdigest()
    count = BusCount(TAG, [item(0, 2, digest), item(2, 3, digest)])
    for offset in range(3):
        count.take(topics.LABELS, 0, offset, b"k", header(offset + 1), b"v", None)
    assert count.mismatches() == ["k2: not what the topic holds"]


def test_holes_are_found_and_what_lies_beyond_the_end_is_none() -> None:
    place = (topics.LABELS, 0)
    assert holes([item(0, 2), item(2, 5)], {place: 0}, {place: 4}) == []
    assert holes([item(0, 2), item(3, 4)], {place: 0}, {place: 4}) == [f"{topics.LABELS}[0]: 2 to 3"]
    assert holes([item(0, 2)], {place: 0}, {place: 4}) == [f"{topics.LABELS}[0]: 2 to 4"]
    assert holes([], {place: 0}, {place: 0}) == []
