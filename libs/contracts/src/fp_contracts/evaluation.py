"""What an owner found about its phase: predicates with both sides, and the documents that show them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Predicate:
    """One evaluated check. `final` = waiting cannot make it true; `code` blocks the phase when it is false."""

    name: str
    observed: str
    required: str
    ok: bool
    code: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an owner found about its phase: predicates and the documents that show them (JSON, no floats)."""

    predicates: tuple[Predicate, ...]
    documents: Mapping[str, Any]

    def settled(self) -> bool:
        """Whether it can be closed now: all true, or one is false for good."""
        return all(p.ok for p in self.predicates) or any(p.final and not p.ok for p in self.predicates)
