"""Spans, prices and the poison limit: the pure parts of the stores."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_runtime.errors import LaneStopped
from fp_runtime.meter import Prices, Usage, price
from fp_runtime.quarantine import PoisonLimit
from fp_runtime.spans import Span, breaks

amounts = st.integers(0, 2**50)


def spans_between(cuts: list[int]) -> list[Span]:
    return [Span("t", 0, low, high) for low, high in pairwise(cuts)]


@given(st.sets(st.integers(0, 100), min_size=3).map(sorted), st.data())
def test_spans_tile_until_one_is_missing_or_doubled(cuts: list[int], data: st.DataObject) -> None:
    spans = spans_between(cuts)
    assert breaks(spans, cuts[0], cuts[-1]) == []
    at = data.draw(st.integers(0, len(spans) - 1))
    assert breaks(spans[:at] + spans[at + 1 :], cuts[0], cuts[-1]) != []
    assert breaks([*spans[: at + 1], *spans[at:]], cuts[0], cuts[-1]) != []


def test_breaks_name_the_place() -> None:
    assert breaks([Span("t", 0, 0, 5), Span("t", 0, 7, 9)], 0, 12) == ["gap [5, 7)", "gap [9, 12)"]
    assert breaks([Span("t", 0, 0, 5), Span("t", 0, 4, 9)], 0, 9) == ["overlap [4, 5)"]
    assert breaks([Span("t", 0, 0, 5)], 0, 4) == ["beyond the end by 1"]
    assert breaks([], 3, 3) == []


@given(amounts, amounts, amounts, amounts, st.tuples(*[st.integers(0, 10**9)] * 4))
def test_a_price_is_the_exact_cost_rounded_up(
    cpu_us: int, rss: int, io: int, requests: int, table: tuple[int, int, int, int]
) -> None:
    prices = Prices(*table)
    cost = price(Usage(cpu_us, rss, io, 0, requests), prices)
    exact = (
        Fraction(cpu_us * prices.cpu_hour, 3_600_000_000)
        + Fraction(rss * prices.gib_hour, 2**30 * 3600)
        + Fraction(io * prices.gib_io, 2**30)
        + Fraction(requests * prices.million_requests, 10**6)
    )
    assert exact <= cost < exact + 1


def test_twenty_in_a_row_stop_the_lane() -> None:
    limit = PoisonLimit()
    for _ in range(19):
        limit.poison()
    limit.good()
    for _ in range(19):
        limit.poison()
    with pytest.raises(LaneStopped, match="20 poison inputs in a row"):
        limit.poison()


def test_one_in_a_hundred_of_the_window_stops_the_lane() -> None:
    limit = PoisonLimit()
    for _ in range(99):
        limit.good(100)
        limit.poison()
    with pytest.raises(LaneStopped, match="100 poison inputs in the last"):
        limit.poison()


def test_poison_older_than_the_window_is_forgotten() -> None:
    limit = PoisonLimit()
    for _ in range(300):
        limit.good(101)
        limit.poison()
