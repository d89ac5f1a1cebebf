"""Periods of the calendar: the first is a part, in fee and in allowance; the others are whole."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Calendar, Interval, turn_before
from convergio.metering import actions as metering
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Trial, When
from tests.fakes.business import Business, at

YEARLY = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: yearly
    name: Yearly
    prices:
      - {key: fee, name: Fee, interval: year, charge: {model: flat, amount: 366}}
      - {key: use, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
"""

MIXED = b"""
currency: usd
events: [{type: ai.request}]
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: none
    name: None
    prices: [{key: none_use, name: Questions, meter: questions, charge: {model: unit, unit: 0}}]
  - key: mixed
    name: Mixed
    prices:
      - {key: week_fee, name: Week, interval: week, charge: {model: flat, amount: 3}}
      - {key: month_use, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


def begin(
    shop: Business, plan: str, start: str, time_zone: str = "UTC", trial: Trial | None = None
) -> None:
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(
            tx, customer_id=acme, plan_key=plan, start=at(start), now=shop.now,
            time_zone=time_zone, by_calendar=True, trial=trial,
        )  # fmt: skip


def test_the_first_month_is_charged_for_its_part_and_the_next_in_whole(shop: Business) -> None:
    begin(shop, "pro", "2024-11-16")
    shop.use("acme", 300, "2024-11-20")  # 250 of 500 are included in half a month
    shop.bill("2024-12-02")
    first, second = shop.invoices()
    assert shop.lines(first) == [("fixed", "fee", 350)]
    assert f"{second.boundary_at:%Y-%m-%d}" == "2024-12-01"
    assert sorted(shop.lines(second)) == [("fixed", "fee", 699), ("usage", "usage", 50)]
    shop.bill("2025-01-02")
    assert shop.verify() == []


@pytest.mark.parametrize("start", ["2024-11-16", "2024-12-01"])
def test_a_change_that_opens_new_periods_stays_with_the_calendar(
    shop: Business, start: str
) -> None:
    begin(shop, "free", start)
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        changes.change(tx, customer_id=acme, plan_key="pro", when=When.NOW, now=at("2024-12-17"))
    shop.bill("2024-12-18")
    (part,) = shop.invoices()
    assert shop.lines(part) == [("fixed", "fee", 338)]  # 15 of 31 days of 6.99
    shop.bill("2025-01-02")
    assert f"{shop.invoices()[-1].boundary_at:%Y-%m-%d}" == "2025-01-01"
    assert shop.verify() == []


@pytest.mark.parametrize("when", [When.NOW, When.PERIOD_END])
@pytest.mark.parametrize("start", ["2024-11-16", "2024-12-01"])
def test_a_plan_that_fits_no_calendar_is_counted_from_the_change(
    database: Database, now: datetime, start: str, when: When
) -> None:
    shop = Business(database, now, MIXED)
    begin(shop, "none", start)
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        changes.change(tx, customer_id=acme, plan_key="mixed", when=when, now=at("2024-12-17"))
    reports = [shop.bill(day, now=at(day)) for day in ("2025-01-02", "2025-02-02")]
    assert [list(report.problems) for report in reports] == [[], []]
    assert shop.invoices()


def test_a_hard_quota_of_the_first_part_is_a_part(shop: Business) -> None:
    begin(shop, "free", "2024-12-17")  # 15 of 31 days of 50
    window = shop.ingestor.windows([("acme", "questions")], now=at("2024-12-20"))[0]
    assert window is not None
    with shop.database.transaction() as tx:
        row = metering.window_now(tx, window)
    assert row is not None
    assert row.quota_limit == 25


def test_months_beside_a_year_of_the_calendar_are_counted_from_its_beginning(
    database: Database, now: datetime
) -> None:
    shop = Business(database, now, YEARLY)
    begin(shop, "yearly", "2024-07-16")
    shop.use("acme", 3, "2024-07-20")
    shop.bill("2024-09-02")
    assert [(f"{one.boundary_at:%m-%d}", one.total) for one in shop.invoices()] == [
        ("07-16", 16_900),  # 169 of 366 days
        ("08-01", 30),
    ]
    assert shop.verify() == []


def test_a_month_begins_at_midnight_of_the_customers_zone(shop: Business) -> None:
    begin(shop, "pro", "2024-11-15T09:30:00Z", time_zone="Europe/Rome")
    shop.bill("2024-12-02")
    assert [f"{one.boundary_at:%m-%d %H:%M}" for one in shop.invoices()] == [
        "11-15 09:30",
        "11-30 23:00",
    ]
    assert shop.verify() == []


def test_a_trial_has_an_anchor_of_its_own(shop: Business) -> None:
    with pytest.raises(Invalid, match="leave out the trial"):
        begin(shop, "pro", "2024-11-15", trial=Trial(14))


@given(
    instant=st.datetimes(datetime(2001, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001 - made aware
    zone=st.sampled_from(["UTC", "Europe/Rome", "America/Sao_Paulo", "Asia/Kathmandu"]),
    interval=st.sampled_from(list(Interval)),
)
def test_the_turn_before_an_instant_begins_the_interval_that_holds_it(
    instant: datetime, zone: str, interval: Interval
) -> None:
    aware = at(f"{instant:%Y-%m-%dT%H:%M:%S}Z")
    anchor = turn_before(aware, zone, interval)
    assert anchor <= aware
    period = Calendar(anchor, zone, interval).period(0)
    assert period.start == anchor
    assert period.contains(aware)
