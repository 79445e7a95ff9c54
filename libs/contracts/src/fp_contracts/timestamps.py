"""Event time as text on the wire and as integer microseconds inside (UTC)."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

US_PER_S = 1_000_000
US_PER_DAY = 86_400 * US_PER_S
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_US_PER_MINUTE = 60 * US_PER_S
_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d:", re.ASCII)


def to_us(text: str) -> int:
    """RFC 3339 text with six digits and `Z` to microseconds since the epoch; ValueError for any other form."""
    digits = text[14:16] + text[17:19] + text[20:26]
    if text[16:20:3] + text[26:] == ":.Z" and digits.isdigit() and digits.isascii():
        minute, us = divmod(int(digits), 100 * US_PER_S)
        if minute < 60 and us < _US_PER_MINUTE:
            return _hour_us(text[:14]) + minute * _US_PER_MINUTE + us
    raise ValueError(f"not a six-digit UTC timestamp: {text[:40]!r}")


@lru_cache(maxsize=4_096)
def _hour_us(text: str) -> int:
    """Of a time's first 14 characters; there are few hours in a run, and reading them is most of the work."""
    if not _HOUR.fullmatch(text):
        raise ValueError(f"not a six-digit UTC timestamp: {text!r} …")
    hours = (datetime.fromisoformat(f"{text}00+00:00") - _EPOCH) // timedelta(hours=1)
    return hours * 60 * _US_PER_MINUTE


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
