"""The hash chain of the governance log. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fp_contracts.canonical import digest_of

FIRST = "0" * 64


def chained(previous: str, n: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as number `n` of its chain: entry_hash = digest over the hash before it and itself."""
    linked = {**entry, "n": n, "prev_hash": previous}
    return {**linked, "entry_hash": digest_of(linked)}


def chain_fault(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """The first place where a chain does not recompute, None when it does."""
    previous = FIRST
    for n, entry in enumerate(entries, start=1):
        plain = {key: value for key, value in entry.items() if key != "entry_hash"}
        linked = entry.get("n") == n and entry.get("prev_hash") == previous
        if not linked or entry.get("entry_hash") != digest_of(plain):
            return f"entry {n} does not follow from the one before it"
        previous = str(entry["entry_hash"])
    return None
