"""The open run of an environment, as sr recorded it: at most one (dataflow.md §7)."""

from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A pinned run that has not ended, and where its control log begins."""

    platform_run_id: str
    pin_partition: int
    pin_offset: int


def find(conn: psycopg.Connection[Any]) -> OpenRun | None:
    """The open run, None while there is none."""
    row = conn.execute(
        "SELECT run, pin_partition, pin_offset FROM sr.run r"
        " WHERE NOT EXISTS (SELECT 1 FROM sr.run_end e WHERE e.run = r.run) ORDER BY at LIMIT 1"
    ).fetchone()
    return OpenRun(*row) if row else None
