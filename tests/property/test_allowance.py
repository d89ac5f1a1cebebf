"""What windows share, as a pure fold: nothing is drawn twice, out of time, or out of order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.periods import Period
from convergio.metering import schedule as schedules
from convergio.metering.allowance import draws, of_meter, standings
from convergio.metering.model import (
    DEFAULT_SEGMENT,
    Credit,
    Limit,
    Schedule,
    Segment,
    Share,
    WindowRow,
)
from convergio.metering.schedule import terms_at

START = datetime.fromisoformat("2025-01-01T00:00:00Z")
DAY = timedelta(days=1)
CUSTOMER = UUID(int=1)
ZERO = Decimal(0)
METER = "questions"
AMOUNTS = st.integers(0, 400).map(lambda n: Decimal(n) / 4)
DAYS = st.integers(0, 89)


@st.composite
def credits_(draw: st.DrawFn) -> list[Credit]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        start = START + draw(DAYS) * DAY
        lasts = draw(st.one_of(st.none(), st.integers(1, 60)))
        expires = None if lasts is None else start + lasts * DAY
        voided = draw(st.one_of(st.none(), st.integers(0, 60)))
        ends = [expires] if expires else []
        ends += [] if voided is None else [max(start, START + voided * DAY)]
        made.append(
            Credit(
                grant_id=UUID(int=number + 1),
                meter_key=METER,
                quantity=Decimal(draw(st.integers(1, 200))) / 2,
                priority=draw(st.integers(0, 2)),
                starts_at=start,
                created_at=START + draw(st.integers(0, 3)) * DAY,
                expires_at=expires,
                ends_at=min(ends, default=None),
            )
        )
    return made


@st.composite
def laid(draw: st.DrawFn, *, hard: bool = False) -> Schedule:
    """Return three months on a plan, with changes in them and credits."""
    whole = Schedule(1, (DEFAULT_SEGMENT,))
    for day in sorted({0, *draw(st.lists(DAYS, max_size=3))}):
        included = Decimal(draw(st.integers(0, 100)))
        at = START + day * DAY
        limit = Limit(
            limit=included + draw(st.sampled_from([0, 0, 7])) if hard else None,
            included=included,
            free=included,
            price=UUID(int=day + 1),
            begins=at,
        )
        segment = Segment(START, starts_at=at, limits={METER: limit}, since=START)
        whole = schedules.with_segment(whole, segment)
        period = terms_at(whole, METER, at).period
        if period.start < at:
            share = Share(METER, period, limit.limit or included, included, included)
            whole = schedules.with_share(whole, share)
    for credit in draw(credits_()):
        whole = schedules.with_credit(whole, credit)
    return whole


def windows_of(schedule: Schedule) -> list[Period]:
    found, at = [], START
    while at < START + 90 * DAY:
        found.append(terms_at(schedule, METER, at).window)
        at = found[-1].end
    return found


Uses = list[tuple[int, Decimal]]
USES = st.lists(st.tuples(st.integers(0, 89), AMOUNTS), max_size=12)


def used_in(windows: Sequence[Period], uses: Uses) -> list[Decimal]:
    return [
        sum((q for day, q in uses if window.contains(START + day * DAY)), ZERO)
        for window in windows
    ]


def rows_of(windows: Sequence[Period], used: Sequence[Decimal]) -> list[WindowRow]:
    return [
        WindowRow(CUSTOMER, 1, window.start, window.end, 1, quantity, ZERO, None, None)
        for window, quantity in zip(windows, used, strict=True)
    ]


@given(laid(), USES)
def test_no_credit_is_drawn_beyond_its_quantity_or_outside_of_its_time(
    schedule: Schedule, uses: Uses
) -> None:
    windows = windows_of(schedule)
    terms = [terms_at(schedule, METER, window.start) for window in windows]
    found = draws(terms, used_in(windows, uses), schedule.credits)
    for credit in schedule.credits:
        assert sum((one.taken.get(credit.grant_id, ZERO) for one in found), ZERO) <= credit.quantity
        for window, one in zip(windows, found, strict=True):
            if credit.grant_id in one.taken:
                assert credit.starts_at <= window.start
                assert credit.ends_at is None or window.end <= credit.ends_at


@given(laid(), USES)
def test_what_is_drawn_is_all_that_is_beyond_what_is_free_while_credit_lasts(
    schedule: Schedule, uses: Uses
) -> None:
    windows = windows_of(schedule)
    used = used_in(windows, uses)
    terms = [terms_at(schedule, METER, window.start) for window in windows]
    found = draws(terms, used, schedule.credits)
    before: dict[datetime, Decimal] = {}
    for each, quantity, one in zip(terms, used, found, strict=True):
        assert each.limit is not None
        assert each.limit.free is not None
        so_far = before.get(each.period.start, ZERO)
        beyond = max(ZERO, so_far + quantity - each.limit.free) - max(
            ZERO, so_far - each.limit.free
        )
        assert one.sum == min(beyond, one.credit)
        before[each.period.start] = so_far + quantity


@given(laid(), USES)
def test_a_credit_is_touched_only_when_those_before_it_are_used_up(
    schedule: Schedule, uses: Uses
) -> None:
    windows = windows_of(schedule)
    terms = [terms_at(schedule, METER, window.start) for window in windows]
    left = {one.grant_id: one.quantity for one in schedule.credits}
    for window, one in zip(
        windows, draws(terms, used_in(windows, uses), schedule.credits), strict=True
    ):
        for grant_id, quantity in one.taken.items():
            left[grant_id] -= quantity
        active = [
            credit
            for credit in schedule.credits
            if credit.starts_at <= window.start
            and (credit.ends_at is None or window.start < credit.ends_at)
        ]
        for first, second in pairwise(active):
            assert not (second.grant_id in one.taken and left[first.grant_id])


@given(laid(), st.randoms())
def test_the_order_of_grants_makes_no_difference(schedule: Schedule, random: Random) -> None:
    mixed = list(schedule.credits)
    random.shuffle(mixed)
    again = replace(schedule, credits=())
    for credit in mixed:
        again = schedules.with_credit(again, credit)
    assert again.credits == schedule.credits
    never = datetime.fromisoformat("9999-01-01T00:00:00Z")
    keys = [(c.priority, c.expires_at or never, c.created_at) for c in again.credits]
    assert keys == sorted(keys)
    assert windows_of(again) == windows_of(schedule)
    assert of_meter(again.credits, "another") == []


@given(laid(hard=True), USES, st.integers(0, 20))
def test_using_all_that_is_left_uses_up_the_allowance_and_the_credit(
    schedule: Schedule, uses: Uses, place: int
) -> None:
    """What a window may use is exact: so much, and not a unit more, is free or drawn."""
    windows = windows_of(schedule)
    place %= len(windows)
    used = used_in(windows[:place], [u for u in uses if START + u[0] * DAY < windows[place].start])
    rows = rows_of(windows[: place + 1], [*used, ZERO])
    limit = standings(schedule, METER, rows)[-1].quota_limit
    assert limit is not None
    terms = [terms_at(schedule, METER, row.start_at) for row in rows]
    here = terms[-1]
    assert here.limit is not None
    assert here.limit.limit is not None
    full = draws(terms, [*used, limit], schedule.credits)[-1]
    own = limit - full.sum  # of the allowance, after credit paid its part
    assert full.sum <= full.credit
    assert own <= max(ZERO, here.limit.limit - (full.used - full.drawn))
    assert here.limit.free is not None
    if full.drawn == max(ZERO, full.used - here.limit.free):  # credit paid all of it so far
        assert full.sum == full.credit
        assert own == max(ZERO, here.limit.limit - (full.used - full.drawn))


@given(laid(), DAYS)
def test_windows_tile_time_and_do_not_cross_credit(schedule: Schedule, day: int) -> None:
    moment = START + day * DAY
    window = terms_at(schedule, METER, moment).window
    assert window.contains(moment)
    assert terms_at(schedule, METER, window.start).window == window
    assert terms_at(schedule, METER, window.end).window.start == window.end
    for credit in schedule.credits:
        if credit.starts_at != credit.ends_at:
            for edge in (credit.starts_at, credit.ends_at):
                assert edge is None or not window.start < edge < window.end


@given(laid())
def test_what_changes_nothing_for_a_meter_cuts_none_of_its_windows(schedule: Schedule) -> None:
    last = schedule.segments[-1]
    at = START + 100 * DAY
    same = Segment(
        last.anchor, starts_at=at, limits=last.limits | {"other": Limit()}, since=last.since
    )
    changed = schedules.with_segment(schedule, same)
    probe = at + timedelta(hours=1)
    assert terms_at(changed, METER, probe).window == terms_at(schedule, METER, probe).window


def test_what_credit_paid_is_not_taken_from_the_limit() -> None:
    """57 may be used and beyond 50 costs: of 60 used, 10 were prepaid and 50 are of the 57."""
    limit = Limit(
        limit=Decimal(57), included=Decimal(50), free=Decimal(50), price=UUID(int=1), begins=START
    )
    whole = schedules.with_segment(
        Schedule(1, (DEFAULT_SEGMENT,)),
        Segment(START, starts_at=START, limits={METER: limit}, since=START),
    )
    for day, quantity in ((9, 30), (19, 5)):
        credit = Credit(
            UUID(int=day), METER, Decimal(quantity), 1, START + day * DAY, START + day * DAY
        )
        whole = schedules.with_credit(whole, credit)
    windows = windows_of(whole)[:3]
    rows = rows_of(windows, [ZERO, Decimal(60), ZERO])
    found = standings(whole, METER, rows)
    assert [one.quota_limit for one in found] == [57, 57 + 30, 7 + 20 + 5]
    assert [one.credit for one in found] == [0, 30, 25]
