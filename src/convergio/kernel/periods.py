"""Periods are half-open and come from the original anchor, never from the period before.

A `Calendar` is an anchor instant, a time zone and an interval. Its boundary number n is the
anchor's local date moved by n intervals, clamped to the month's last day from the ORIGINAL day
(31 January -> 28 February -> 31 March), at the anchor's local time. A local time that daylight
saving skips moves forward; one that comes twice is the first (RULES 15).
"""

import calendar
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from convergio.kernel.errors import Invalid, require

_INSTANT: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_YEAR_MIN: Final = 1970
_YEAR_MAX: Final = 9000
_CYCLE_DAYS: Final = 146_097  # 400 Gregorian years


class Interval(StrEnum):
    """How long a period is."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_MONTHS: Final = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}
_DAYS: Final = {Interval.DAY: 1, Interval.WEEK: 7}


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A half-open stretch of time, `[start, end)`, in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Require aware instants in order; an empty period is allowed."""
        require(self.start.tzinfo is UTC and self.end.tzinfo is UTC, "a period is in UTC")
        require(self.start <= self.end, "a period does not end before it starts")

    @property
    def seconds(self) -> int:
        """The whole seconds of UTC in the period, which proration counts (RULES 7)."""
        return (self.end - self.start) // timedelta(seconds=1)

    def contains(self, instant: datetime) -> bool:
        """Say whether the instant falls in the period; its end does not."""
        return self.start <= instant < self.end

    def overlap(self, other: "Period") -> "Period | None":
        """Return the time that both share, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None


def zone(name: str) -> ZoneInfo:
    """Return an IANA time zone. Raises: Invalid naming the mend."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        detail = f"'{name[:40]}' is not an IANA time zone; write one such as Europe/Rome or UTC"
        raise Invalid(detail, code="unknown_time_zone", field="time_zone") from None


def local(day: datetime, where: ZoneInfo) -> datetime:
    """Return the UTC instant of a naive local time: forward by a gap's length, first of a fold."""
    # For a skipped time fold=0 reads the offset from before the change: 02:30 becomes 03:30.
    return day.replace(tzinfo=where, fold=0).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The boundaries that follow from one anchor, zone and interval; each is worked out once."""

    anchor: datetime
    time_zone: str
    interval: Interval
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _local: datetime = field(init=False, repr=False, compare=False)
    _edges: dict[int, datetime] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the zone once. Raises: Invalid for an unknown zone or an anchor out of range."""
        require(self.anchor.tzinfo is UTC, "an anchor is in UTC")
        _in_range(self.anchor.year)
        where = zone(self.time_zone)
        object.__setattr__(self, "_zone", where)
        object.__setattr__(self, "_local", self.anchor.astimezone(where).replace(tzinfo=None))

    def boundary(self, number: int) -> datetime:
        """Return boundary `number`; 0 is the anchor. Raises: Invalid beyond the years 1970-9000."""
        if number == 0:
            return self.anchor
        known = self._edges.get(number)
        if known is None:
            known = self._edges[number] = self._edge(number)
        return known

    def _edge(self, number: int) -> datetime:
        months = _MONTHS.get(self.interval)
        if months is None:
            days = self._local.toordinal() + _DAYS[self.interval] * number
            _in_range(1 + days * 400 // _CYCLE_DAYS)
            moved = self._local + timedelta(days=_DAYS[self.interval] * number)
            return local(moved, self._zone)
        year, month0 = divmod(self._local.year * 12 + self._local.month - 1 + months * number, 12)
        _in_range(year)
        day = min(self._local.day, calendar.monthrange(year, month0 + 1)[1])
        return local(self._local.replace(year=year, month=month0 + 1, day=day), self._zone)

    def period(self, number: int) -> Period:
        """Return the period between boundary `number` and the next."""
        return Period(self.boundary(number), self.boundary(number + 1))

    def periods(self, count: int) -> list[Period]:
        """Return the first `count` periods."""
        edges = [self.boundary(number) for number in range(count + 1)]
        return [Period(start, end) for start, end in pairwise(edges)]

    def number_at(self, instant: datetime) -> int:
        """Return the number of the period that contains the instant; negative before the anchor."""
        there = instant.astimezone(self._zone).replace(tzinfo=None)
        months = _MONTHS.get(self.interval)
        if months is None:
            guess = (there - self._local) // timedelta(days=_DAYS[self.interval])
        else:
            guess = (
                (there.year - self._local.year) * 12 + there.month - self._local.month
            ) // months
        while self.boundary(guess) > instant:
            guess -= 1
        while self.boundary(guess + 1) <= instant:
            guess += 1
        return guess


def turn_before(instant: datetime, time_zone: str, interval: Interval) -> datetime:
    """Return the local midnight at which the calendar's own interval around an instant begins.

    Weeks begin on Monday (ISO 8601), quarters in January, April, July and October.
    """
    where = zone(time_zone)
    day = instant.astimezone(where).date()
    if interval == Interval.WEEK:
        day -= timedelta(days=day.weekday())
    elif interval != Interval.DAY:
        months = _MONTHS[interval]
        day = day.replace(month=(day.month - 1) // months * months + 1, day=1)
    return local(datetime.combine(day, time()), where)


def _in_range(year: int) -> None:
    if not _YEAR_MIN <= year <= _YEAR_MAX:
        detail = f"a period in the year {year} is out of range (1970 to 9000)"
        raise Invalid(f"{detail}; use a nearer anchor or fewer periods", code="out_of_range")


def parse_instant(text: str, *, field: str = "time") -> datetime:
    """Read an RFC 3339 instant with a zone, to the microsecond. Raises: Invalid naming the field.

    Finer fractions are cut, not rounded, so that an instant never moves into the next period.
    """
    found = _INSTANT.fullmatch(text) if isinstance(text, str) else None
    if found is not None:
        try:
            micro = (found[2] or "")[:6].ljust(6, "0")
            shift = "+00:00" if found[3] in "Zz" else found[3]
            return datetime.fromisoformat(f"{found[1]}.{micro}{shift}").astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # an impossible date or offset: told below like any other bad text
    detail = "write an instant with its zone, such as 2025-01-31T15:00:00Z"
    raise Invalid(detail, code="bad_time", field=field)


def instant_text(instant: datetime) -> str:
    """Return RFC 3339 text in UTC, with microseconds only where there are any."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def day_in(instant: datetime, time_zone: str) -> date:
    """Return the calendar day of the instant in a zone."""
    return instant.astimezone(zone(time_zone)).date()
