"""The hand-made arrays are byte for byte what the server's wire format asks for, item by item."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fp_runtime.pgarrays import byteas, int8s, texts

HASH = st.binary(min_size=32, max_size=32)


def wire(oid: int, items: Sequence[bytes | None]) -> bytes:
    head = struct.pack(">iiIii", 1, int(None in items), oid, len(items), 1)
    return head + b"".join(
        struct.pack(">i", -1) if item is None else struct.pack(">i", len(item)) + item for item in items
    )


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integers(values: list[int]) -> None:
    assert bytes(int8s(values)) == wire(20, [value.to_bytes(8, "big", signed=True) for value in values])


@given(st.lists(HASH, max_size=9) | st.lists(st.binary(max_size=9) | HASH | st.none(), max_size=9))
def test_bytes(values: list[bytes | None]) -> None:
    assert bytes(byteas(values)) == wire(17, values)


@given(st.lists(st.text(max_size=9) | st.none(), max_size=9) | st.lists(st.just(""), max_size=9))
def test_text(values: list[str | None]) -> None:
    assert bytes(texts(values)) == wire(25, [None if value is None else value.encode() for value in values])
