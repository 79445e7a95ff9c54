"""Rows of ig.line in COPY's binary format. Integers and two hashes: one struct writes an admitted row."""

import struct
from collections.abc import Sequence
from itertools import count

from fp_contracts.reasons import LineClass
from fp_ig.claims import Admitted, Numbered, Row

COLUMNS = "run_no, principal, lane, kind, class, lane_seq, seq, order_us, payload_hash, identity, frontier_us, reason"
_HASH = 32
_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, no extension
_TAIL = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
# Each field behind its length: run_no, principal, lane, kind, class.
_START = struct.Struct(">hiiiiihihic")
_ADMITTED = struct.Struct(f">{_START.size}siqiqiqi{_HASH}si{_HASH}s8s").pack
_INT8 = struct.Struct(">iq").pack
_FIELDS = COLUMNS.count(",") + 1
_CODES = {LineClass.ADMITTED: b"A", LineClass.DUPLICATE: b"D", LineClass.QUARANTINED: b"Q"}
_PLAIN_END = _NULL + _NULL  # no frontier, no reason


def rows(run_no: int, parts: Sequence[Numbered]) -> bytes:
    """The body of `COPY ig.line (COLUMNS) FROM STDIN (FORMAT BINARY)`."""
    written = [_HEAD]
    for part in parts:
        lane, principal = part.after.number, part.principal
        for columns in part.admitted:
            written += _admitted(run_no, principal, lane, part.after.floor_us, columns)
        written += [_other(run_no, row) for row in part.others]
    written.append(_TAIL)
    return b"".join(written)


def _admitted(run_no: int, principal: int, lane: int, frontier_us: int, columns: Admitted) -> list[bytes]:
    """The rows of one topic; the last one has the frontier."""
    kinds = {line.kind for line in columns.lines}
    starts = {kind: _start(run_no, principal, lane, kind, LineClass.ADMITTED) for kind in kinds}
    given = zip(columns.lane_seqs, count(columns.first_seq), columns.orders_us, columns.lines, strict=False)
    written = [
        _ADMITTED(starts[kind], 8, lane_seq, 8, seq, 8, order_us, _HASH, digest, _HASH, identity, _PLAIN_END)
        for lane_seq, seq, order_us, (_, identity, digest, kind, _, _, _, _) in given
    ]
    written[-1] = written[-1].removesuffix(_PLAIN_END) + _INT8(8, frontier_us) + _NULL
    return written


def _other(run_no: int, row: Row) -> bytes:
    """The row of a line that was not admitted: no sequence, order or frontier."""
    start = _start(run_no, row.principal, row.lane, row.kind, row.line_class)
    identity = _framed(row.identity) if row.identity else _NULL
    reason = _framed(row.reason.encode()) if row.reason else _NULL
    return start + _INT8(8, row.lane_seq) + _NULL + _NULL + _framed(row.payload_hash) + identity + _NULL + reason


def _start(run_no: int, principal: int, lane: int, kind: int, line_class: LineClass) -> bytes:
    return _START.pack(_FIELDS, 4, run_no, 4, principal, 2, lane, 2, kind, 1, _CODES[line_class])


def _framed(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
