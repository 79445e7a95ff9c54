"""Which payments a bench works on: [first, until) of event time."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

US_PER_S = 1_000_000
DAY_US = 86_400_000_000


class Span(NamedTuple):
    """Days [first, until), UTC."""

    first: date
    until: date

    @property
    def first_text(self) -> str:
        """As `fp world import --from` takes it."""
        return f"{self.first}T00:00:00Z"

    @property
    def until_text(self) -> str:
        """As `fp world import --until` takes it."""
        return f"{self.until}T00:00:00Z"

    @property
    def first_us(self) -> int:
        """µs since 1970."""
        return us_of(self.first)

    @property
    def until_us(self) -> int:
        """µs since 1970."""
        return us_of(self.until)


# 37 days (30 of the longest window, 7 of the label delay) before the first published train week; the last test week.
PUBLISHED = Span(date(2018, 6, 18), date(2018, 9, 5))


def us_of(day: date) -> int:
    """The first µs of a day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * US_PER_S


def short(days: int) -> Span:
    """The first days of the slice: to try the way."""
    return Span(PUBLISHED.first, PUBLISHED.first + timedelta(days=days))
