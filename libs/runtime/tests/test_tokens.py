"""Producer tokens: what holds, what is refused, and with which status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_runtime.errors import UserError
from fp_runtime.tokens import Claims, Refusal, TokenRefused, authorize, issue, parse_keys, verify

RUN = "platform_20260101T000000Z"
KEYS = parse_keys("k1:" + "11" * 32 + ",k2:" + "22" * 32)
CLAIMS = Claims(kid="k1", sub="wsp", run=RUN, classes=("traffic_fraud",), exp_us=1_000)
TOKEN = issue(KEYS, CLAIMS)


def refused(token: str, now_us: int = 0) -> Refusal:
    with pytest.raises(TokenRefused) as caught:
        verify(KEYS, token, now_us)
    assert caught.value.status == 401
    return caught.value.refusal


def test_a_good_token_gives_its_claims() -> None:
    assert verify(KEYS, TOKEN, 999) == CLAIMS
    assert authorize(KEYS, f"Bearer {TOKEN}", RUN, 999) == CLAIMS
    assert authorize(KEYS, f"bearer {TOKEN}", RUN, 999) == CLAIMS


def test_it_expires_at_its_time() -> None:
    assert refused(TOKEN, 1_000) is Refusal.EXPIRED


def test_another_run_is_403() -> None:
    with pytest.raises(TokenRefused) as caught:
        authorize(KEYS, f"Bearer {TOKEN}", "platform_20260102T000000Z", 0)
    assert (caught.value.refusal, caught.value.status) == (Refusal.OTHER_RUN, 403)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN])
def test_no_bearer_is_missing(header: str | None) -> None:
    with pytest.raises(TokenRefused) as caught:
        authorize(KEYS, header, RUN, 0)
    assert caught.value.refusal is Refusal.MISSING


def test_a_token_of_an_unknown_or_another_key_is_refused() -> None:
    assert refused(issue({"k9": b"x" * 32}, CLAIMS.model_copy(update={"kid": "k9"}))) is Refusal.UNKNOWN_KEY
    assert refused(issue({"k1": KEYS["k2"]}, CLAIMS)) is Refusal.BAD_SIGNATURE


def test_rotated_keys_hold_side_by_side() -> None:
    second = CLAIMS.model_copy(update={"kid": "k2"})
    assert verify(KEYS, issue(KEYS, second), 0) == second


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii", exclude_characters="\r\n"))
def test_no_changed_character_is_accepted_with_other_claims(at: int, char: str) -> None:
    changed = TOKEN[:at] + char + TOKEN[at + 1 :]
    try:
        claims = verify(KEYS, changed, 0)
    except TokenRefused:
        return
    assert claims == CLAIMS


@pytest.mark.parametrize("text", ["k1", "k1:zz", ":" + "11" * 32, "k1:1111", "k1:" + "11" * 32 + ",k1:" + "22" * 32])
def test_malformed_keys_are_told(text: str) -> None:
    with pytest.raises(UserError, match="producer keys"):
        parse_keys(text)


def test_long_or_foreign_text_is_malformed() -> None:
    assert refused("x" * 5_000 + ".y") is Refusal.MALFORMED
    assert refused("é.é") is Refusal.MALFORMED
    assert refused("abc") is Refusal.MALFORMED
