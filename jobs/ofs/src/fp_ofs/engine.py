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
Tick = Callable[[int, int], None]


class Engine(Protocol):
    """Maps a row function over the groups of a table. Order within a group is the caller's; of groups, anybody's."""

    name: str

    def map_groups(self, table: pa.Table, key: str, function: RowFunction, tick: Tick) -> pa.Table:
        """Every group of equal `key` (null is a group) through `function` (PART); `tick` hears (done, total) rows."""
        ...


class Embedded:
    """One process, one group at a time: memory is the table and its largest group."""

    name = "embedded"

    def map_groups(self, table: pa.Table, key: str, function: RowFunction, tick: Tick) -> pa.Table:
        """See Engine."""
        done, found = 0, []
        for group in _groups(table, key):
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
    """The whole vector of every payment of `steps` (lane, n, vector, known_us), ordered by (lane, n).

    Accounts see payments as df merges them: by release time, then source (`rtdl:<lane>`), then the source's order.
    """
    merchants = engine.map_groups(steps, "merchant_id", partial(merchant_part, features=features), tick)
    payments = steps.filter(pc.is_null(steps.column("value"))).select(PAYMENTS.names)
    accounts = engine.map_groups(
        merge_order(payments), "account_id", partial(account_part, features=features), tick
    )  # fmt: skip
    sides = [part.sort_by([("lane", "ascending"), ("n", "ascending")]) for part in (merchants, accounts)]
    first, second = sides
    if not first.column("n").equals(second.column("n")):
        raise AssertionError("the merchant part and the account part speak of different payments")
    whole = pa.array(map(add, values(first, "vector"), values(second, "vector")), pa.binary())
    known = pc.max_element_wise(first.column("known_us"), second.column("known_us"))
    return pa.table([first.column("lane"), first.column("n"), whole, known], schema=PART)


def merge_order(payments: pa.Table) -> pa.Table:
    """Payments as df merges them: by release time, then source, then the order of the source.

    Sources are `rtdl:<lane>` and lanes have one digit, so the order of numbers is the order of names.
    """
    return payments.sort_by([("at_us", "ascending"), ("lane", "ascending"), ("n", "ascending")])
