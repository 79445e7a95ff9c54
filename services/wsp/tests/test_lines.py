"""The line writer: the same bytes as the plain definition, whatever a payment says; made once per payment."""

from hypothesis import example, given
from hypothesis import strategies as st

from fp_contracts.records import Pins
from fp_contracts.timestamps import US_PER_S
from fp_wsp.expand import Event, Flow, expand, line_of
from fp_wsp.lines import LineWriter
from fp_wsp.world import FIRST_PART_LEAD_US, LAST_PART_LAG_US, Payment

PINS = Pins("platform_20260101T000000Z", "a" * 32, "b" * 64, "c" * 64)
MINUTE_US = 60 * US_PER_S

TEXTS = st.text(max_size=12) | st.sampled_from(['Käse & "Söhne"', "a\\b\n\x00\x7f", "\u2028", "😀", ""])
OPTIONAL = st.none() | TEXTS
CHANNELS = TEXTS | st.sampled_from(["ECOM", "MOTO", "TRANSFER", "CARD_PRESENT"])
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(-(2**50), 2**51) | st.builds(
    lambda minute, near_us: minute * MINUTE_US + near_us,
    st.integers(0, 30_000_000),
    st.sampled_from([-LAST_PART_LAG_US, 0, FIRST_PART_LEAD_US]).flatmap(lambda us: st.integers(us - 2, us + 2)),
)
PAYMENTS = st.builds(
    Payment, TIMES, TEXTS, TEXTS, INT64, TEXTS, TEXTS, OPTIONAL, OPTIONAL, INT64, TEXTS, CHANNELS, OPTIONAL, OPTIONAL,
    OPTIONAL, OPTIONAL,
)  # fmt: skip
BARE = Payment(0, "p", "m", 0, "a", "i", None, None, -1, "", "ECOM", None, None, None, None)


@given(PAYMENTS)
@example(BARE)
def test_the_writer_of_a_run_writes_the_lines_of_the_definition(payment: Payment) -> None:
    written = LineWriter(PINS).line_of
    events = expand(payment, "d" * 32, 6)
    assert [written(event) for event in events] == [line_of(event, PINS) for event in events]


@given(st.text("0123456789abcdef", min_size=30, max_size=30), st.sampled_from(["00", "01", "10", "f0"]))
def test_traced_payments_are_those_of_the_definition(start: str, digits: str) -> None:
    ids = [f"{number}{start}{number}" for number in range(5)]
    flow = Flow(start + digits, BARE, ids, [])
    events = [Event(BARE.ts_us, 1, ids[part], part, 0, flow) for part in (0, 3)]
    written = LineWriter(PINS).line_of
    traces = [written(event).split(b'"traceparent":"')[1][:55] for event in events]
    assert traces == [line_of(event, PINS).split(b'"traceparent":"')[1][:55] for event in events]


def test_lines_are_made_once_and_only_when_asked_for() -> None:
    events = expand(BARE, "d" * 32, 6)
    assert not events[0].flow.lines
    written = LineWriter(PINS).line_of
    assert written(events[4]) is written(events[4])
    assert len(events[0].flow.lines) == 5
