"""Card numbers in foreign data: found by form and check digit, replaced by a keyed token. Pure."""

import hashlib
import hmac
import re

DIGIT_RUN = r"\d{13,19}"
_SEPARATORS = str.maketrans("", "", " -")
_RUN = re.compile(DIGIT_RUN)
_NETWORKS = "23456"  # first digits of every card network


def has_card_number(text: str) -> bool:
    """Whether a run of 13 to 19 digits with a card network's first digit passes the Luhn check (blanks, dashes out)."""
    return any(
        run[0] in _NETWORKS and _luhn(run) for form in {text, text.translate(_SEPARATORS)} for run in _RUN.findall(form)
    )


def token_of(text: str, key: bytes) -> str:
    """A stable stand-in under one key; without the key it cannot be turned back by trying numbers."""
    return "tok_" + hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0
