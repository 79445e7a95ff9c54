"""wsp's progress in PostgreSQL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from fp_runtime.postgres import Connection, transaction


@dataclass(slots=True)
class LaneProgress:
    """What one lane had classed: last sequence, last acknowledged frontier (µs), lines by class and reason."""

    acked_seq: int = 0
    frontier_us: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def load(conn: Connection, run: str, window: int) -> dict[int, LaneProgress]:
    """Progress by lane; empty before the first save."""
    rows = conn.execute(
        "SELECT lane, acked_seq, frontier_us, counts FROM wsp.lane WHERE run = %s AND win = %s", (run, window)
    ).fetchall()
    return {lane: LaneProgress(seq, frontier, Counter(counts)) for lane, seq, frontier, counts in rows}


def classed(conn: Connection, run: str) -> dict[int, int]:
    """Lines classed of each lane as saved, over all windows of a run; lanes without a save are missing."""
    rows = conn.execute(
        "SELECT lane, sum(n)::bigint FROM (SELECT lane, (jsonb_each_text(counts)).value::bigint AS n FROM wsp.lane"
        " WHERE run = %s) c GROUP BY lane",
        (run,),
    ).fetchall()
    return {int(lane): int(n) for lane, n in rows}


def save(conn: Connection, run: str, window: int, lanes: Sequence[tuple[int, LaneProgress]]) -> None:
    """Save the lanes that moved. Progress only rises; saving late only means that lines are sent again."""
    with transaction(conn) as cur:
        cur.executemany(
            "INSERT INTO wsp.lane AS l (run, win, lane, acked_seq, frontier_us, counts)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (run, win, lane) DO UPDATE SET"
            " acked_seq = excluded.acked_seq, frontier_us = excluded.frontier_us, counts = excluded.counts,"
            " at = clock_timestamp() WHERE l.acked_seq <= excluded.acked_seq",
            [(run, window, lane, p.acked_seq, p.frontier_us, Jsonb(dict(p.counts))) for lane, p in lanes],
        )
