"""Keys of evidence, what refers to an object, and what can be wrong with either: shared by every kind of store.

Keys are plain paths that every store keeps apart: short segments of letters, digits and `._=+@,:()-`, none hidden.
"""

import re
from typing import NamedTuple

from fp_contracts.canonical import sha256_hex
from fp_contracts.control import EvidenceRef

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@,:()-]{0,119}")
_KEY_MAX = 900


class EvidenceKeyError(ValueError):
    """The key is not one that every store keeps apart, or is the folder of another key."""


class EvidenceMissing(Exception):
    """There is no object under this key."""


class EvidenceConflict(Exception):
    """Other bytes are already there: evidence is never written over."""


class EvidenceBroken(Exception):
    """The object is not the one that its reference names."""


class Stored(NamedTuple):
    """One listed object; size in bytes."""

    key: str
    size: int


def check_key(key: str) -> str:
    """The key itself; EvidenceKeyError unless it is relative, short and made of plain segments."""
    if len(key) > _KEY_MAX or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise EvidenceKeyError(f"not an evidence key: {key[:200]!r}")
    return key


def ref_of(key: str, body: bytes) -> EvidenceRef:
    """The reference that names these bytes under this key."""
    return EvidenceRef(key=check_key(key), sha256=sha256_hex(body), size=len(body))
