"""Canonical JSON: golden bytes, one form only, and what has none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.canonical import CanonicalError, canonical_bytes, digest_of, parse_strict, trusted_bytes

TEXT = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda text: text.isascii())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

GOLDEN = [
    ({}, b"{}"),
    ({"b": 1, "a": [True, None, -5]}, b'{"a":[true,null,-5],"b":1}'),
    ({"é": 'ü/\n"'}, '{"é":"ü/\\n\\""}'.encode()),
    ({"Z": 0, "a": 0, "_": 0}, b'{"Z":0,"_":0,"a":0}'),
    ({"\U0001f600": 1, "\uffff": 2}, '{"\uffff":2,"\U0001f600":1}'.encode()),
    ([2**63 - 1, -(2**63)], b"[9223372036854775807,-9223372036854775808]"),
    ((1, "x"), b'[1,"x"]'),
]


@pytest.mark.parametrize(("value", "wanted"), GOLDEN)
def test_golden_bytes(value: Any, wanted: bytes) -> None:
    assert canonical_bytes(value) == trusted_bytes(value) == wanted


def test_golden_digest() -> None:
    value = {"b": {"y": "\n", "x": -5}, "a": [1, None, True, "é"]}
    assert digest_of(value) == "27400a2cabcfd452f3ebbd1dbb5caf1cf0f6c710132fc646b20f34dcec7235d3"


def deep(depth: int) -> Any:
    return [deep(depth - 1)] if depth else 0


def nested(depth: int, leaf: Any) -> Any:
    return {"a": nested(depth - 1, leaf)} if depth else leaf


@pytest.mark.parametrize("leaf", ["x", "", 7, None], ids=ascii)
def test_every_kind_of_leaf_may_lie_sixteen_deep_and_no_deeper(leaf: Any) -> None:
    assert canonical_bytes(nested(16, leaf)) == trusted_bytes(nested(16, leaf))
    with pytest.raises(CanonicalError):
        canonical_bytes(nested(17, leaf))


NO_FORM = [
    *(1.0, float("nan"), {"a": 0.5}, {1: "key"}, b"bytes", {1, 2}, 2**63, -(2**63) - 1, deep(17), object()),
    *("e\u0301", "\ud800", {"e\u0301": 1}, {"a": "e\u0301"}, {"a": "\ud800"}, ["e\u0301"], {"a": {1: "key"}}),
]


@pytest.mark.parametrize("value", NO_FORM, ids=ascii)
def test_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(CanonicalError):
        canonical_bytes(value)


REFUSED = [
    *(
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"1.0",
        b"1e400",
        b"NaN",
        b"Infinity",
        b"\xff",
        b'"\\ud800"',
        b"9223372036854775808",
    ),
    *('"e\u0301"'.encode(), b"[" * 10_000 + b"]" * 10_000, b"[" * 18 + b"]" * 18, b"{} {}"),
]


@pytest.mark.parametrize("raw", REFUSED, ids=lambda raw: ascii(raw[:20]))
def test_text_that_is_refused(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse_strict(raw)


@given(VALUES)
def test_there_and_back(value: Any) -> None:
    raw = canonical_bytes(value)
    assert parse_strict(raw) == value
    assert canonical_bytes(parse_strict(raw)) == raw
    assert json.loads(raw) == value


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_canonical(raw: bytes) -> None:
    try:
        value = parse_strict(raw)
    except CanonicalError:
        return
    canonical_bytes(value)
