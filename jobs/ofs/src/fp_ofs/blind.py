"""Rows again from the past alone: what a feature may know, shown by taking the future away. Pure."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fp_features import FeatureSet
from fp_ofs.engine import AS_MERGED, IN_LANE, Embedded, Engine, sorted_by
from fp_ofs.features import account_part, merchant_part, values

CUTS = (0.25, 0.5, 0.75)
SAMPLE = 12
Place = tuple[int, int]


def future_blind_pairs(steps: pa.Table, whole: pa.Table, features: FeatureSet) -> tuple[tuple[bytes, bytes], ...]:
    """(vector with everything, vector with the past alone) of sampled rows.

    At each cut of time some accounts are taken, spread evenly over the order of their names; the last payment of each
    is computed again from the records at or before the cut, its merchant's and its own.
    """
    pairs: list[tuple[bytes, bytes]] = []
    known = dict(zip(_places(whole), values(whole, "vector"), strict=True))
    times = np.sort(steps.column("at_us").to_numpy())
    for share in CUTS if len(times) else ():
        cut_us = times[int(share * (len(times) - 1))]
        past = steps.filter(pa.array(steps.column("at_us").to_numpy() <= cut_us))
        pairs += [(known[place], vector) for place, vector in _again(past, features)]
    return tuple(pairs)


def _again(past: pa.Table, features: FeatureSet) -> list[tuple[Place, bytes]]:
    accounts = _sample(values(past, "account_id"))
    payments = sorted_by(past.filter(_among(past, "account_id", accounts)), AS_MERGED)
    last = dict(zip(values(payments, "account_id"), _places(payments), strict=True))
    wanted = set(last.values())
    merchants = {
        merchant
        for merchant, place in zip(values(payments, "merchant_id"), _places(payments), strict=True)
        if place in wanted
    }
    theirs = past.filter(_among(past, "merchant_id", sorted(merchants)))
    engine: Engine = Embedded()
    first = engine.map_groups(theirs, "merchant_id", IN_LANE, lambda group: merchant_part(group, features), _quiet)
    second = engine.map_groups(payments, "account_id", AS_MERGED, lambda group: account_part(group, features), _quiet)
    heads = dict(zip(_places(first), values(first, "vector"), strict=True))
    tails = zip(_places(second), values(second, "vector"), strict=True)
    return [(place, heads[place] + tail) for place, tail in tails if place in wanted]


def _among(table: pa.Table, name: str, wanted: Sequence[str]) -> pa.BooleanArray:
    return pc.is_in(table.column(name), pa.array(wanted, pa.string()))


def _places(table: pa.Table) -> list[Place]:
    return list(zip(values(table, "lane"), values(table, "n"), strict=True))


def _sample(names: Sequence[str | None]) -> list[str]:
    ordered = sorted({name for name in names if name is not None})
    return ordered[:: max(1, len(ordered) // SAMPLE)][:SAMPLE]


def _quiet(_done: int, _total: int) -> None:
    """Nobody waits for the sample."""
