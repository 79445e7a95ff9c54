"""Card numbers are found by form, network and check digit, and nothing else is."""

import pytest

from fp_operator.worlds.cards import has_card_number, token_of


@pytest.mark.parametrize(
    "text",
    ["4111111111111111", "378282246310005", "card-6011111111111117", "3530111333300000", "5555-5555-5555-4444",
     "2223 0031 2200 3222", "pay 4222222222222 now"],
)  # fmt: skip
def test_card_numbers_are_found(text: str) -> None:
    assert has_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "411111111111",
        "1111111111111117",
        "pay-102580",
        "",
        "20190304101500",
        "41111111111111111111111",
    ],
)
def test_other_ids_are_left_alone(text: str) -> None:
    assert not has_card_number(text)


def test_tokens_are_stable_under_a_key_only() -> None:
    assert token_of("4111111111111111", b"a") == token_of("4111111111111111", b"a")
    assert token_of("4111111111111111", b"a") != token_of("4111111111111111", b"b")
    assert not has_card_number(token_of("4111111111111111", b"a"))
