"""Rows of ig.line in COPY's binary format. Integers and two hashes: one struct writes an admitted row."""

import struct
from collections.abc import Sequence

from fp_contracts.header import NONE_TS
from fp_contracts.reasons import LineClass
from fp_ig.claims import Row

COLUMNS = "run_no, principal, lane, kind, class, lane_seq, seq, order_us, payload_hash, identity, frontier_us, reason"
_HASH = 32
_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, no extension
_TAIL = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
# Each field behind its length: run_no, principal, lane, kind, class.
_START = struct.Struct(">hiiiiihihic")
_ADMITTED = struct.Struct(f">iqiqiqi{_HASH}si{_HASH}s").pack
_INT8 = struct.Struct(">iq").pack
_FIELDS = COLUMNS.count(",") + 1
_CODES = {LineClass.ADMITTED: b"A", LineClass.DUPLICATE: b"D", LineClass.QUARANTINED: b"Q"}
_PLAIN_END = _NULL + _NULL  # no frontier, no reason


def rows(run_no: int, given: Sequence[Row]) -> bytes:
    """The body of `COPY ig.line (COLUMNS) FROM STDIN (FORMAT BINARY)`."""
    starts: dict[tuple[int, int, int, LineClass], bytes] = {}
    parts = [_HEAD]
    add = parts.append
    for lane, lane_seq, line_class, reason, principal, kind, seq, order_us, frontier_us, identity, digest in given:
        key = (principal, lane, kind, line_class)
        start = starts.get(key)
        if start is None:
            start = starts[key] = _START.pack(_FIELDS, 4, run_no, 4, principal, 2, lane, 2, kind, 1, _CODES[line_class])
        add(start)
        if line_class is LineClass.ADMITTED:
            add(_ADMITTED(8, lane_seq, 8, seq, 8, order_us, _HASH, digest, _HASH, identity))
            add(_PLAIN_END if frontier_us == NONE_TS else _INT8(8, frontier_us) + _NULL)
        else:
            add(_INT8(8, lane_seq) + _NULL + _NULL + _framed(digest))
            add((_framed(identity) if identity else _NULL) + _NULL + (_framed(reason.encode()) if reason else _NULL))
    add(_TAIL)
    return b"".join(parts)


def _framed(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
