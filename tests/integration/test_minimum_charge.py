"""A boundary that comes to less than is worth asking for waits, and nothing of it is lost."""

from datetime import datetime

import pytest

from convergio.catalog import actions as catalog
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from tests.fakes.business import Business

CATALOG = b"""
currency: usd
minimum_charge: {usd: 0.50}
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, default: 1}
plans:
  - key: pay_as_you_go
    name: Pay as you go
    prices:
      - {key: use, name: Questions, meter: questions, charge: {model: unit, unit: 0.01}}
  - key: tiny
    name: Tiny
    prices:
      - {key: tiny_fee, name: Fee, charge: {model: flat, amount: 0.20}}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)


def totals(shop: Business) -> list[tuple[str, int]]:
    return [(f"{one.boundary_at:%Y-%m-%d}", one.total) for one in shop.invoices()]


def test_small_amounts_gather_until_they_are_worth_asking_for(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "pay_as_you_go", "2024-10-01")
    for month, questions in (("10", 20), ("11", 20), ("12", 40)):
        shop.use("acme", questions, f"2024-{month}-05")
    shop.bill("2024-11-02")
    shop.bill("2024-12-02")
    assert totals(shop) == []
    assert shop.verify() == []
    shop.bill("2025-01-02")
    assert totals(shop) == [("2025-01-01", 80)]
    shop.bill("2025-01-03")
    assert totals(shop) == [("2025-01-01", 80)]
    assert shop.verify() == []


def test_one_late_run_gathers_as_many_small_ones_do(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "pay_as_you_go", "2024-10-01")
    for month, questions in (("10", 20), ("11", 20), ("12", 40)):
        shop.use("acme", questions, f"2024-{month}-05")
    shop.bill("2025-01-02")
    assert totals(shop) == [("2025-01-01", 80)]


def test_small_fees_that_wait_are_no_difference(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "tiny", "2024-11-01")
    for day in ("2024-11-02", "2024-12-02"):
        shop.bill(day)
        assert shop.verify() == []
    assert totals(shop) == []
    shop.bill("2025-01-02")
    assert totals(shop) == [("2025-01-01", 60)]
    assert shop.verify() == []


def test_who_leaves_is_asked_for_it_all_the_same(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pay_as_you_go", "2024-11-01")
    shop.use("acme", 20, "2024-11-05")
    shop.cancel(acme, "2024-11-20", at_period_end=False)
    shop.bill("2024-12-02")
    assert [total for _, total in totals(shop)] == [20]
    assert shop.verify() == []


def test_what_is_worth_asking_for_does_not_wait(shop: Business) -> None:
    shop.subscribe(shop.customer("acme"), "pay_as_you_go", "2024-11-01")
    shop.use("acme", 50, "2024-11-05")
    shop.bill("2024-12-02")
    assert totals(shop) == [("2024-12-01", 50)]


@pytest.mark.parametrize(
    ("line", "field"),
    [(b"{usd: 0}", "minimum_charge.usd"), (b"{usd: 0.501}", "minimum_charge.usd"),
     (b"{xxq: 1}", "minimum_charge.xxq"), (b"{usd: -1}", "minimum_charge.usd")],
)  # fmt: skip
def test_a_minimum_that_is_no_amount_is_refused(shop: Business, line: bytes, field: str) -> None:
    with shop.database.transaction() as tx, pytest.raises(Invalid) as caught:
        catalog.apply(tx, CATALOG.replace(b"{usd: 0.50}", line), now=shop.now)
    assert caught.value.field == field
