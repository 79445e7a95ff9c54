"""Event time as text on the wire and as integer microseconds inside (UTC)."""

import re
from datetime import UTC, date, datetime
from functools import lru_cache

US_PER_S = 1_000_000
US_PER_DAY = 86_400 * US_PER_S
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
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
    days, rest = divmod(us, US_PER_DAY)
    seconds, micros = divmod(rest, US_PER_S)
    minutes, second = divmod(seconds, 60)
    return f"{_day_text(days)}T{_MINUTE_TEXT[minutes]}:{second:02}.{micros:06}Z"


_MINUTE_TEXT = tuple(f"{minute // 60:02}:{minute % 60:02}" for minute in range(1_440))


@lru_cache(maxsize=4_096)
def _day_text(days: int) -> str:
    return date.fromordinal(_EPOCH_DAY + days).isoformat()
