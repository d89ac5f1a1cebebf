"""When a change takes effect, what it ends and begins, and what is left of a quota."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest

from convergio.catalog.model import Price, Quota
from convergio.kernel.errors import Conflict, Invalid, LimitExceeded
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.metering.model import Share
from convergio.rating.model import Flat, Seat, Unit
from convergio.subscriptions import limits, rules
from convergio.subscriptions.model import Status, Trial, TrialPolicy, When
from tests.fakes.agreements import CUSTOMER, agreement, price
from tests.fakes.business import at

START = at("2025-01-01")
LOW, HIGH = price(1, Flat(amount="5")), price(2, Flat(amount="9"))
YEAR = price(3, Flat(amount="50"), interval="year")
SEATS = price(4, Seat(unit="3"))
FREE = replace(
    price(5, Unit(unit="0.10", included="50"), meter="questions"),
    quota=Quota(Decimal(50), hard=True),
)
USED = price(6, Unit(unit="0.10"), meter="questions")
ONE = (1, 1)


@pytest.mark.parametrize(
    ("asked", "old", "new", "seats", "found"),
    [
        (None, [LOW], [HIGH], ONE, When.NOW),
        (None, [HIGH], [LOW], ONE, When.PERIOD_END),
        (None, [LOW], [YEAR], ONE, When.PERIOD_END),
        (None, [SEATS], [SEATS], (1, 3), When.NOW),
        (None, [SEATS], [SEATS], (3, 1), When.PERIOD_END),
        (None, [FREE], [USED], ONE, When.NOW),
        (When.NOW, [HIGH], [LOW], ONE, When.NOW),
        (When.PERIOD_END, [LOW], [HIGH], ONE, When.PERIOD_END),
    ],
)
def test_more_takes_effect_now_and_less_at_the_end(
    asked: When | None, old: list[Price], new: list[Price], seats: tuple[int, int], found: When
) -> None:
    assert rules.when_of(asked, old, new, seats=seats) == found


def test_a_hard_quota_within_the_allowance_is_free_and_an_open_price_is_not() -> None:
    assert rules.is_free([FREE], 1)
    assert not rules.is_free([USED], 1)
    assert not rules.is_free([LOW], 1)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [([FREE], [LOW], True), ([LOW], [YEAR], True), ([LOW], [HIGH], False), ([LOW], [FREE], False)],
)
def test_free_to_paid_and_another_interval_open_periods(
    old: list[Price], new: list[Price], found: bool
) -> None:
    assert rules.opens_a_period(old, new, seats=ONE) is found


def test_a_change_of_seats_touches_the_seats_alone() -> None:
    items = agreement([SEATS, USED], START).items
    ending, beginning = rules.swapped(items, [SEATS, USED], 3)
    assert ending == [items[0].item_id]
    assert beginning == [SEATS]


def test_windows_of_a_cut_period_share_the_allowance_of_all_its_stretches() -> None:
    small = replace(USED, quota=Quota(Decimal(310), hard=True))
    months = {each: Calendar(START, "UTC", each) for each in Interval}
    cut, end = at("2025-01-11"), at("2025-02-01")
    (old,) = agreement([FREE], START).items
    (new,) = agreement([small], cut).items
    items = [old._replace(active_until=cut, credited=True), new]
    book = {FREE.price_id: FREE, small.price_id: small}
    (share,) = limits.shares(items, book, months, cut)
    # 50 x 10/31 + 310 x 21/31 = 226.1, rounded up; included is 50 x 10/31 = 16.1
    assert share == Share("questions", Period(START, end), Decimal(227), Decimal(17), Decimal(17))
    each = limits.shares(items, book, months, cut, unsummed=frozenset({"questions"}))
    assert [(one.period, one.limit) for one in each] == [
        (Period(START, cut), Decimal(17)),
        (Period(cut, end), Decimal(210)),
    ]


def test_a_change_at_a_boundary_cuts_nothing() -> None:
    months = {each: Calendar(START, "UTC", each) for each in Interval}
    boundary = at("2025-02-01")
    (old,) = agreement([FREE], START).items
    (new,) = agreement([USED], boundary).items
    items = [old._replace(active_until=boundary, credited=True), new]
    book = {FREE.price_id: FREE, USED.price_id: USED}
    assert limits.shares(items, book, months, boundary) == []


def test_a_trial_moves_the_anchor_and_needs_a_sequel() -> None:
    made = rules.new_subscription(
        CUSTOMER, CUSTOMER, "pro", start=START, now=START, time_zone="UTC", currency="usd",
        trial=Trial(14),
    )  # fmt: skip
    assert (made.status, made.trial_ends_at) == (Status.TRIALING, at("2025-01-15"))
    for wrong in (
        Trial(0),
        Trial(731),
        Trial(14, TrialPolicy.FALL_BACK),
        Trial(14, TrialPolicy.PAUSE, "free"),
    ):
        with pytest.raises(Invalid):
            rules.check_trial(wrong)


@pytest.mark.parametrize("status", [Status.PAUSED, Status.UNPAID, Status.INCOMPLETE])
def test_what_is_paused_or_unpaid_takes_no_change(status: Status) -> None:
    one = agreement([LOW], START).subscription
    rules.check_changeable(one)
    with pytest.raises(Conflict):
        rules.check_changeable(replace(one, status=status))
    with pytest.raises(Conflict):
        rules.check_changeable(replace(one, cancel_at=at("2025-02-01")))


def test_a_subscription_changes_only_so_often_a_day() -> None:
    rules.fits_day(rules.CHANGES_A_DAY_MAX - 1)
    with pytest.raises(LimitExceeded):
        rules.fits_day(rules.CHANGES_A_DAY_MAX)


def test_the_next_boundary_is_the_nearest_end() -> None:
    both = agreement([LOW, YEAR], START)
    every = [period for some in both.periods.values() for period in some]
    now: datetime = at("2025-01-10")
    assert rules.next_boundary(both.subscription, every, now=now) == at("2025-02-01")
    ending = replace(both.subscription, cancel_at=at("2025-01-20"))
    assert rules.next_boundary(ending, every, now=now) == at("2025-01-20")
