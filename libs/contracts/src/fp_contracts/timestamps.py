"""Event time as text on the wire and as integer microseconds inside (UTC)."""

import re
from datetime import UTC, datetime, timedelta

US_PER_S = 1_000_000
US_PER_DAY = 86_400 * US_PER_S
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def to_us(text: str) -> int:
    """RFC 3339 text with six digits and `Z` to microseconds since the epoch; ValueError for any other form."""
    if len(text) != 27 or not _TEXT.fullmatch(text):
        raise ValueError(f"not a six-digit UTC timestamp: {text[:40]!r}")
    parsed = datetime.fromisoformat(text)
    delta = parsed - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * US_PER_S + delta.microseconds


def to_text(us: int) -> str:
    """Microseconds since the epoch to RFC 3339 text with six digits and `Z`."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds")[:-6] + "Z"
