"""What must hold, told bar by bar. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class Bar(NamedTuple):
    """One thing that must hold: what was seen, and whether it does."""

    name: str
    seen: str
    ok: bool


def at_least(name: str, seen: float, required: float) -> Bar:
    """A figure against its bar: compared as it is, and shown to four digits, since the book's have three."""
    return Bar(f"{name} ≥ {required}", f"{seen:.4f}", seen >= required)


def told(found: Sequence[Bar]) -> list[str]:
    """What had to hold, and what did not."""
    words = "; ".join(f"{bar.name}: {bar.seen}, {'met' if bar.ok else 'MISSED'}" for bar in found)
    return [f"- Bars: {words}."]
