"""What is beside a plan when it ends: nothing of it is lost, asked twice, or comes back unasked."""

from datetime import datetime

import pytest

from convergio.billing import actions as billing
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import adding, changes
from convergio.subscriptions.model import Trial, When
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: yearly
    name: Yearly
    prices:
      - {key: fee, name: Fee, interval: year, charge: {model: flat, amount: 120}}
      - {key: use, name: Questions, meter: questions, charge: {model: unit, unit: 0.10}}
  - key: solo
    name: Solo
    prices:
      - {key: month, name: Month, charge: {model: flat, amount: 31}}
  - key: support
    name: Support
    add_on: true
    prices:
      - {key: setup, name: Setup, once: true, charge: {model: flat, amount: 7}}
      - {key: support, name: Support, charge: {model: seat, unit: 3.10}}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)


def take(shop: Business, when: str, quantity: int = 1, how: When = When.NOW) -> None:
    with shop.database.transaction() as tx:
        adding.set_add_on(
            tx, customer_id=customers.find(tx, "acme").customer_id, key="support",
            quantity=quantity, when=how, now=at(when),
        )  # fmt: skip


def billed(shop: Business, name: str) -> list[int]:
    """What all invoices ask for a price."""
    with shop.database.transaction() as tx:
        views = [billing.read(tx, shop.keyring, one) for one in shop.invoices()]
    found = (line for view in views for line in view.lines)
    return [line.amount for line in found if line.description.partition(":")[0] == name]


@pytest.mark.parametrize("run_between", [False, True])
def test_a_charge_to_come_is_owed_by_who_leaves_a_yearly_plan(
    shop: Business, *, run_between: bool
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "yearly", "2024-10-01")
    shop.bill("2024-10-02")
    with shop.database.transaction() as tx:
        _, asked_at = adding.charge_once(
            tx, customer_id=acme, description="Extra", amount=Money.parse("50.00", "usd"),
            when=When.PERIOD_END, now=at("2024-10-05"),
        )  # fmt: skip
    assert asked_at == at("2024-11-01")
    shop.cancel(acme, "2024-10-10", at_period_end=False)
    if run_between:
        shop.bill("2024-10-15")  # closes what there is, long before the year's end
    for day in ("2024-11-02", "2024-11-03", "2025-12-02"):
        shop.bill(day)
        assert billed(shop, "Extra") == [5_000]
        assert shop.verify() == []


def test_verify_tells_of_a_charge_that_a_closed_period_hides(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "yearly", "2024-10-01")
    with shop.database.transaction() as tx:
        adding.charge_once(
            tx, customer_id=acme, description="Extra", amount=Money.parse("50.00", "usd"),
            when=When.PERIOD_END, now=at("2024-10-05"),
        )  # fmt: skip
    shop.cancel(acme, "2024-10-10", at_period_end=False)
    shop.bill("2024-10-15")
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE subscription SET closed_until = '2025-10-01Z'")
    shop.bill("2024-11-02")
    assert [one.expected for one in shop.verify() if one.where.startswith("closed period")] == [
        "5000 billed from 2024-11-01T00:00:00Z"
    ]


def test_who_takes_an_add_on_again_before_it_ends_pays_for_no_day_twice(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-10-01")
    take(shop, "2024-10-01")
    shop.bill("2024-10-02")
    take(shop, "2024-10-10", 0, When.PERIOD_END)
    with pytest.raises(Invalid, match="that it shall be"):
        take(shop, "2024-10-11", 0, When.PERIOD_END)
    take(shop, "2024-10-16")
    shop.bill("2024-11-02")
    assert sorted(billed(shop, "Support")) == [-160, 160, 310, 310]
    assert billed(shop, "Setup") == [700]
    assert shop.verify() == []


def test_an_add_on_that_is_to_end_can_go_at_once(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-10-01")
    take(shop, "2024-10-01")
    take(shop, "2024-10-10", 0, When.PERIOD_END)
    take(shop, "2024-10-16", 0)
    shop.bill("2024-11-02")
    assert billed(shop, "Support") == [150]  # 15 of 31 days
    assert shop.verify() == []


def test_more_of_an_add_on_asks_its_setup_fee_no_second_time(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "solo", "2024-10-01")
    take(shop, "2024-10-01")
    take(shop, "2024-10-16", 2)
    take(shop, "2024-10-16", 0)
    take(shop, "2024-10-20")
    shop.bill("2024-11-02")
    assert billed(shop, "Setup") == [700]
    assert shop.verify() == []


def test_a_pause_does_not_bring_back_an_add_on_that_was_to_end(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "solo", "2024-10-01")
    take(shop, "2024-10-01")
    take(shop, "2024-10-10", 0, When.PERIOD_END)
    for when, verb in (("2024-10-16", changes.pause), ("2024-10-20", changes.resume)):
        with shop.database.transaction() as tx:
            live = verb(tx, customer_id=acme, now=at(when))
    with shop.database.transaction() as tx:
        assert adding.add_ons(tx, live) == {}
    shop.bill("2024-12-02")
    assert billed(shop, "Support") == [150]
    assert shop.verify() == []


@pytest.mark.parametrize(("quantity", "setups"), [(0, []), (2, [700])])
def test_an_add_on_of_a_trial_asks_its_setup_fee_only_of_who_keeps_it(
    shop: Business, quantity: int, setups: list[int]
) -> None:
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        subscriptions.create(
            tx, customer_id=acme, plan_key="solo", start=at("2024-10-01"), now=shop.now,
            trial=Trial(14),
        )  # fmt: skip
    take(shop, "2024-10-02")
    take(shop, "2024-10-03", quantity)
    shop.bill("2024-10-20")
    assert billed(shop, "Setup") == setups
    assert shop.verify() == []
