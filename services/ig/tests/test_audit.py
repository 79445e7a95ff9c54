"""Comparing topic and claims: equal records pass, each single difference is seen."""

import pytest

from fp_contracts.header import NONE_TS, Header, Kind, pack
from fp_contracts.reasons import LineClass
from fp_contracts.topics import TRAFFIC
from fp_ig.audit import Offsets, PartitionAudit
from fp_ig.claims import Row
from fp_ig.records import Attempt, Fact, Stamp, attempt
from fp_runtime.bus import Record

STAMP = Stamp(b"12345678", "ig-0")
FACTS = [Fact(2, 3, 1, 10, 3, "P"), Fact(2, 3, 4, 20, 1, "R")]


def claim(seq: int) -> Attempt:
    row = Row(2, seq, LineClass.ADMITTED, None, 1, Kind.AUTH_REQUEST, seq, 5, NONE_TS, b"i", bytes([seq]) * 32)
    return attempt(STAMP, row, b"m", b"body %d" % seq, None)


def record(seq: int, offset: int) -> Record:
    out = claim(seq).out
    return Record(out.topic, out.partition, offset, out.key, out.value, out.header, None, 99)


def technical(kind: Kind, tag: bytes = STAMP.run_tag, offset: int = 50) -> Record:
    return Record(TRAFFIC, 2, offset, b"", b"", pack(Header(kind, tag, "ig-0", 0, 0)), None, 0)


GOOD = [record(1, 10), record(2, 11), record(3, 12), record(4, 20)]


def audited(records: list[Record], claims: int = 4, facts: list[Fact] = FACTS) -> PartitionAudit:
    audit = PartitionAudit(STAMP, TRAFFIC, 2, 10, 60, 4, Offsets(facts), frozenset({4}))
    for one in records:
        audit.see(one)
    for seq in range(1, claims + 1):
        audit.claim(claim(seq))
    return audit


def test_equal_sides_pass_whatever_lies_between() -> None:
    audit = audited([technical(Kind.CANARY), *reversed(GOOD), technical(Kind.WATERMARK), record(5, 30),
                     technical(Kind.AUTH_REQUEST, b"otherrun")])  # fmt: skip
    assert (audit.equal, audit.matched, audit.later, audit.unexplained) == (True, 4, 1, 0)
    assert audit.others == {
        "this run CANARY": 1, "this run WATERMARK": 1, f"{b'otherrun'.hex()} AUTH_REQUEST": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        GOOD[:3],
        [*GOOD[:3], GOOD[3]._replace(value=b"body x")],
        [*GOOD[:3], GOOD[3]._replace(key=b"n")],
        [*GOOD[:3], GOOD[3]._replace(offset=21)],
        [GOOD[1]._replace(offset=10), GOOD[0]._replace(offset=11), *GOOD[2:]],
    ],
)
def test_one_difference_is_seen(changed: list[Record]) -> None:
    assert not audited(changed).equal


def test_a_claim_without_a_fact_is_counted_and_does_not_hide() -> None:
    audit = audited(GOOD[:3], facts=FACTS[:1])
    assert (audit.without_offset, audit.equal) == (1, True)


def test_copies_must_be_equal_and_beside_an_unknown() -> None:
    assert audited([*GOOD, record(4, 25)]).copies_explained
    assert not audited([*GOOD, record(3, 25)]).copies_explained, "nothing was in doubt there"
    assert not audited([*GOOD, record(4, 25)._replace(value=b"other")]).copies_explained


def test_foreign_writers_and_unreadable_headers_are_unexplained() -> None:
    header = pack(Header(Kind.AUTH_REQUEST, STAMP.run_tag, "ig-7", 1, 0))
    assert audited([*GOOD, GOOD[0]._replace(header=header), GOOD[0]._replace(header=b"?")]).unexplained == 2


def test_offsets_both_ways() -> None:
    offsets = Offsets(FACTS)
    assert [offsets.of_seq(seq) for seq in range(6)] == [None, 10, 11, 12, 20, None]
    assert [offsets.at_offset(at) for at in (9, 10, 12, 13, 19, 20, 21)] == [None, 1, 3, None, None, 4, None]
