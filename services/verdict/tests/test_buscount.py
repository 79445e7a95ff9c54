"""Counting and hashing what lies on the topics."""

from collections.abc import Sequence

from fp_contracts import topics
from fp_contracts.archived import ContentDigest
from fp_contracts.header import Header, Kind, pack
from fp_contracts.ids import run_tag
from fp_verdict.buscount import ArchiveObject, BusCount, holes

TAG = run_tag("platform_20260101T000000Z")


def header(seq: int, kind: Kind = Kind.LABEL_ASSERTION, tag: bytes = TAG) -> bytes:
    return pack(Header(kind, tag, "ls", seq, 1))


def item(first: int, upto: int, digest: str = "x") -> ArchiveObject:
    return ArchiveObject(topics.LABELS, 0, first, upto, f"k{first}", "s", 1, upto - first, digest)


def digest_of(heads: Sequence[bytes], first: int = 0) -> str:
    digest = ContentDigest()
    for offset, head in enumerate(heads, first):
        digest.take((offset, b"k", head, b"v", None))
    return digest.hexdigest()


def test_repeats_strangers_and_watermarks_do_not_count() -> None:
    count = BusCount(TAG, [])
    heads = (header(1), header(1), header(2), header(3, tag=b"x" * 8), header(0, Kind.WATERMARK), b"junk")
    for offset, head in enumerate(heads):
        count.take(topics.LABELS, 0, offset, b"k", head, b"v", None)
    assert count.counts()["labels"] == 2


def test_an_object_must_say_what_the_topic_holds() -> None:
    heads = [header(seq) for seq in range(1, 6)]
    objects = [item(0, 2, digest_of(heads[:2])), item(2, 3, "x"), item(3, 4, digest_of(heads[3:4], 3)), item(9, 10)]
    count = BusCount(TAG, objects)
    for offset, head in enumerate(heads):
        count.take(topics.LABELS, 0, offset, b"k", head, b"v", None)
    assert count.mismatches() == [f"k{first}: not what the topic holds" for first in (2, 9)]


def test_holes_are_found_and_what_lies_beyond_the_end_is_none() -> None:
    place = (topics.LABELS, 0)
    assert holes([item(0, 2), item(2, 5)], {place: 0}, {place: 4}) == []
    assert holes([item(0, 2), item(3, 4)], {place: 0}, {place: 4}) == [f"{topics.LABELS}[0]: 2 to 3"]
    assert holes([item(0, 2)], {place: 0}, {place: 4}) == [f"{topics.LABELS}[0]: 2 to 4"]
    assert holes([], {place: 0}, {place: 0}) == []


def test_what_is_ordered_before_a_window_is_hashed_and_not_counted() -> None:
    heads = [
        pack(Header(kind, TAG, "s", seq, at))
        for seq, (kind, at) in enumerate(
            [(Kind.DECISION, 89), (Kind.DECISION, 90), (Kind.LABEL_ASSERTION, 95), (Kind.LABEL_ASSERTION, 100),
             (Kind.AUTH_REQUEST, 89), (Kind.AUTH_REQUEST, 90), (Kind.FLOW_ANCHOR, 91)], 1
        )
    ]  # fmt: skip
    count = BusCount(TAG, [item(0, len(heads), digest_of(heads))], since_us=90, labels_since_us=100)
    seen = [count.take(topics.LABELS, 0, at, b"k", head, b"v", None) for at, head in enumerate(heads)]
    assert (count.counts()["decisions"], count.counts()["labels"]) == (1, 1)
    assert (count.ingress(), count.requests()) == (2, 1)
    assert [head.order_us for head in seen if head is not None] == [90, 100, 90, 91]
    assert count.take(topics.LABELS, 0, 9, b"k", heads[1], b"v", None) is None
    assert count.mismatches() == []
