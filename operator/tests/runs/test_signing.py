"""Signatures: by this environment's key over these bytes, or they do not hold."""

from pathlib import Path

import pytest

from fp_operator import signing


def test_a_signature_holds_for_its_key_and_its_bytes_only(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    key, signature = signing.public_key(one), signing.sign(one, b"verdict")
    assert signing.holds(key, b"verdict", signature)
    assert signing.public_key(one) == key, "the key is kept"
    assert not signing.holds(key, b"another verdict", signature)
    assert not signing.holds(signing.public_key(other), b"verdict", signature)
    assert not signing.holds(key, b"verdict", signing.sign(other, b"verdict"))
    assert (one / "secrets.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("key", "signature"), [("", ""), ("zz", "00"), ("00" * 32, "00" * 64), ("00", "ff")])
def test_what_is_neither_key_nor_signature_does_not_hold(key: str, signature: str) -> None:
    assert not signing.holds(key, b"verdict", signature)
