"""Feature vectors and entity states as bytes: little-endian, fixed widths, the same on every machine."""

import struct
import sys
from array import array
from collections.abc import Iterable
from functools import lru_cache

_FLOAT_BYTES = 8


def pack(values: Iterable[float]) -> bytes:
    """A feature vector in schema order to packed little-endian float64."""
    row = tuple(values)
    return _doubles(len(row)).pack(*row)


def unpack(body: bytes) -> tuple[float, ...]:
    """Packed little-endian float64 to a vector; ValueError when the size is not whole."""
    count, rest = divmod(len(body), _FLOAT_BYTES)
    if rest:
        raise ValueError(f"{len(body)} bytes are no float64 vector")
    return _doubles(count).unpack(body)


@lru_cache(maxsize=64)
def _doubles(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}d")


def pack_column(code: str, values: Iterable[int]) -> bytes:
    """Integers as little-endian `array` items: `q` int64, `I` uint32."""
    column = array(code, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def pack_texts(texts: Iterable[str]) -> bytes:
    """The sizes of UTF-8 texts as uint32, then the texts; their number is for the caller to write."""
    bodies = [text.encode() for text in texts]
    return pack_column("I", map(len, bodies)) + b"".join(bodies)


class Reader:
    """Takes a state apart from front to back; ValueError when it is cut short, too long or of another format."""

    def __init__(self, body: bytes, magic: bytes) -> None:
        self._body = body
        self._at = 0
        if self.take(len(magic)) != magic:
            raise ValueError(f"not a state of format {magic!r}")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        piece = self._body[self._at : self._at + size]
        if len(piece) != size:
            raise ValueError("state is cut short")
        self._at += size
        return piece

    def column(self, code: str, count: int) -> list[int]:
        """The next `count` integers that `pack_column` wrote."""
        column: array[int] = array(code)
        column.frombytes(self.take(count * column.itemsize))
        if sys.byteorder == "big":
            column.byteswap()
        return column.tolist()

    def number(self) -> int:
        """The next uint32."""
        return self.column("I", 1)[0]

    def texts(self, count: int) -> list[str]:
        """The next `count` texts that `pack_texts` wrote."""
        return [self.take(size).decode() for size in self.column("I", count)]

    def close(self) -> None:
        """ValueError when bytes are left."""
        if self._at != len(self._body):
            raise ValueError(f"{len(self._body) - self._at} bytes too many in a state")
