"""Rows written in one go are byte for byte what COPY's binary format asks for, field by field."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS, Kind
from fp_contracts.reasons import LineClass, Quarantine
from fp_ig.claims import KIND_TOPIC, Admitted, Lane, Numbered, Row
from fp_ig.lines import Admissible
from fp_ig.rowcopy import COLUMNS, rows

from .conftest import rows_of

RUN_NO = 7
HASH = st.binary(min_size=32, max_size=32)
INT8 = st.integers(0, 2**63 - 1)
TIMES = st.integers(NONE_TS + 1, 2**63 - 1)


TOPIC_KINDS = (
    (Kind.ARRIVAL_EVENT,), (Kind.ARRIVAL_ENTITIES,), (Kind.FLOW_ANCHOR,), (Kind.AUTH_REQUEST, Kind.TRAFFIC_OTHER),
)  # fmt: skip


@st.composite
def numbered(draw: st.DrawFn) -> Numbered:
    """Some lines of a lane, each admitted to a topic or set aside."""
    lane = Lane(draw(st.integers(0, 5)), draw(INT8), draw(TIMES), tuple(draw(st.integers(0, 2**62)) for _ in range(4)))
    principal, made = draw(st.integers(1, 9)), [Admitted(topic, seq + 1) for topic, seq in enumerate(lane.last_seqs)]
    others = []
    for lane_seq in sorted(draw(st.sets(INT8, max_size=12))):
        topic = draw(st.integers(0, 4))
        if topic == 4:
            others.append(draw(aside(lane.number, lane_seq, principal)))
            continue
        kind = draw(st.sampled_from(TOPIC_KINDS[topic]))
        made[topic].lines.append(Admissible(b"", draw(HASH), draw(HASH), kind, topic, 0, b"", None))
        made[topic].lane_seqs.append(lane_seq)
        made[topic].orders_us.append(draw(TIMES))
    return Numbered(lane, lane, principal, admitted=[one for one in made if one.lines], others=others)


def aside(lane: int, lane_seq: int, principal: int) -> st.SearchStrategy[Row]:
    duplicate = st.tuples(st.just(LineClass.DUPLICATE), st.none(), HASH)
    quarantined = st.tuples(st.just(LineClass.QUARANTINED), st.sampled_from(Quarantine), HASH | st.just(b""))
    return st.builds(
        lambda what, digest: Row(
            lane, lane_seq, what[0], what[1], principal, 0, 0, NONE_TS, NONE_TS, what[2], digest
        ),
        duplicate | quarantined, HASH,
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


def wire(row: Row) -> bytes:
    """One row, field by field."""
    names, values = COLUMNS.split(", "), fields(row)
    parts = [struct.pack(">h", len(names))]
    for name in names:
        value = values.pop(name)
        parts.append(struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value)
    assert not values
    return b"".join(parts)


def written_behind(row: Row) -> int:
    """A part's rows are written topic by topic, the lines that were not admitted last."""
    return KIND_TOPIC[row.kind] if row.line_class is LineClass.ADMITTED else len(KIND_TOPIC)


@settings(deadline=None)  # generated rows are many draws, and the clock is that of a shared machine
@given(st.lists(numbered(), max_size=3))
def test_rows(parts: list[Numbered]) -> None:
    written = [wire(row) for part in parts for row in sorted(rows_of(part), key=written_behind)]
    head, tail = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)
    assert rows(RUN_NO, parts) == b"".join([head, *written, tail])
