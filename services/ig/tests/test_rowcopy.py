"""Rows written in one go are byte for byte what COPY's binary format asks for, field by field."""

import struct
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS
from fp_contracts.reasons import LineClass, Quarantine
from fp_ig.claims import Row
from fp_ig.rowcopy import COLUMNS, rows

RUN_NO = 7
HASH = st.binary(min_size=32, max_size=32)
INT8 = st.integers(0, 2**63 - 1)
TIMES = st.integers(NONE_TS + 1, 2**63 - 1)


def admitted() -> st.SearchStrategy[Row]:
    return st.builds(
        Row, st.integers(0, 5), INT8, st.just(LineClass.ADMITTED), st.none(), st.integers(1, 9), st.integers(1, 5),
        INT8.filter(bool), TIMES, TIMES | st.just(NONE_TS), HASH, HASH,
    )  # fmt: skip


def aside() -> st.SearchStrategy[Row]:
    duplicate = st.tuples(st.just(LineClass.DUPLICATE), st.none(), HASH)
    quarantined = st.tuples(st.just(LineClass.QUARANTINED), st.sampled_from(Quarantine), HASH | st.just(b""))
    return st.builds(
        lambda lane, lane_seq, what, principal, digest: Row(
            lane, lane_seq, what[0], what[1], principal, 0, 0, NONE_TS, NONE_TS, what[2], digest
        ),
        st.integers(0, 5), INT8, duplicate | quarantined, st.integers(1, 9), HASH,
    )  # fmt: skip


def fields(row: Row) -> dict[str, bytes | None]:
    """Each column as its type's binary form; None = null."""
    kept = row.line_class is LineClass.ADMITTED
    return {
        "run_no": struct.pack(">i", RUN_NO),
        "principal": struct.pack(">i", row.principal),
        "lane": struct.pack(">h", row.lane),
        "kind": struct.pack(">h", row.kind),
        "class": row.line_class.value[0].encode(),
        "lane_seq": struct.pack(">q", row.lane_seq),
        "seq": struct.pack(">q", row.seq) if kept else None,
        "order_us": struct.pack(">q", row.order_us) if kept else None,
        "frontier_us": struct.pack(">q", row.frontier_us) if kept and row.frontier_us != NONE_TS else None,
        "identity": row.identity or None,
        "payload_hash": row.payload_hash,
        "reason": row.reason.value.encode() if row.reason else None,
    }


def wire(given_rows: Sequence[Row]) -> bytes:
    parts = [b"PGCOPY\n\xff\r\n\0", struct.pack(">ii", 0, 0)]
    names = COLUMNS.split(", ")
    for row in given_rows:
        values = fields(row)
        parts.append(struct.pack(">h", len(names)))
        for name in names:
            value = values.pop(name)
            parts.append(struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value)
        assert not values
    return b"".join([*parts, struct.pack(">h", -1)])


@settings(deadline=None)  # generated rows are many draws, and the clock is that of a shared machine
@given(st.lists(admitted() | aside(), max_size=12))
def test_rows(given_rows: list[Row]) -> None:
    assert rows(RUN_NO, given_rows) == wire(given_rows)
