"""Re-makes the shipped worlds from a Sparkov table: `python -m fp_operator.worlds.cut SOURCE --out FOLDER`."""

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import duckdb
import typer

from fp_operator.worlds import sql

COLUMNS = ("tx_id", "event_time", "card_id", "merchant", "category", "amt", "is_fraud")


class Cut(NamedTuple):
    """Cards with sha256(card) modulo `modulo` under `below`, payments in [start, until), at most the first `rows`."""

    modulo: int
    below: int
    start: str
    until: str
    rows: int


CUTS = {
    "sample": Cut(100, 33, "2019-03-04", "2019-04-15", 1_000_000),
    "tiny": Cut(204, 1, "2019-03-04", "2019-04-15", 500),
}


def cut(source: Path, target: Path, wanted: Cut) -> int:
    """Write the cut in event-time order; how many rows. Columns nobody maps are left out."""
    columns = ", ".join(f"CAST({c} AS VARCHAR) AS {c}" if c in ("merchant", "category") else c for c in COLUMNS)
    query = f"""SELECT {columns} FROM read_parquet({sql.literal(str(source))})
     WHERE event_time >= {sql.literal(wanted.start)} AND event_time < {sql.literal(wanted.until)}
       AND (CAST('0x' || substr(sha256(CAST(card_id AS VARCHAR)), 1, 15) AS BIGINT) % {wanted.modulo}) < {wanted.below}
     ORDER BY event_time, tx_id LIMIT {wanted.rows}"""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY ({query}) TO {sql.literal(str(target))} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 19)"
        )
        found = connection.execute(f"SELECT count(*) FROM read_parquet({sql.literal(str(target))})").fetchone()
    return int(found[0]) if found else 0


def main(source: Path, out: Annotated[Path, typer.Option()] = Path(__file__).parent / "sample") -> None:
    """Cut both shipped worlds from the Sparkov table SOURCE into the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    for name, wanted in CUTS.items():
        target = out / f"{name}.parquet"
        sys.stdout.write(f"{target}: {cut(source, target, wanted)} payments, {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    typer.run(main)
