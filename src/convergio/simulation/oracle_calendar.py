"""The oracle's calendar: boundaries counted from the anchor, by hand.

RULES 15: every boundary comes from the ORIGINAL anchor's local day and time, clamped to the last
day of its month; a local time that daylight saving skips moves forward, one that comes twice is
the first. It shares no code with `kernel.periods.Calendar`, which it is there to check.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAYS = {"day": 1, "week": 7}
_YEAR = 12

Span = tuple[datetime, datetime]


def boundary(anchor: datetime, zone: str, interval: str, number: int) -> datetime:
    """Return boundary `number` of an anchor; 0 is the anchor itself."""
    if number == 0:
        return anchor
    there = anchor.astimezone(ZoneInfo(zone))
    if interval in _DAYS:
        day = there.date() + timedelta(days=_DAYS[interval] * number)
    else:
        months = there.year * _YEAR + there.month - 1 + _MONTHS[interval] * number
        day = _clamped(months // _YEAR, months % _YEAR + 1, there.day)
    return _moment(day, there, zone)


def spans(anchor: datetime, zone: str, interval: str, until: datetime) -> Iterator[Span]:
    """Yield the periods that begin at or before an instant, in order."""
    number = 0
    while (start := boundary(anchor, zone, interval, number)) <= until:
        yield start, boundary(anchor, zone, interval, number + 1)
        number += 1


def span_at(anchor: datetime, zone: str, interval: str, instant: datetime) -> Span | None:
    """Return the period that holds an instant, or None before the anchor."""
    every = list(spans(anchor, zone, interval, instant))
    return every[-1] if every else None


def turn(instant: datetime, zone: str, interval: str) -> datetime:
    """Return the local midnight at which the calendar's own period around an instant begins.

    Weeks begin on Monday; quarters in January, April, July and October.
    """
    day = instant.astimezone(ZoneInfo(zone)).date()
    if interval == "week":
        day -= timedelta(days=day.weekday())
    elif interval != "day":
        months = _MONTHS[interval]
        day = date(day.year, (day.month - 1) // months * months + 1, 1)
    return _moment(day, datetime(day.year, day.month, day.day, tzinfo=UTC), zone)


def days_of(span: Span, zone: str) -> tuple[str, str]:
    """Return the first and the last local day of a period."""
    where = ZoneInfo(zone)
    start, end = span
    last = (end - timedelta(microseconds=1)).astimezone(where)
    return start.astimezone(where).date().isoformat(), last.date().isoformat()


def _clamped(year: int, month: int, day: int) -> date:
    while True:
        try:
            return date(year, month, day)
        except ValueError:
            day -= 1


def _moment(day: date, there: datetime, zone: str) -> datetime:
    """Return a local time as UTC; reading a skipped one with the older offset moves it on."""
    wall = datetime(
        day.year, day.month, day.day, there.hour, there.minute, there.second,
        there.microsecond, tzinfo=ZoneInfo(zone), fold=0,
    )  # fmt: skip
    return wall.astimezone(UTC)
