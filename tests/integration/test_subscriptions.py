"""Subscriptions on a real database: pinned prices, stored periods, ends, and metering's windows."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from convergio.catalog import actions as catalog
from convergio.catalog.actions import EXAMPLE
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid, NotFound
from convergio.kernel.periods import Calendar, Interval
from convergio.subscriptions import actions, changes
from convergio.subscriptions.model import Status, Subscription, Trial, TrialPolicy, When
from tests.fakes.business import Business, at
from tests.fakes.statements import counting

ANCHOR = "2024-01-31T15:00:00Z"
YEARLY = b"""
currency: usd
events: [{type: ai.request, keep: [status]}]
meters:
  - {key: questions, name: Questions, event: ai.request, aggregation: sum, value: quantity}
plans:
  - key: year
    name: Year
    prices:
      - {key: fee, name: Fee, interval: year, charge: {model: flat, amount: 100}}
      - key: use
        name: Use
        meter: questions
        interval: month
        charge: {model: unit, unit: 1}
"""
OTHERS = b"""
  - key: euro
    name: Euro
    prices: [{key: euro_fee, name: Euro, currency: eur, charge: {model: flat, amount: 1}}]
  - key: extra
    name: Extra
    add_on: true
    prices: [{key: extra_fee, name: Extra, charge: {model: flat, amount: 4}}]
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


def try_out(shop: Business, customer_id: UUID, fallback: str, plan: str = "pro") -> None:
    """Begin a trial of a fortnight that falls back where nobody can pay."""
    trial = Trial(14, TrialPolicy.FALL_BACK, fallback)
    with shop.database.transaction() as tx:
        actions.create(
            tx, customer_id=customer_id, plan_key=plan, start=shop.now, now=shop.now, trial=trial
        )


def last(shop: Business, customer_id: UUID) -> Subscription:
    with shop.database.transaction() as tx:
        return actions.history(tx, customer_id)[-1]


def periods(shop: Business, interval: str = "month") -> list[tuple[int, datetime, datetime]]:
    with shop.database.transaction() as tx:
        return tx.tuples(
            "SELECT number, start_at, end_at FROM subscription_period WHERE interval = %(i)s"
            " ORDER BY customer_id, number",
            i=interval,
        )


def facts(shop: Business) -> list[str]:
    with shop.database.transaction() as tx:
        rows = tx.tuples(
            "SELECT type FROM outbox_event WHERE type LIKE 'subscription.%%' ORDER BY outbox_id"
        )
    return [row[0] for row in rows]


def open_until(shop: Business, text: str) -> int:
    """Renew everyone; return how many periods of months that opened."""
    before = len(periods(shop))
    with shop.database.transaction() as tx:
        ids = [row[0] for row in tx.tuples("SELECT customer_id FROM subscription")]
        actions.renew(tx, ids, until=at(text), now=at(text))
    return len(periods(shop)) - before


def test_a_subscription_pins_the_prices_of_its_day(shop: Business) -> None:
    acme = shop.customer("acme")
    made = shop.subscribe(acme, "pro", "2025-01-01")
    raised = EXAMPLE.read_bytes().replace(b"key: pro_fee", b"key: pro_fee\n        version: 2")
    with shop.database.transaction() as tx:
        catalog.apply(tx, raised.replace(b"amount: 6.99", b"amount: 9.99"), now=shop.now)
    assert made.status == Status.ACTIVE
    assert shop.bill("2025-01-02").totals == {"usd": 699}
    other = shop.customer("other")
    shop.subscribe(other, "pro", "2025-01-01")
    assert shop.bill("2025-01-02").totals == {"usd": 999}


def test_stored_periods_are_the_calendars_whatever_the_steps(shop: Business) -> None:
    one, two = shop.customer("one"), shop.customer("two")
    shop.subscribe(one, "pro", ANCHOR, time_zone="Europe/Rome")
    for day in ("2024-02-29", "2024-03-10", "2024-03-10", "2024-07-01", "2024-12-31"):
        open_until(shop, day)
    shop.subscribe(two, "pro", ANCHOR, time_zone="Europe/Rome")
    assert open_until(shop, "2024-12-31") == 10
    expected = Calendar(at(ANCHOR), "Europe/Rome", Interval.MONTH).periods(11)
    rows = periods(shop)
    assert rows == [(n, p.start, p.end) for n, p in enumerate(expected)] * 2
    assert shop.verify() == []


