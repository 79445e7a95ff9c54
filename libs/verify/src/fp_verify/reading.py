"""Values out of evidence documents, and the checks that cells are made of. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fp_contracts.canonical import CanonicalError, canonical_bytes, sha256_hex
from fp_verify.cells import Check


def at(found: Any, *path: Any) -> Any:
    """A value of a document by its path; None where there is none."""
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def embedded(found: Any) -> Any:
    """The document of an object that evidence carries with its reference; None unless it has the referenced bytes."""
    document, sha256 = at(found, "document"), at(found, "ref", "sha256")
    try:
        return document if document is not None and sha256_hex(canonical_bytes(document)) == sha256 else None
    except CanonicalError:
        return None


def same(name: str, observed: Any, required: Any) -> Check:
    """Equal, and there at all."""
    return (name, str(observed), str(required), observed is not None and observed == required)


def none(name: str, found: Sequence[str]) -> Check:
    """Nothing to name."""
    return (name, ", ".join(found[:3]) or "none", "none", not found)


def whole(found: Any) -> int | None:
    """An integer, or None."""
    return found if isinstance(found, int) and not isinstance(found, bool) else None
