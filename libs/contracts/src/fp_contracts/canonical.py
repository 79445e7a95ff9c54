"""Canonical JSON and hashes: the only bytes that are ever hashed (architecture.md law 9)."""

import hashlib
import json
import unicodedata
from typing import Any

import orjson

MAX_DEPTH = 16
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class CanonicalError(ValueError):
    """The value or text has no canonical form: a float, a duplicate key, text that is not NFC, too deep."""


def canonical_bytes(value: Any) -> bytes:
    """UTF-8 JSON, keys sorted by code point, no spaces; integers, booleans, null and NFC strings only.

    Raises CanonicalError for anything else (floats above all).
    """
    check_canonical(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def trusted_bytes(value: Any) -> bytes:
    """The same bytes as `canonical_bytes` without the checks: for values built by our own models."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def check_canonical(value: Any, depth: int = 0) -> None:
    """Raise CanonicalError unless `value` is made of what canonical JSON allows."""
    if depth > MAX_DEPTH:
        raise CanonicalError(f"deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise CanonicalError("integer beyond 64 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CanonicalError("key is not a string")
            if not key.isascii():
                _check_text(key)
            if type(item) is not str or depth >= MAX_DEPTH or not item.isascii():  # most are plain texts: no call
                check_canonical(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_canonical(item, depth + 1)
    else:
        raise CanonicalError(f"{type(value).__name__} has no canonical form")


def _check_text(text: str) -> None:
    if not unicodedata.is_normalized("NFC", text):
        raise CanonicalError("text is not NFC")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CanonicalError("lone surrogate") from error


def _reject_float(text: str) -> Any:
    raise CanonicalError(f"float {text[:20]}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CanonicalError("duplicate key")
    return found


def parse_strict(raw: bytes) -> Any:
    """Parse JSON text that has a canonical form; CanonicalError for duplicate keys, floats, NaN, depth, bad UTF-8."""
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_float=_reject_float, parse_constant=_reject_float
        )
    except CanonicalError:
        raise
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not JSON: {type(error).__name__}") from error
    check_canonical(value)
    return value


def sha256_hex(data: bytes) -> str:
    """Lower-case hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """hex64 sha256 of the canonical JSON of `value`."""
    return sha256_hex(canonical_bytes(value))
