"""Periods: without gap or overlap, from the original anchor, in any zone."""

import calendar as months
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.periods import Calendar, Interval, instant_text, parse_instant, zone

ZONES = st.sampled_from(
    ["UTC", "Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe",
     "Pacific/Chatham", "America/St_Johns", "Africa/Casablanca", "Pacific/Auckland"]
)  # fmt: skip
INSTANTS = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone itself
    datetime(2060, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)


@given(INSTANTS, ZONES, st.sampled_from(Interval), st.integers(1, 60))
def test_periods_meet_without_gap_or_overlap(
    anchor: datetime, time_zone: str, interval: Interval, count: int
) -> None:
    periods = Calendar(anchor, time_zone, interval).periods(count)
    assert len(periods) == count
    assert periods[0].start == anchor
    assert all(period.start < period.end for period in periods)
    for before, after in pairwise(periods):
        assert before.end == after.start


@given(INSTANTS, ZONES, st.sampled_from(Interval), INSTANTS)
def test_an_instant_is_in_the_period_of_its_number(
    anchor: datetime, time_zone: str, interval: Interval, instant: datetime
) -> None:
    found = Calendar(anchor, time_zone, interval)
    assert found.period(found.number_at(instant)).contains(instant)


@given(INSTANTS, ZONES, st.sampled_from([Interval.MONTH, Interval.QUARTER, Interval.YEAR]),
       st.integers(1, 60))  # fmt: skip
def test_a_month_is_clamped_from_the_original_day(
    anchor: datetime, time_zone: str, interval: Interval, number: int
) -> None:
    here = zone(time_zone)
    began = anchor.astimezone(here)
    then = Calendar(anchor, time_zone, interval).boundary(number).astimezone(here)
    last = months.monthrange(then.year, then.month)[1]
    assert then.day == min(began.day, last)
    skipped = then.replace(tzinfo=None) - began.replace(year=then.year, month=then.month,
                                                       day=then.day, tzinfo=None)  # fmt: skip
    assert timedelta(0) <= skipped <= timedelta(hours=1)


@given(INSTANTS)
def test_an_instant_reads_back_from_its_text(instant: datetime) -> None:
    assert parse_instant(instant_text(instant)) == instant
