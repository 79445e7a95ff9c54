"""The currency table: whole, without doubles, and with the decimals that ISO 4217 gives."""

import pytest

from fp_contracts import currencies
from fp_contracts.currencies import EXPONENTS
from fp_contracts.envelope import CURRENCY


def test_every_code_has_the_form_of_the_contract_and_stands_once() -> None:
    lists = [codes.split() for table in (currencies._CODES, currencies._WITHDRAWN) for codes in table.values()]
    assert all(CURRENCY.fullmatch(code) for code in EXPONENTS)
    assert sum(map(len, lists)) == len(EXPONENTS)
    assert all(codes == sorted(codes) for codes in lists)
    assert sum(len(codes.split()) for codes in currencies._CODES.values()) == 165  # 178 less the 13 without minor units


@pytest.mark.parametrize(
    ("code", "decimals"),
    [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("UYW", 4), ("UYI", 0), ("ISK", 0), ("HRK", 2),
     ("BGN", 2), ("ITL", 0), ("MGA", 2)],
)  # fmt: skip
def test_decimals(code: str, decimals: int) -> None:
    assert EXPONENTS[code] == decimals


@pytest.mark.parametrize("code", ["YEN", "XXZ", "XXX", "XTS", "XAU", "XDR", "jpy", "EURO", ""])
def test_what_is_no_currency_is_not_there(code: str) -> None:
    assert code not in EXPONENTS
