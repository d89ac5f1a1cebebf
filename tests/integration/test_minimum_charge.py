"""A boundary that comes to less than is worth asking for waits, and nothing of it is lost.

What is worth asking for is what would be asked: after discounts, with the tax.
"""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import pytest

from convergio.billing import explaining
from convergio.catalog import actions as catalog
from convergio.discounts.model import Duration
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.subscriptions import actions as subscriptions
from convergio.taxes import actions as taxes
from tests.fakes.business import Business, at
from tests.integration.test_coupons import offered, redeemed
from tests.integration.test_money_grants import drawn, granted

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
  - key: fair
    name: Fair
    prices:
      - {key: fair_fee, name: Fee, charge: {model: flat, amount: 10}}
"""
FROM_FEBRUARY = """
seller: IT
registrations: [{country: IT}]
rates:
  - {country: IT, percent: "10", to: 2025-02-01}
  - {country: IT, percent: "20", from: 2025-02-01}
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


def rebated(shop: Business, percent: str = "97", plan: str = "fair") -> UUID:
    acme = shop.customer("acme", country="IT")
    shop.subscribe(acme, plan, "2025-01-01")
    offered(shop, percent=Decimal(percent), duration=Duration.FOREVER)
    redeemed(shop, acme)
    return acme


def test_a_discount_can_make_an_amount_small(shop: Business) -> None:
    rebated(shop)
    shop.bill("2025-01-02")
    assert totals(shop) == []
    assert shop.verify() == []
    shop.bill("2025-02-02")
    assert totals(shop) == [("2025-02-01", 60)]
    assert shop.bill("2025-02-02").invoices == 0
    assert shop.verify() == []


def test_tax_can_make_an_amount_worth_asking_for(shop: Business) -> None:
    with shop.database.transaction() as tx:
        taxes.apply(tx, FROM_FEBRUARY.encode(), now=shop.now)
    acme = shop.customer("acme", country="IT")
    with shop.database.transaction() as tx:
        catalog.apply(tx, CATALOG.replace(b"amount: 0.20", b"amount: 0.46"), now=shop.now)
    shop.subscribe(acme, "tiny", "2025-01-01")
    shop.bill("2025-01-02")
    assert totals(shop) == [("2025-01-01", 51)]
    assert shop.verify() == []


def test_what_comes_to_nothing_is_an_invoice_and_does_not_wait(shop: Business) -> None:
    rebated(shop, "100")
    shop.bill("2025-01-02")
    assert [(one.subtotal, one.total, one.status) for one in shop.invoices()] == [
        (1_000, 0, "paid")
    ]


def test_what_waits_uses_up_no_coupon_and_no_credit(shop: Business) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "fair", "2025-01-01")
    offered(
        shop, "SIX", percent=None, amount=600, currency="usd", duration=Duration.REPEATING,
        periods=2,
    )  # fmt: skip
    redeemed(shop, acme, "SIX")
    grant = granted(shop, "3.80")
    with shop.database.transaction() as tx:
        found = explaining.preview(tx, customer_id=acme, now=shop.now, at=at("2025-01-02"))
    assert [draft.total.minor for draft in found.drafts] == []
    shop.bill("2025-01-02")
    assert (totals(shop), drawn(shop, acme)) == ([], {})
    shop.bill("2025-02-02")
    (one,) = shop.invoices()
    assert (one.subtotal, one.discount, one.total) == (2_000, 1_200 + 380, 420)
    assert drawn(shop, acme) == {grant.grant_id: 380}
    assert shop.verify() == []


@pytest.mark.parametrize("at_once", [True, False])
def test_who_leaves_is_asked_once_for_all_that_waited(shop: Business, at_once: bool) -> None:
    acme = rebated(shop)
    shop.bill("2025-01-02")
    if at_once:
        shop.bill("2025-01-10")
    with shop.database.transaction() as tx:
        subscriptions.cancel(tx, customer_id=acme, at_period_end=False, now=at("2025-01-16"))
    for day in ("2025-01-17", "2025-01-18", "2025-03-01"):
        shop.bill(day)
    assert [total for _, total in totals(shop)] == [30]
    assert shop.verify() == []


def test_a_fee_that_waited_bears_the_tax_of_the_day_on_which_it_fell_due(shop: Business) -> None:
    with shop.database.transaction() as tx:
        taxes.apply(tx, FROM_FEBRUARY.encode(), now=shop.now)
    shop.subscribe(shop.customer("acme", country="IT"), "tiny", "2025-01-01")
    for day in ("2025-01-02", "2025-02-02", "2025-03-02"):
        shop.bill(day)
    (one,) = shop.invoices()
    with shop.database.transaction() as tx:
        rows = taxes.of_invoice(tx, one.customer_id, one.invoice_id)
    assert sorted((int(row.rate), row.net, row.tax) for row in rows) == [(10, 20, 2), (20, 40, 8)]
    assert (one.boundary_at, one.total) == (at("2025-03-01"), 70)
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("line", "field"),
    [(b"{usd: 0}", "minimum_charge.usd"), (b"{usd: 0.501}", "minimum_charge.usd"),
     (b"{xxq: 1}", "minimum_charge.xxq"), (b"{usd: -1}", "minimum_charge.usd")],
)  # fmt: skip
def test_a_minimum_that_is_no_amount_is_refused(shop: Business, line: bytes, field: str) -> None:
    with shop.database.transaction() as tx, pytest.raises(Invalid) as caught:
        catalog.apply(tx, CATALOG.replace(b"{usd: 0.50}", line), now=shop.now)
    assert caught.value.field == field
