"""The pinned price table (micro-USD) that usage is metered with."""

from importlib.resources import files

from fp_contracts.canonical import digest_of, parse_strict
from fp_runtime.meter import Prices


def price_table() -> tuple[Prices, str]:
    """The table that this build carries, and its digest."""
    document = parse_strict(files("fp_operator").joinpath("price_table.json").read_bytes())
    prices = Prices(
        document["cpu_hour"], document["gib_hour"], document["gib_io"], document["million_requests"]
    )  # fmt: skip
    return prices, digest_of(document)
