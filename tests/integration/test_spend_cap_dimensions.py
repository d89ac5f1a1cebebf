"""A spend cap counts each value of a dimension at its own price: what will be billed, exactly."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from convergio.customers import actions as customers
from convergio.entitlements import spending
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Ask
from convergio.infra.db import Database
from convergio.metering.model import Event
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from tests.fakes import quotas
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events: [{type: ai.request}]
meters:
  - {key: tokens, name: Tokens, event: ai.request, value: tokens, group_by: [region, model]}
plans:
  - key: pro
    name: Pro
    prices:
      - key: pro_tokens
        name: Tokens
        meter: tokens
        charge: {model: unit, unit: 0.01, included: 20}
        by: model
        charges:
          large: {model: unit, unit: 0.50, included: 10}
          small: {model: graduated, tiers: [{up_to: 100, unit: 0.02}, {unit: 0.01}]}
  - key: big
    name: Big
    prices:
      - key: big_tokens
        name: Tokens
        meter: tokens
        charge: {model: unit, unit: 0.02, included: 62}
        by: model
        charges:
          large: {model: unit, unit: 0.25, included: 31}
  - key: weekly
    name: Weekly
    prices:
      - key: weekly_tokens
        name: Tokens
        meter: tokens
        interval: week
        charge: {model: unit, unit: 0.01}
        by: model
        charges:
          large: {model: unit, unit: 0.50, included: 7}
"""


@pytest.fixture
def shop(database: Database) -> Business:
    made = Business(database, at("2025-01-01"), CATALOG)
    made.subscribe(made.customer("acme"), "pro", "2025-01-01")
    with database.transaction() as tx:
        spending.set_cap(tx, "acme", "1000.00", now=made.now)
    return made


def use(shop: Business, model: str | None, tokens: int, when: str) -> None:
    data = {"tokens": tokens, "region": "eu"} | ({} if model is None else {"model": model})
    event = Event(f"{model}-{when}", "test", "ai.request", "acme", time=at(when), data=data)
    [verdict] = shop.ingestor.ingest([event], now=at(when) + timedelta(seconds=1))
    assert verdict.status == "accepted"


def gate(shop: Business) -> Gate:
    return Gate(shop.database, shop.ingestor, hold_seconds=300)


def spend(shop: Business, when: datetime) -> str:
    found = gate(shop).quota("acme", "tokens", now=when).spend
    assert found is not None
    return found.text()


def cap(shop: Business, amount: str) -> None:
    with shop.database.transaction() as tx:
        spending.set_cap(tx, "acme", amount, now=at("2025-01-20"))


def billed(shop: Business, as_of: str) -> int:
    shop.bill(as_of, now=at(as_of))
    return sum(
        amount for one in shop.invoices() for kind, _, amount in shop.lines(one) if kind == "usage"
    )


def test_each_value_is_counted_at_its_own_price_and_that_is_what_is_billed(shop: Business) -> None:
    use(shop, "large", 30, "2025-01-05")  # 20 at 0.50: 10.00
    use(shop, "small", 150, "2025-01-06")  # 100 at 0.02, 50 at 0.01: 2.50
    use(shop, "tiny", 15, "2025-01-07")
    use(shop, None, 25, "2025-01-08")  # with tiny: 20 at 0.01: 0.20
    assert spend(shop, at("2025-01-09")) == "12.70"
    assert billed(shop, "2025-02-01T02:00:00Z") == 1270


def test_what_is_asked_for_costs_what_it_will_be_billed_at(shop: Business) -> None:
    use(shop, "large", 30, "2025-01-05")
    cap(shop, "11.00")  # 1.00 is left: 20 included, then 100 at 0.01
    asked = gate(shop)
    now = at("2025-01-09")
    over, fits = asked.authorize(
        [Ask("acme", "tokens", Decimal(121)), Ask("acme", "tokens", Decimal(120))], now=now
    )
    assert getattr(over, "reason", None) == "spend_cap"
    held = quotas.allowed(fits).reservation_id
    asked.commit("acme", held, actual=None, now=now)
    assert spend(shop, now + timedelta(seconds=1)) == "11.00"
    assert billed(shop, "2025-02-01T02:00:00Z") == 1100


def test_after_a_change_each_value_has_the_rest_of_its_own_allowance(shop: Business) -> None:
    """10 x 10/31 + 31 x 21/31 of large and 20 x 10/31 + 62 x 21/31 of the rest, rounded up."""
    use(shop, "large", 20, "2025-01-05")
    use(shop, None, 40, "2025-01-05T01:00:00Z")
    with shop.database.transaction() as tx:
        who = customers.find(tx, "acme").customer_id
        changes.change(tx, customer_id=who, plan_key="big", when=When.NOW, now=at("2025-01-11"))
    use(shop, "large", 9, "2025-01-12")  # 25 free in all: 4 of the 29 at 0.25
    use(shop, "small", 10, "2025-01-12T01:00:00Z")  # big has no price of its own for small
    use(shop, None, 10, "2025-01-13")  # 49 free in all: 11 of the 60 at 0.02
    assert spend(shop, at("2025-01-14")) == "1.22"
    assert billed(shop, "2025-02-01T02:00:00Z") == 122


def test_from_weeks_to_months_the_rest_of_the_week_is_no_part_of_the_month(shop: Business) -> None:
    with shop.database.transaction() as tx:
        who = customers.find(tx, "acme").customer_id
        changes.change(tx, customer_id=who, plan_key="weekly", when=When.NOW, now=at("2025-01-01"))
    use(shop, "large", 5, "2025-01-09")  # 3 free, of 3 of the 7 days: 1.00
    with shop.database.transaction() as tx:
        changes.change(tx, customer_id=who, plan_key="pro", when=When.NOW, now=at("2025-01-11"))
    use(shop, "large", 9, "2025-01-12")  # 10 x 21/31 free, rounded up: 7 of them: 1.00
    assert spend(shop, at("2025-01-13")) == "1.00"
    assert billed(shop, "2025-02-01T02:00:00Z") == 200
