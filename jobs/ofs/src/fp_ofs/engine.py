"""Where the row functions run: one port, the embedded engine here, Spark behind the same functions."""

from collections.abc import Callable, Iterator
from functools import partial
from operator import add
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fp_features import FeatureSet
from fp_ofs.features import PART, PAYMENTS, account_part, merchant_part, values

RowFunction = Callable[[pa.Table], pa.Table]
Order = tuple[str, ...]
IN_LANE: Order = ("lane", "n")
# Accounts see payments as df merges them: by release time, then source (`rtdl:<lane>`), then the source's order.
# Lanes have one digit, so the order of numbers is the order of source names.
AS_MERGED: Order = ("at_us", "lane", "n")
Tick = Callable[[int, int], None]


class Engine(Protocol):
    """Maps a row function over the groups of a table; the result (PART) comes in any order."""

    name: str

    def map_groups(self, table: pa.Table, key: str, order: Order, function: RowFunction, tick: Tick) -> pa.Table:
        """Every group of equal `key` (null is a group), sorted by `order`, through `function`.

        `tick` hears (done, total) rows.
        """
        ...


class Embedded:
    """One process, one group at a time: memory is the table and its largest group."""

    name = "embedded"

    def map_groups(self, table: pa.Table, key: str, order: Order, function: RowFunction, tick: Tick) -> pa.Table:
        """See Engine."""
        done, found = 0, []
        for group in _groups(sorted_by(table, order), key):
            found.append(function(group))
            done += group.num_rows
            tick(done, table.num_rows)
        return pa.concat_tables(found) if found else PART.empty_table()


def _groups(table: pa.Table, key: str) -> Iterator[pa.Table]:
    """Slices of equal key, each in the order of the table."""
    codes = table.column(key).combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ordered = table.take(order)
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    starts = [0, *edges.tolist()] if len(codes) else []
    for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield ordered.slice(start, end - start)


def vectors(engine: Engine, steps: pa.Table, features: FeatureSet, tick: Tick) -> pa.Table:
    """The whole vector of every payment of `steps` (lane, n, vector, known_us), ordered by (lane, n)."""
    merchants = engine.map_groups(steps, "merchant_id", IN_LANE, partial(merchant_part, features=features), tick)
    payments = steps.filter(pc.is_null(steps.column("value"))).select(PAYMENTS.names)
    accounts = engine.map_groups(
        payments, "account_id", AS_MERGED, partial(account_part, features=features), tick
    )  # fmt: skip
    sides = [sorted_by(part, IN_LANE) for part in (merchants, accounts)]
    first, second = sides
    if not first.column("n").equals(second.column("n")):
        raise AssertionError("the merchant part and the account part speak of different payments")
    whole = pa.array(map(add, values(first, "vector"), values(second, "vector")), pa.binary())
    known = pc.max_element_wise(first.column("known_us"), second.column("known_us"))
    return pa.table([first.column("lane"), first.column("n"), whole, known], schema=PART)


def sorted_by(table: pa.Table, order: Order) -> pa.Table:
    """The table in ascending order of these columns."""
    return table.sort_by([(name, "ascending") for name in order])
