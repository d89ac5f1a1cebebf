"""What a subscription may do, and what it asks of metering."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from convergio.catalog.model import Quota
from convergio.kernel.errors import Conflict, Fault, Invalid
from convergio.kernel.periods import Calendar, Interval
from convergio.metering.model import Limit
from convergio.rating.model import Charge, Flat, Seat, Unit
from convergio.subscriptions import limits, rules
from convergio.subscriptions.model import TRANSITIONS, Status
from tests.fakes.agreements import FEE, QUESTIONS, agreement, price
from tests.fakes.business import at

FEES = price(1, FEE)
USAGE = price(2, QUESTIONS, meter="questions")
SEATS = price(3, Seat(unit="12"))
START = at("2025-01-01")


def test_every_status_is_in_the_table_and_canceled_is_the_end() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert TRANSITIONS[Status.CANCELED] == frozenset()
    ways_out = [s for s in Status if s != Status.CANCELED]
    assert all(Status.CANCELED in TRANSITIONS[status] for status in ways_out)


@pytest.mark.parametrize("target", list(Status))
def test_only_steps_of_the_table_are_taken(target: Status) -> None:
    active = agreement([FEES], at("2025-01-01")).subscription
    if target in TRANSITIONS[Status.ACTIVE] and target != Status.CANCELED:
        assert rules.move(active, target).status == target
    else:
        with pytest.raises(Conflict):
            rules.move(active, target)


def test_an_end_is_once_and_never_before_the_start() -> None:
    active = agreement([FEES], at("2025-01-01")).subscription
    gone = rules.end(active, at("2025-01-05"))
    assert (gone.status, gone.canceled_at) == (Status.CANCELED, at("2025-01-05"))
    with pytest.raises(Conflict):
        rules.end(gone, at("2025-01-06"))
    with pytest.raises(Fault):
        rules.end(active, at("2024-12-31"))


def test_an_end_is_scheduled_once() -> None:
    ending = rules.schedule_end(agreement([FEES], at("2025-01-01")).subscription, at("2025-02-01"))
    assert ending.cancel_at == at("2025-02-01")
    with pytest.raises(Conflict):
        rules.schedule_end(ending, at("2025-03-01"))


def test_periods_follow_the_original_anchor_until_the_agreed_end() -> None:
    calendar = Calendar(at("2025-01-31"), "UTC", Interval.MONTH)
    found = list(rules.boundaries_after(calendar, 0, until=at("2025-04-30"), cancel_at=None))
    assert [(n, s.date().isoformat()) for n, s, _ in found] == [
        (1, "2025-02-28"),
        (2, "2025-03-31"),
        (3, "2025-04-30"),
    ]
    ending = rules.boundaries_after(calendar, 0, until=at("2025-04-30"), cancel_at=at("2025-03-31"))
    assert [n for n, _, _ in ending] == [1]


def test_a_start_is_not_in_the_future_and_not_in_another_century() -> None:
    now = at("2025-01-15")
    rules.check_start(now, now=now)
    for wrong in (now + timedelta(microseconds=1), at("1999-12-31")):
        with pytest.raises(Invalid):
            rules.check_start(wrong, now=now)


def test_seats_need_a_price_per_seat() -> None:
    rules.check_seats([SEATS], 50)
    rules.check_seats([FEES], 1)
    for prices, seats in (([FEES], 2), ([SEATS], 0), ([SEATS], 1_000_001)):
        with pytest.raises(Invalid):
            rules.check_seats(prices, seats)
    assert [rules.quantity_of(one, 7) for one in (SEATS, FEES)] == [Decimal(7), Decimal(1)]


def test_a_plan_is_in_the_customers_currency_with_one_price_a_meter() -> None:
    rules.check_prices([FEES, USAGE], currency="usd")
    twice = price(4, Unit(unit="1"), meter="questions")
    for prices, currency in (([FEES], "eur"), ([USAGE, twice], "usd")):
        with pytest.raises(Invalid):
            rules.check_prices(prices, currency=currency)


def test_metering_learns_each_meters_own_interval_and_limit() -> None:
    hard = price(5, Unit(unit="0", included="50"), meter="images", interval="day")
    object.__setattr__(hard, "quota", Quota(Decimal(60), hard=True, alerts=(90,)))
    soft = price(6, Flat(amount="1"), meter="tokens", interval="year")
    object.__setattr__(soft, "quota", Quota(Decimal(60), hard=False))
    start = at("2025-01-31T15:00:00Z")
    segment = limits.segment_of(
        [limits.Line(one, Decimal(1), start) for one in (FEES, USAGE, hard, soft)],
        start=start, time_zone="Europe/Rome", anchor=start, since=start,
        unsummed=frozenset({"tokens"}),
    )  # fmt: skip
    assert (segment.starts_at, segment.anchor, segment.time_zone) == (start, start, "Europe/Rome")
    own = {key: (one.price, one.begins) for key, one in segment.limits.items()}
    assert own == {one.meter_key: (one.price_id, start) for one in (USAGE, hard, soft)}
    found = {
        key: msgspec.structs.replace(one, price=None, begins=None)
        for key, one in segment.limits.items()
    }
    assert found == {
        "questions": Limit(None, Decimal(500), Interval.MONTH, free=Decimal(500)),
        "images": Limit(Decimal(60), Decimal(50), Interval.DAY, alerts=(90,), free=Decimal(60)),
        "tokens": Limit(None, None, Interval.YEAR, summed=False),
    }


@pytest.mark.parametrize(
    ("charge", "quota", "is_trial", "free"),
    [
        (Unit(unit="0.01", included="500"), None, False, 500),
        (Unit(unit="0.01", included="500"), Quota(Decimal(800), hard=True), False, 500),
        (Unit(unit="0.01", included="500"), Quota(Decimal(300), hard=True), False, 300),
        (Unit(unit="0.01", included="500"), Quota(Decimal(300), hard=False), False, 500),
        (Unit(unit="0"), Quota(Decimal(50), hard=True), False, 50),
        (Unit(unit="0"), None, False, None),
        (Unit(unit="0.01", included="500"), None, True, None),
        (Unit(unit="0.01", included="500"), Quota(Decimal(800), hard=True), True, 800),
        (Flat(amount="1"), None, False, None),
    ],
)
def test_credit_is_drawn_beyond_what_costs_nothing(
    charge: Charge, quota: Quota | None, is_trial: bool, free: int | None
) -> None:
    line = limits.Line(replace(price(5, charge, meter="images"), quota=quota), Decimal(1), START)
    segment = limits.segment_of(
        [line], start=START, time_zone="UTC", anchor=START, since=START, is_trial=is_trial
    )
    assert segment.limits["images"].free == (None if free is None else Decimal(free))


def test_seats_multiply_what_is_promised_per_seat() -> None:
    each = replace(
        price(5, Unit(unit="0.01", included="20", included_per_seat=True), meter="images"),
        quota=Quota(Decimal("100.5"), hard=True, per_seat=True),
    )
    rules.check_seats([each], 3)
    assert rules.quantity_of(each, 3) == 3
    line = limits.Line(each, Decimal(3), START)
    segment = limits.segment_of([line], start=START, time_zone="UTC", anchor=START, since=START)
    found = segment.limits["images"]
    sixty = Decimal(60)
    assert (found.limit, found.included, found.free) == (Decimal("301.5"), sixty, sixty)


def test_after_the_end_there_are_calendar_months_without_limits() -> None:
    after = limits.segment_after(at("2025-01-20"))
    assert (after.starts_at, after.anchor.day, after.time_zone) == (at("2025-01-20"), 1, "UTC")
    assert (after.interval, after.limits) == (Interval.MONTH, {})


def test_intervals_come_once_and_in_order() -> None:
    year = price(7, FEE, interval="year")
    assert rules.intervals_of([year, FEES, USAGE]) == [Interval.MONTH, Interval.YEAR]
