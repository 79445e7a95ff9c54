"""The packed header: every header comes back, everything else is a HeaderError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS, Header, HeaderError, Kind, Mark, kind_of, pack, pack_plain, unpack

NAMES = st.text(st.characters(codec="utf-8"), max_size=40).filter(lambda name: len(name.encode()) < 256)
TIMES = st.integers(-(2**63), 2**63 - 1)
SEQUENCES = st.integers(0, 2**64 - 1)
MARKS = st.lists(st.builds(Mark, NAMES, TIMES, SEQUENCES), max_size=12).map(tuple)
HEADERS = st.builds(
    Header,
    st.sampled_from(Kind),
    st.binary(min_size=8, max_size=8),
    NAMES,
    SEQUENCES,
    TIMES,
    st.binary(min_size=32, max_size=32),
    TIMES,
    MARKS,
)


def test_golden_bytes() -> None:
    header = Header(Kind.WATERMARK, b"run-tag!", "ig-0", 0, 5, bytes(32), 7, (Mark("ig-0", 9, 3),))
    wanted = (
        "0164" + b"run-tag!".hex() + "00" * 8 + f"{5:016x}" + f"{7:016x}" + "00" * 32 + "04" + b"ig-0".hex()
        + "01" + "04" + b"ig-0".hex() + f"{9:016x}" + f"{3:016x}"
    )  # fmt: skip
    assert pack(header).hex() == wanted


@given(HEADERS)
def test_there_and_back(header: Header) -> None:
    raw = pack(header)
    assert unpack(raw) == header
    assert kind_of(raw) == header.kind


@given(HEADERS)
def test_the_plain_form_is_the_same_bytes(header: Header) -> None:
    plain = header._replace(marks=())
    raw = pack_plain(
        plain.kind, plain.run_tag, plain.source.encode(), plain.seq, plain.order_us, plain.payload_hash,
        plain.frontier_us,
    )  # fmt: skip
    assert raw == pack(plain)


@given(HEADERS, st.data())
def test_a_truncated_or_lengthened_header_is_an_error(header: Header, data: st.DataObject) -> None:
    raw = pack(header)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(HeaderError):
        unpack(raw[:cut])
    with pytest.raises(HeaderError):
        unpack(raw + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_garbage_is_a_header_error_and_nothing_else(raw: bytes) -> None:
    try:
        header = unpack(raw)
    except HeaderError:
        return
    assert pack(header) == raw


@given(HEADERS, st.data())
def test_a_flipped_byte_is_an_error_or_another_header(header: Header, data: st.DataObject) -> None:
    raw = bytearray(pack(header))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        assert unpack(bytes(raw)) != header
    except HeaderError:
        return


def test_a_source_name_has_at_most_255_bytes() -> None:
    with pytest.raises(Exception, match=r"range|format|255"):
        pack(Header(Kind.DECISION, b"run-tag!", "x" * 256, 1, 1))
    assert unpack(pack(Header(Kind.DECISION, b"run-tag!", "x" * 255, 1, 1))).frontier_us == NONE_TS


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x02\x0b"])
def test_bytes_of_no_header_of_this_version_have_no_kind(raw: bytes) -> None:
    assert kind_of(raw) is None
