"""Identities and recipes against values computed apart, murmur2 against Java's, times there and back."""

import base64
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts import derive, topics
from fp_contracts.canonical import digest_of
from fp_contracts.envelope import HASHED_FIELDS, payload_hash
from fp_contracts.ids import framed, h32, identity_key, is_hex32, is_run_id, phase_execution_id, run_tag
from fp_contracts.partition import murmur2, partition_of
from fp_contracts.timestamps import to_text, to_us

RUN = "platform_20260101T000000Z"


def test_golden_ids() -> None:
    assert h32("a", "bc") == "b534ce16ac9c8b36823f39a395ce8e0e"
    assert identity_key(RUN, "traffic_fraud", "e1").hex() == (
        "95cade8734ee60f229126e7acaf71fba3c61265433503fd9b0bbfdbc5e8d8a51"
    )
    assert run_tag(RUN).hex() == "cde2671718839260"
    assert phase_execution_id(RUN, "P7", 2) == "f86759ce0a8f96fc3651d10e28b3d1d6"
    assert derive.decision_id(RUN, "e1", None, (topics.TRAFFIC, 3, 42)) == "da73407f2b5e72b2a67c3bc17f1786c0"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_field_lists_share_bytes(one: list[str], other: list[str]) -> None:
    try:
        same = framed(*one) == framed(*other)
    except UnicodeEncodeError:
        return
    assert same == (one == other)


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        (RUN, True),
        (f"{RUN}-demo-2", True),
        (f"{RUN}\n", False),
        (f"{RUN}-", False),
        (f"{RUN}-UP", False),
        ("platform_2026", False),
        ("platform_\uff120260101T000000Z", False),
        (f"../{RUN}", False),
    ],
)
def test_run_ids(text: str, ok: bool) -> None:
    assert is_run_id(text) is ok


def test_hex32() -> None:
    assert is_hex32("0" * 32)
    assert not is_hex32("0" * 31)
    assert not is_hex32("A" * 32)


@pytest.mark.parametrize(
    ("key", "java"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_the_one_of_the_java_client(key: str, java: int) -> None:
    assert murmur2(key.encode()) == java % 2**32
    assert partition_of(key, 6) == (java & 0x7FFFFFFF) % 6


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_label_partition_follows_from_the_ingress_partition(merchant: str) -> None:
    """RTDL partition p reads label partition p mod 3."""
    assert partition_of(merchant, 3) == partition_of(merchant, 6) % 3


ENVELOPE: dict[str, Any] = {
    "event_id": "e1", "event_type": "traffic", "schema_version": "v1", "ts_utc": "2026-01-01T00:00:00.000000Z",
    "platform_run_id": RUN, "scenario_run_id": "0" * 32, "manifest_fingerprint": "1" * 64,
    "run_config_digest": "2" * 64, "producer": "wsp", "traceparent": None, "payload": {"kind": "AUTH_REQUEST"},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ENVELOPE))
def test_the_payload_hash_covers_what_a_retry_must_repeat(name: str) -> None:
    changed = {**ENVELOPE, name: {"kind": "REFUND"} if name == "payload" else "other"}
    assert (payload_hash(changed) != payload_hash(ENVELOPE)) is (name in HASHED_FIELDS)


def test_the_payload_hash_is_the_digest_of_named_fields() -> None:
    named = {name: ENVELOPE[name] for name in HASHED_FIELDS}
    assert payload_hash(ENVELOPE).hex() == digest_of(named)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00.000000Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-01-01T00:00:00.000001Z", 1_767_225_600_000_001),
    ],
)
def test_golden_times(text: str, us: int) -> None:
    assert (to_us(text), to_text(us)) == (us, text)


@given(st.integers(-60_000_000_000_000_000, 250_000_000_000_000_000))
def test_times_there_and_back(us: int) -> None:
    assert to_us(to_text(us)) == us
    moment = datetime(1970, 1, 1) + timedelta(microseconds=us)
    assert to_text(us) == f"{moment.isoformat(timespec='microseconds')}Z"


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000+00:00", "2026-01-01 00:00:00.000000Z"),
        *("2026-13-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z\n", "\uff12026-01-01T00:00:00.000000Z"),
        *("2026-01-01T24:00:00.000000Z", "2026-01-01T00:60:00.000000Z", "2026-01-01T00:00:60.000000Z"),
        *("2026-01-01T00:00:0\uff10.000000Z", "2026-01-01T00:00:00,000000Z", "2026-01-01T00-00:00.000000Z"),
        *("2026-01-01T00:00:00.0000000Z", "2026-01-01T00:00:00.000000z", "2026-02-30T00:00:00.000000Z"),
    ],
    ids=ascii,
)
def test_other_forms_of_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        to_us(text)


FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@given(st.lists(st.tuples(st.integers(0, 26), st.sampled_from("01256789:.-TZ x")), max_size=3))
def test_a_changed_time_is_what_the_standard_library_says(changes: list[tuple[int, str]]) -> None:
    chars = list("2026-01-01T00:00:30.000001Z")
    for at, char in changes:
        chars[at] = char
    text = "".join(chars)
    try:
        assert FORM.fullmatch(text)
        expected = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ") - datetime(1970, 1, 1)
    except (AssertionError, ValueError):
        with pytest.raises(ValueError, match=r".+"):
            to_us(text)
    else:
        if chars[17:19] < ["6", "0"]:  # strptime takes a leap second
            assert to_us(text) == expected // timedelta(microseconds=1)


def test_vectors_there_and_back() -> None:
    packed = bytes(range(24))
    assert derive.vector_bytes(derive.vector_text(packed)) == packed == base64.b64decode(derive.vector_text(packed))
    with pytest.raises(ValueError, match=r".+"):
        derive.vector_bytes("no base64 !")


def test_a_multiset_has_no_order_but_counts() -> None:
    assert derive.multiset_digest(["a", "b"]) == derive.multiset_digest(["b", "a"])
    assert derive.multiset_digest(["a", "a", "b"]) != derive.multiset_digest(["a", "b", "b"])
