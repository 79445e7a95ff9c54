"""Metered usage and its booking to phases: the sum of a run's receipts plus its unbooked samples is its metered total.

Costs are whole micro-USD, rounded up per sample, so that metering never shows less than was used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fp_runtime.postgres import Connection, Cursor

_GIB = 2**30
_HOUR_US = 3_600_000_000
_HOUR_S = 3_600
_MILLION = 1_000_000
_BOOKING_LOCK = 7378420126518404466  # the one that inserts into ops.meter share (migration 0003)


@dataclass(frozen=True, slots=True)
class Prices:
    """The pinned price table, all in micro-USD."""

    cpu_hour: int
    gib_hour: int
    gib_io: int
    million_requests: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used since its sample before."""

    cpu_us: int = 0
    rss_bytes_s: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One priced usage of one process of an instance, for the run that is open."""

    process: str
    instance: str
    usage: Usage
    cost_microusd: int


@dataclass(frozen=True, slots=True)
class Spend:
    """What one attempt of a phase was booked; all zero when it was not the earliest open one."""

    first_sample: int
    last_sample: int
    samples: int
    spend_microusd: int
    window_us: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one run, in micro-USD: metered = booked + unbooked, or the books are broken."""

    metered: int
    booked: int
    unbooked: int


def price(usage: Usage, prices: Prices) -> int:
    """The cost of a usage in micro-USD, rounded up once over its exact sum."""
    parts = (
        (usage.cpu_us * prices.cpu_hour, _HOUR_US),
        (usage.rss_bytes_s * prices.gib_hour, _GIB * _HOUR_S),
        ((usage.read_bytes + usage.write_bytes) * prices.gib_io, _GIB),
        (usage.requests * prices.million_requests, _MILLION),
    )
    common = _HOUR_US * _GIB * _HOUR_S * _MILLION
    total = sum(amount * (common // unit) for amount, unit in parts)
    return -(-total // common)


def add(cur: Cursor, run: str, samples: Sequence[Sample]) -> None:
    """Insert samples; keep the transaction short, a booking waits for it."""
    cur.executemany(
        "INSERT INTO ops.meter (run, process, instance, cpu_us, rss_bytes_s, read_bytes, write_bytes, requests,"
        " cost_microusd) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [_row(run, sample) for sample in samples],
    )


def _row(run: str, sample: Sample) -> tuple[object, ...]:
    used = sample.usage
    return (
        run, sample.process, sample.instance, used.cpu_us, used.rss_bytes_s, used.read_bytes, used.write_bytes,
        used.requests, sample.cost_microusd,
    )  # fmt: skip


def book(cur: Cursor, run: str, phase: str, attempt: int, earliest_open: bool) -> Spend:
    """The receipt row of an attempt: every sample of the run not yet booked if `earliest_open`, else nothing.

    An attempt that has a receipt gets it back. Samplers wait until this transaction ends (READ COMMITTED).
    """
    cur.execute("SELECT pg_advisory_xact_lock(%s)", (_BOOKING_LOCK,))
    known = _receipt(cur, run, phase, attempt)
    if known is not None:
        return known
    cur.execute(
        "WITH last AS (SELECT coalesce(max(last_sample), 0) AS id FROM ops.receipt WHERE run = %(run)s),"
        " open AS (SELECT count(*) AS n, min(id) AS first, max(id) AS last, sum(cost_microusd) AS spend,"
        "  extract(epoch FROM max(at) - min(at)) * 1000000 AS window_us"
        "  FROM ops.meter WHERE run = %(run)s AND id > (SELECT id FROM last) AND %(take)s)"
        " INSERT INTO ops.receipt"
        " (run, phase, attempt, after_sample, last_sample, first_sample, samples, spend_microusd, window_us)"
        " SELECT %(run)s, %(phase)s, %(attempt)s, CASE WHEN n > 0 THEN last.id END, open.last, coalesce(first, 0), n,"
        "  coalesce(spend, 0), coalesce(window_us, 0)::bigint FROM open, last",
        {"run": run, "phase": phase, "attempt": attempt, "take": earliest_open},
    )
    booked = _receipt(cur, run, phase, attempt)
    assert booked is not None
    return booked


def _receipt(cur: Cursor, run: str, phase: str, attempt: int) -> Spend | None:
    cur.execute(
        "SELECT first_sample, coalesce(last_sample, 0), samples, spend_microusd, window_us FROM ops.receipt"
        " WHERE run = %s AND phase = %s AND attempt = %s",
        (run, phase, attempt),
    )
    row = cur.fetchone()
    return None if row is None else Spend(*row)


def totals(conn: Connection, run: str) -> Totals:
    """The three sums of a run, each taken by itself, from one snapshot."""
    row = conn.execute(
        "SELECT (SELECT coalesce(sum(cost_microusd), 0) FROM ops.meter WHERE run = %(run)s)::bigint,"
        " (SELECT coalesce(sum(spend_microusd), 0) FROM ops.receipt WHERE run = %(run)s)::bigint,"
        " (SELECT coalesce(sum(cost_microusd), 0) FROM ops.meter m WHERE run = %(run)s AND NOT EXISTS"
        "  (SELECT FROM ops.receipt r WHERE r.run = m.run AND m.id > r.after_sample AND m.id <= r.last_sample)"
        " )::bigint",
        {"run": run},
    ).fetchone()
    assert row is not None
    return Totals(*row)