def test_a_period_is_opened_when_its_start_is_reached(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    assert open_until(shop, "2025-01-31T23:59:59Z") == 0
    assert open_until(shop, "2025-02-01") == 1
    assert open_until(shop, "2025-02-01") == 0


def test_each_interval_of_the_prices_has_its_own_periods(database: Database, now: datetime) -> None:
    shop = Business(database, now, YEARLY)
    acme = shop.customer("acme")
    shop.subscribe(acme, "year", "2024-01-31")
    open_until(shop, "2025-02-01")
    assert len(periods(shop, "year")) == 2
    assert len(periods(shop)) == 13
    assert shop.verify() == []


def test_ending_a_yearly_plan_waits_for_what_is_paid(database: Database, now: datetime) -> None:
    shop = Business(database, now, YEARLY)
    acme = shop.customer("acme")
    shop.subscribe(acme, "year", "2024-03-10")
    ending = shop.cancel(acme, "2024-05-20", at_period_end=True)
    assert ending.cancel_at == at("2025-03-10")
    shop.bill("2025-06-01")
    with shop.database.transaction() as tx:
        (after,) = actions.history(tx, acme)
    assert (after.status, after.canceled_at) == (Status.CANCELED, at("2025-03-10"))
    assert len(periods(shop, "year")) == 1
    assert len(periods(shop)) == 12
    assert shop.verify() == []


def test_one_live_subscription_a_customer(shop: Business) -> None:
    acme, free = shop.customer("acme"), shop.customer("free")
    shop.subscribe(acme, "free", "2025-01-01")
    with pytest.raises(Conflict), shop.database.transaction() as tx:
        actions.create_many(
            tx, customer_ids=[free, acme], plan_key="pro", start=at("2025-01-01"), now=shop.now
        )
    with shop.database.transaction() as tx:
        assert actions.live_status(tx, [acme, free]) == {acme: Status.ACTIVE}
        assert actions.history(tx, free) == []
    assert facts(shop) == ["subscription.created"]


def test_a_start_before_the_end_of_an_earlier_subscription_is_refused_with_the_earliest_one(
    shop: Business,
) -> None:
    acme, other = shop.customer("acme"), shop.customer("other")
    shop.subscribe(acme, "pro", "2024-10-01")
    shop.cancel(acme, "2024-10-20", at_period_end=False)
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.cancel(acme, "2024-11-20T08:30:00.5Z", at_period_end=False)
    for start in ("2024-10-01", "2024-10-25", "2024-11-20T08:30:00Z"):
        with pytest.raises(Conflict, match=r"until 2024-11-20T08:30:00.5\S*Z; start then") as told:
            shop.subscribe(acme, "pro", start)
        assert (told.value.code, told.value.field) == ("overlapping_start", "start")
    with pytest.raises(Conflict, match="2024-11-20"), shop.database.transaction() as tx:
        actions.create_many(
            tx, customer_ids=[acme, other], plan_key="pro", start=at("2024-11-01"), now=shop.now
        )
    assert shop.subscribe(other, "pro", "2024-10-01").plan_key == "pro"
    with shop.database.transaction() as tx:
        assert len(actions.history(tx, acme)) == 2
    again = shop.subscribe(acme, "pro", "2024-11-20T08:30:00.5Z")
    assert again.started_at == at("2024-11-20T08:30:00.5Z")
    shop.bill("2025-01-02")
    assert shop.verify() == []


def test_an_unknown_plan_or_customer_makes_nothing(shop: Business) -> None:
    acme = shop.customer("acme")
    with pytest.raises(NotFound):
        shop.subscribe(acme, "gold", "2025-01-01")
    with pytest.raises(NotFound):
        shop.subscribe(UUID(int=5), "pro", "2025-01-01")
    assert facts(shop) == []


def test_ending_now_opens_calendar_months_without_limit(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", "2025-01-10")
    shop.use("acme", 30, "2025-01-11")
    shop.use("acme", 5, "2025-01-12T12:00:00Z")
    shop.cancel(acme, "2025-01-12T06:00:00Z", at_period_end=False)
    with shop.database.transaction() as tx:
        rows = tx.tuples(
            "SELECT start_at, end_at, used, quota_limit FROM usage_total"
            " JOIN meter USING (meter_id) WHERE meter_key = 'questions' ORDER BY start_at"
        )
    assert rows == [
        (at("2025-01-10"), at("2025-01-12T06:00:00Z"), Decimal(30), Decimal(50)),
        (at("2025-01-12T06:00:00Z"), at("2025-02-01"), Decimal(5), None),
    ]
    assert facts(shop) == ["subscription.created", "subscription.canceled"]
    assert shop.verify() == []
    with pytest.raises(NotFound):
        shop.cancel(acme, "2025-01-13", at_period_end=False)


def test_a_scheduled_end_can_be_brought_forward_but_not_scheduled_twice(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    shop.cancel(acme, "2025-01-05", at_period_end=True)
    with pytest.raises(Conflict):
        shop.cancel(acme, "2025-01-06", at_period_end=True)
    gone = shop.cancel(acme, "2025-01-07", at_period_end=False)
    assert (gone.canceled_at, gone.cancel_at) == (at("2025-01-07"), None)


def test_an_end_that_passed_unnoticed_keeps_its_instant(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    shop.cancel(acme, "2025-01-05", at_period_end=True)
    gone = shop.cancel(acme, "2025-02-20", at_period_end=False)
    assert gone.canceled_at == at("2025-02-01")


def test_open_reservations_delay_an_end_and_stop_no_run(shop: Business) -> None:
    acme, other = shop.customer("acme"), shop.customer("other")
    for one in (acme, other):
        shop.subscribe(one, "pro", "2025-01-01")
    shop.use("acme", 1, "2025-01-02")
    shop.cancel(acme, "2025-01-05T12:00:00Z", at_period_end=True)
    shop.use("acme", 1, "2025-02-02")
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 1 WHERE start_at >= '2025-02-01'")
    report = shop.bill("2025-02-03")
    assert [(one.customer_id, one.code) for one in report.problems] == [(acme, "delayed_end")]
    assert len(shop.invoices(other)) == 2
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 0")
    assert shop.bill("2025-02-04").problems == []
    with shop.database.transaction() as tx:
        assert actions.live_status(tx, [acme]) == {}
    assert shop.verify() == []


def test_a_trial_that_nobody_could_decide_yet_is_asked_for_no_setup_fee(
    database: Database, now: datetime
) -> None:
    fee = b"""
  - key: solo
    name: Solo
    prices:
      - {key: solo_setup, name: Setup, once: true, charge: {model: flat, amount: 49}}
      - {key: solo_use, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
"""
    shop = Business(database, now, catalog.EXAMPLE.read_bytes() + fee)
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        trial = Trial(14, TrialPolicy.FALL_BACK, "free")
        actions.create(
            tx, customer_id=acme, plan_key="solo", start=shop.now, now=shop.now, trial=trial
        )
    shop.use("acme", 1, "2025-01-30")
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 1")
    report = shop.bill("2025-03-01", now=at("2025-03-01"))
    assert [one.code for one in report.problems] == ["delayed_end"]
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 0")
    assert shop.bill("2025-03-02", now=at("2025-03-02")).problems == []
    assert shop.invoices() == []
    assert shop.verify() == []


def test_dunning_moves_the_status_along_the_table(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    with shop.database.transaction() as tx:
        for status in (Status.PAST_DUE, Status.UNPAID, Status.UNPAID, Status.ACTIVE):
            moved = actions.set_status(tx, customer_id=acme, status=status, now=shop.now)
            assert moved is not None
            assert moved.status == status
        with pytest.raises(Conflict):
            actions.set_status(tx, customer_id=acme, status=Status.TRIALING, now=shop.now)
    assert facts(shop).count("subscription.updated") == 3
    shop.cancel(acme, "2025-01-15", at_period_end=False)
    with shop.database.transaction() as tx:
        assert actions.set_status(tx, customer_id=acme, status=Status.ACTIVE, now=shop.now) is None


def test_thousands_subscribe_in_a_few_statements(shop: Business, now: datetime) -> None:
    ids = list(shop.customers([f"c{number}" for number in range(4_247)]).values())
    with shop.database.transaction() as tx, counting() as sent:
        actions.create_many(tx, customer_ids=ids, plan_key="pro", start=at("2024-11-01"), now=now)
    assert 0 < len(sent) <= 40
    with shop.database.transaction() as tx:
        assert len(actions.live_status(tx, ids)) == len(ids)


def test_verify_names_a_gap_and_an_item_without_end(shop: Business) -> None:
    acme, other = shop.customer("acme"), shop.customer("other")
    for one in (acme, other):
        shop.subscribe(one, "pro", "2024-11-01")
    shop.bill("2025-01-10")
    shop.cancel(other, "2025-01-12", at_period_end=False)
    with shop.database.transaction() as tx:
        assert actions.verify(tx) == []
        gap = "DELETE FROM subscription_period WHERE number = 1 AND customer_id = %s"
        tx.raw.execute(gap, [acme])
        tx.raw.execute("UPDATE subscription_item SET active_until = NULL")
    with shop.database.transaction() as tx:
        found = [one.where.split()[0] for one in actions.verify(tx)]
    assert sorted(set(found)) == ["item", "month"]
    assert found.count("month") == 1


@pytest.mark.parametrize("wish", [{"plan_key": "pro"}, {"seats": 2}])
def test_who_falls_back_from_a_trial_stays_there_whatever_waited_for_its_end(
    shop: Business, wish: dict[str, Any]
) -> None:
    acme = shop.customer("acme")
    try_out(shop, acme, "free", plan="team")
    with shop.database.transaction() as tx:
        changes.change(tx, customer_id=acme, when=When.PERIOD_END, now=shop.now, **wish)
    assert shop.bill("2025-03-01", now=at("2025-03-01")).totals == {}
    stands = last(shop, acme)
    assert (stands.plan_key, stands.status) == ("free", Status.ACTIVE)
    with shop.database.transaction() as tx:
        assert changes.pending(tx, stands) is None
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("fallback", "error"),
    [("nothing", "no plan 'nothing'"), ("euro", "priced in eur"), ("extra", "is an add-on")],
)
def test_a_trial_cannot_fall_back_to_what_the_customer_could_not_buy(
    shop: Business, fallback: str, error: str
) -> None:
    with shop.database.transaction() as tx:
        catalog.apply(tx, EXAMPLE.read_bytes() + OTHERS, now=shop.now)
    acme = shop.customer("acme")
    with pytest.raises((Invalid, NotFound), match=error) as refused:
        try_out(shop, acme, fallback)
    assert refused.value.field == "fallback_plan"
    with shop.database.transaction() as tx:
        assert actions.history(tx, acme) == []


@pytest.mark.parametrize("is_sold_otherwise", [False, True])
def test_a_trial_whose_fallback_is_sold_no_more_ends_paused_and_bills_nothing(
    shop: Business, is_sold_otherwise: bool
) -> None:
    sold = EXAMPLE.read_bytes()
    mine = b"""
  - key: light
    name: Light
    prices: [{key: light_fee, name: Light, charge: {model: flat, amount: 1}}]
"""
    other = mine.replace(b"light_fee,", b"light_fee, version: 2, currency: eur,")
    with shop.database.transaction() as tx:
        catalog.apply(tx, sold + mine, now=shop.now)
    acme = shop.customer("acme")
    try_out(shop, acme, "light")
    with shop.database.transaction() as tx:
        catalog.apply(tx, sold + (other if is_sold_otherwise else b""), now=shop.now)
    report = shop.bill("2025-03-01", now=at("2025-03-01"))
    assert (report.totals, report.problems) == ({}, [])
    assert last(shop, acme).status == Status.PAUSED
    with shop.database.transaction() as tx:
        told = tx.value("SELECT data->>'reason' FROM outbox_event WHERE type LIKE '%%.paused'")
    assert "cannot fall back to 'light'" in told
    assert shop.cancel(acme, "2025-03-02", at_period_end=False).status == Status.CANCELED
    assert shop.verify() == []


def test_a_trial_whose_end_has_to_wait_bills_nothing_until_it_is_decided(shop: Business) -> None:
    acme = shop.customer("acme")
    try_out(shop, acme, "free")
    shop.use("acme", 1, "2025-01-30")
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 1 WHERE start_at >= '2025-01-29'")
    report = shop.bill("2025-03-01", now=at("2025-03-01"))
    assert (report.totals, [one.code for one in report.problems]) == ({}, ["delayed_end"])
    assert shop.verify() == []
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE usage_total SET reserved = 0")
    report = shop.bill("2025-03-01", now=at("2025-03-01"))
    assert (report.totals, report.problems) == ({}, [])
    assert last(shop, acme).plan_key == "free"


def test_credit_is_for_who_ends_at_once(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    with pytest.raises(Invalid) as refused, shop.database.transaction() as tx:
        actions.cancel(tx, customer_id=acme, at_period_end=True, credit=True, now=shop.now)
    assert refused.value.field == "credit"
    assert last(shop, acme).cancel_at is None
