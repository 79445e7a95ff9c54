"""Booking on a real server: the sum of receipts plus what is unbooked is what was metered, always."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from fp_runtime import meter
from fp_runtime.meter import Sample, Spend, Totals, Usage
from fp_runtime.postgres import Connection, connect, transaction

pytestmark = pytest.mark.stack


def sample(cost: int) -> Sample:
    return Sample("rtdl", "rtdl-0", Usage(cpu_us=cost * 10), cost)


def add(conn: Connection, run: str, *costs: int) -> None:
    with transaction(conn) as cur:
        meter.add(cur, run, [sample(cost) for cost in costs])


def book(conn: Connection, run: str, phase: str, attempt: int = 1, earliest: bool = True) -> Spend:
    with transaction(conn) as cur:
        return meter.book(cur, run, phase, attempt, earliest)


def test_the_earliest_open_phase_takes_everything_that_is_not_booked(
    df: Connection, operator: Connection, run: str
) -> None:
    add(operator, run, 3, 4)
    add(operator, "another run", 1_000)
    assert book(df, run, "P2", earliest=False) == Spend(0, 0, 0, 0, 0)
    first = book(df, run, "P1")
    assert (first.samples, first.spend_microusd, first.last_sample - first.first_sample) == (2, 7, 1)
    assert book(df, run, "P2", attempt=2).spend_microusd == 0
    add(operator, run, 5)
    assert meter.totals(df, run) == Totals(12, 7, 5)
    assert book(df, run, "P3").spend_microusd == 5
    assert meter.totals(df, run) == Totals(12, 12, 0)


def test_an_attempt_keeps_its_receipt(df: Connection, operator: Connection, run: str) -> None:
    add(operator, run, 3)
    first = book(df, run, "P1")
    add(operator, run, 4)
    assert book(df, run, "P1") == first
    assert book(df, run, "P1", attempt=2).spend_microusd == 4


def test_concurrent_bookers_and_samplers_leave_nothing_out_and_nothing_twice(
    df: Connection, run: str, role_dsn: Callable[[str], str]
) -> None:
    def samples(n: int) -> None:
        with connect(role_dsn("fp_operator"), f"wire-sampler-{n}") as conn:
            for cost in range(1, 31):
                add(conn, run, cost, cost)

    def bookings(n: int) -> int:
        with connect(role_dsn("fp_df"), f"wire-booker-{n}") as conn:
            return sum(book(conn, run, f"P{n}", attempt).spend_microusd for attempt in range(1, 31))

    with ThreadPoolExecutor(4) as pool:
        sampling = [pool.submit(samples, n) for n in range(2)]
        booked = [pool.submit(bookings, n) for n in range(2)]
        for job in sampling:
            job.result()
        total = sum(job.result() for job in booked)
    total += book(df, run, "P17").spend_microusd
    assert total == 2 * 2 * sum(range(1, 31))
    assert meter.totals(df, run) == Totals(total, total, 0)


def test_a_sample_that_commits_late_is_not_passed_over(df: Connection, operator: Connection, run: str) -> None:
    """A booking waits for samplers whose ids are drawn and not yet committed."""
    with ThreadPoolExecutor(1) as pool:
        with transaction(operator) as cur:
            meter.add(cur, run, [sample(5)])
            booking = pool.submit(book, df, run, "P1")
            with pytest.raises(TimeoutError):
                booking.result(0.2)
        assert booking.result(10).spend_microusd == 5


def test_no_two_receipts_can_hold_one_sample(df: Connection, run: str) -> None:
    row = (
        "INSERT INTO ops.receipt (run, phase, attempt, after_sample, last_sample, first_sample, samples,"
        " spend_microusd, window_us) VALUES (%s, %s, 1, %s, %s, 1, 1, 1, 0)"
    )
    df.execute(row, (run, "P1", 0, 10))
    for low, high in ((0, 10), (5, 6), (9, 20)):
        with pytest.raises(psycopg.errors.ExclusionViolation):
            df.execute(row, (run, "P2", low, high))
    df.execute(row, (run, "P2", 10, 20))
    df.execute(row, ("another " + run, "P1", 0, 10))


def test_only_the_operator_meters(df: Connection, run: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        add(df, run, 1)
