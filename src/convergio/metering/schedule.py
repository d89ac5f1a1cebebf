"""Where a customer's windows begin and end: a pure reading of the stored schedule.

A segment says from when on which calendar and which limits hold. A window is the calendar's period
of its meter, cut where the meter's terms change and where prepaid credit begins or ends. A segment
that changes nothing for a meter cuts none of its windows (RULES 3).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from convergio.kernel.periods import Calendar, Interval, Period
from convergio.metering.model import Credit, Limit, Schedule, Segment, Share

_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Terms(NamedTuple):
    """What holds at a moment: the window, the period that it is of, and what is promised of it."""

    window: Period
    period: Period
    limit: Limit | None

    @property
    def is_shared(self) -> bool:
        """Say whether other windows have a part in the period's allowance."""
        return self.limit is not None and self.window != self.period


@lru_cache(maxsize=4096)
def _calendar(anchor: datetime, time_zone: str, interval: Interval) -> Calendar:
    return Calendar(anchor, time_zone, interval)


def _place(segments: Sequence[Segment], moment: datetime) -> int:
    place = 0
    while place + 1 < len(segments):
        start = segments[place + 1].starts_at
        if start is None or start > moment:
            break
        place += 1
    return place


def terms_at(schedule: Schedule, meter_key: str, moment: datetime) -> Terms:
    """Return the window of a meter that holds the moment, and what is promised of its period."""
    segments = schedule.segments
    first = last = _place(segments, moment)
    segment = segments[first]
    while first > 0 and _goes_on(segments[first - 1], segments[first], meter_key):
        first -= 1
    while last + 1 < len(segments) and _goes_on(segments[last], segments[last + 1], meter_key):
        last += 1
    limit = segment.limits.get(meter_key)
    interval = limit.interval if limit and limit.interval else segment.interval
    calendar = _calendar(segment.anchor, segment.time_zone, interval)
    period = calendar.period(calendar.number_at(moment))
    since = segment.since
    if since is not None and period.start < since <= moment:
        period = Period(since, period.end)
    begins = segments[first].starts_at
    ends = segments[last + 1].starts_at if last + 1 < len(segments) else None
    start = period.start if begins is None else max(period.start, begins)
    end = period.end if ends is None else min(period.end, ends)
    if limit is not None and limit.summed:
        for instant in _edges(schedule.credits, meter_key):
            if instant <= moment:
                start = max(start, instant)
            else:
                end = min(end, instant)
    return Terms(Period(start, end), period, limit)


def _goes_on(one: Segment, following: Segment, meter_key: str) -> bool:
    """Say whether a segment changes nothing for a meter."""
    return (
        one.since is not None
        and (one.since, one.anchor, one.time_zone)
        == (following.since, following.anchor, following.time_zone)
        and one.limits.get(meter_key) == following.limits.get(meter_key)
    )


def _edges(credits_: Sequence[Credit], meter_key: str) -> list[datetime]:
    """Return the instants at which credits of a meter begin and end."""
    return [
        instant
        for one in credits_
        if one.meter_key == meter_key and one.ends_at != one.starts_at
        for instant in (one.starts_at, one.ends_at)
        if instant is not None
    ]


def window_at(schedule: Schedule, meter_key: str, moment: datetime) -> Period:
    """Return the window of a meter that contains the moment."""
    return terms_at(schedule, meter_key, moment).window


def with_segment(schedule: Schedule, segment: Segment) -> Schedule:
    """Return the schedule with a segment that replaces everything from its start on."""
    start = segment.starts_at
    kept = tuple(
        old
        for old in schedule.segments
        if start is not None and (old.starts_at is None or old.starts_at < start)
    )
    return Schedule(schedule.version + 1, (*kept, segment), schedule.credits)


def with_share(schedule: Schedule, share: Share) -> Schedule:
    """Return the schedule with what the windows of a meter in a period come to together.

    What a segment does not limit stays without a limit, and one without the meter stays without.
    """
    segments = schedule.segments
    for instant in (share.period.start, share.period.end):
        segments = _split(segments, instant)
    changed = tuple(
        _sharing(one, share)
        if one.starts_at is not None and share.period.contains(one.starts_at)
        else one
        for one in segments
    )
    return Schedule(schedule.version, changed, schedule.credits)


def _split(segments: tuple[Segment, ...], instant: datetime) -> tuple[Segment, ...]:
    """Return the segments with one that begins at an instant, equal to the one before it."""
    place = _place(segments, instant)
    if segments[place].starts_at == instant:
        return segments
    again = msgspec.structs.replace(segments[place], starts_at=instant)
    return (*segments[: place + 1], again, *segments[place + 1 :])


def _sharing(segment: Segment, share: Share) -> Segment:
    old = segment.limits.get(share.meter_key)
    if old is None:
        return segment
    new = msgspec.structs.replace(
        old,
        limit=None if old.limit is None else share.limit,
        included=None if old.included is None else share.included,
        free=None if old.free is None else share.free,
    )
    return msgspec.structs.replace(segment, limits={**segment.limits, share.meter_key: new})


def with_credit(schedule: Schedule, credit: Credit) -> Schedule:
    """Return the schedule with a credit more, or with another end of one that it has."""
    others = [one for one in schedule.credits if one.grant_id != credit.grant_id]
    ordered = tuple(sorted([*others, credit], key=order))
    return Schedule(schedule.version + 1, schedule.segments, ordered)


def order(credit: Credit) -> tuple[int, datetime, datetime, str]:
    """Return the order in which credits are drawn: priority, expiry, creation, id (RULES 12)."""
    expires = credit.expires_at or _NEVER
    return credit.priority, expires, credit.created_at, credit.grant_id.hex
