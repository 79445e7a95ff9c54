"""What verdict keeps and reads in PostgreSQL: month-to-date spend, the reporter lock, alerts."""

from collections.abc import Sequence

from fp_contracts.control import AlertFired
from fp_runtime import lease
from fp_runtime.postgres import Connection

REPORTER_TTL_S = 10.0


def month_spend(conn: Connection) -> tuple[str, int, int]:
    """(month YYYY-MM, metered micro-USD of it so far, database clock in µs)."""
    row = conn.execute(
        "SELECT to_char(now(), 'YYYY-MM'),"
        " (SELECT coalesce(sum(cost_microusd), 0) FROM ops.meter WHERE at >= date_trunc('month', now()))::bigint,"
        " (extract(epoch FROM now()) * 1000000)::bigint"
    ).fetchone()
    assert row is not None
    return str(row[0]), int(row[1]), int(row[2])


def hold_reporter(conn: Connection, run: str, holder: str) -> None:
    """Take or renew the reporter lock of a run, if nobody else holds it."""
    lease.acquire(conn, _reporter(run), holder, REPORTER_TTL_S)


def reporter_of(conn: Connection, run: str) -> str | None:
    """Who holds the reporter lock of a run."""
    return lease.holder_of(conn, _reporter(run))


def _reporter(run: str) -> str:
    return f"reporter|{run}"


def epochs_of(conn: Connection, run: str) -> dict[str, int]:
    """The highest epoch of a partition that each instance owns in a run; 1 = nobody owned it before."""
    rows = conn.execute(
        "SELECT owner, max(epoch) FROM ops.owner WHERE starts_with(scope, %s) GROUP BY owner", (f"{run}|",)
    )
    return {str(owner): int(epoch) for owner, epoch in rows.fetchall()}


def journal_alert(conn: Connection, run: str, alert: AlertFired) -> None:
    """Record an alert before it is published."""
    conn.execute(
        "INSERT INTO verdict.alert (run, rule, instance, observed, threshold, at_us) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (run, alert.rule, alert.instance, alert.observed, alert.threshold, alert.at_us),
    )


def alert_count(conn: Connection, run: str) -> int:
    """How many alerts of a run are journaled."""
    row = conn.execute("SELECT count(*) FROM verdict.alert WHERE run = %s", (run,)).fetchone()
    return 0 if row is None else int(row[0])


def alerts_of(conn: Connection, run: str) -> Sequence[AlertFired]:
    """Every journaled alert of a run, in time order."""
    rows = conn.execute(
        "SELECT rule, instance, observed, threshold, at_us FROM verdict.alert WHERE run = %s ORDER BY at_us, rule",
        (run,),
    )
    return [
        AlertFired(rule=rule, instance=instance, observed=observed, threshold=threshold, at_us=at_us)
        for rule, instance, observed, threshold, at_us in rows.fetchall()
    ]
