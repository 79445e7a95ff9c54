"""The packed header of hot records: routing and order without decoding the body (contracts.md §3).

Layout, big endian: version u8 · kind u8 · run tag 8 bytes · seq u64 · order_ts i64 µs · frontier i64 µs (NONE_TS =
absent) · payload hash 32 bytes · source length u8 · source UTF-8 · marks: count u8, each {length u8, source, frontier
i64 µs, last_seq u64}.
"""

import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

VERSION = 1
NONE_TS = -(2**63)
MAX_TS = 2**62
NO_HASH = bytes(32)
_FIXED = struct.Struct(">BB8sQqq32s")
_MARK = struct.Struct(">qQ")
_FIXED_SIZE, _MARK_SIZE = _FIXED.size, _MARK.size
PLAIN_HEAD, PLAIN_TAIL = slice(10), slice(_FIXED_SIZE, None)
_as = tuple.__new__  # a named tuple without its Python-level constructor: half of the cost, once per record


class Kind(IntEnum):
    """What a record is; watermarks and canaries carry no business meaning and take no sequence."""

    ARRIVAL_EVENT = 1
    ARRIVAL_ENTITIES = 2
    FLOW_ANCHOR = 3
    AUTH_REQUEST = 4
    TRAFFIC_OTHER = 5
    FEATURE_SNAPSHOT = 10
    DECISION = 11
    ACTION_OUTCOME = 12
    ACTION_INTENT = 13
    AUDIT_RECORD = 20
    CASE_TRIGGER = 21
    LABEL_ASSERTION = 22
    WATERMARK = 100
    CANARY = 101


class HeaderError(ValueError):
    """The bytes are not a packed header of this version."""


class Mark(NamedTuple):
    """A frontier of one source: no record with order_ts below `frontier_us` comes after sequence `last_seq`."""

    source: str
    frontier_us: int
    last_seq: int


class Header(NamedTuple):
    """One decoded packed header. `seq` starts at 1 per (source, topic, partition); 0 = takes no sequence.

    A named tuple: a frozen dataclass costs 1 µs more per record.
    """

    kind: Kind
    run_tag: bytes
    source: str
    seq: int
    order_us: int
    payload_hash: bytes = NO_HASH
    frontier_us: int = NONE_TS
    marks: tuple[Mark, ...] = ()


_KINDS = {int(kind): kind for kind in Kind}


def pack(header: Header) -> bytes:
    """Header to bytes; ValueError when a source name is over 255 bytes."""
    head = pack_plain(
        header.kind, header.run_tag, header.source.encode(), header.seq, header.order_us, header.payload_hash,
        header.frontier_us,
    )  # fmt: skip
    if not header.marks:
        return head
    parts = [head[:-1], bytes((len(header.marks),))]
    for mark in header.marks:
        name = mark.source.encode()
        parts.append(bytes((len(name),)) + name + _MARK.pack(mark.frontier_us, mark.last_seq))
    return b"".join(parts)


def pack_plain(
    kind: int, run_tag: bytes, source: bytes, seq: int, order_us: int, payload_hash: bytes, frontier_us: int = NONE_TS
) -> bytes:
    """The bytes of a header without marks, for hot paths: building a Header costs more than packing it."""
    return _FIXED.pack(VERSION, kind, run_tag, seq, order_us, frontier_us, payload_hash) + _plain_tail(source)


def plain_ends(kind: int, run_tag: bytes, source: bytes) -> tuple[bytes, bytes]:
    """What all headers without marks of one kind and source have at PLAIN_HEAD and at PLAIN_TAIL."""
    return bytes((VERSION, kind)) + run_tag, _plain_tail(source)


@lru_cache(maxsize=1_024)
def _plain_tail(source: bytes) -> bytes:
    """Source and no marks, as a header ends."""
    return bytes((len(source),)) + source + b"\0"


def unpack(raw: bytes) -> Header:
    """Bytes to Header; HeaderError for anything that `pack` would not have made."""
    try:
        version, code, tag, seq, order_us, frontier_us, payload_hash = _FIXED.unpack_from(raw)
        kind = _KINDS.get(code)
        if version != VERSION or kind is None:
            raise HeaderError(f"version {version} kind {code}")
        source, marks = _unpack_tail(raw[_FIXED_SIZE:])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise HeaderError(f"truncated or malformed header: {error}") from error
    return _as(Header, (kind, tag, source, seq, order_us, payload_hash, frontier_us, marks))


@lru_cache(maxsize=1_024)  # a source ends all its headers alike, but for those with marks
def _unpack_tail(tail: bytes) -> tuple[str, tuple[Mark, ...]]:
    """Source and marks."""
    at = 1 + tail[0]
    source = tail[1:at].decode()
    marks, end = _unpack_marks(tail, at) if tail[at] else ((), at + 1)
    if end != len(tail):
        raise HeaderError(f"{len(tail) - end} bytes after the header")
    return source, marks


def _unpack_marks(raw: bytes, at: int) -> tuple[tuple[Mark, ...], int]:
    marks = []
    count, at = raw[at], at + 1
    for _ in range(count):
        size = raw[at]
        name = raw[at + 1 : at + 1 + size].decode()
        at += 1 + size
        frontier_us, last_seq = _MARK.unpack_from(raw, at)
        at += _MARK_SIZE
        marks.append(_as(Mark, (name, frontier_us, last_seq)))
    return tuple(marks), at


def kind_of(raw: bytes) -> int | None:
    """The kind byte of a packed header of this version without decoding the rest; None for any other bytes."""
    return raw[1] if len(raw) > 1 and raw[0] == VERSION else None
