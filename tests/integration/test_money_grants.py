"""Promotional credit in money: drawn before tax, in order, by the time of usage, never too much."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, issuing
from convergio.billing.model import Voiding
from convergio.discounts import actions as discounts
from convergio.discounts.model import Terms
from convergio.entitlements import grants
from convergio.entitlements.model import CreditGrant, GrantTerms
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.ledger import actions as ledger
from convergio.taxes import actions as taxes
from tests.fakes.business import SELLER, Business, at
from tests.integration.test_coupons import CATALOG, TAXES, offered, redeemed, subscribed

NAMES = iter(range(10_000))


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)


def granted(
    shop: Business,
    amount: str,
    key: str = "acme",
    **terms: Any,  # noqa: ANN401 - any term
) -> CreditGrant:
    given: dict[str, Any] = {
        "key": f"grant-{next(NAMES)}",
        "category": "promotional",
        "amount": amount,
        "starts_at": at("2025-01-01"),
    } | terms
    with shop.database.transaction() as tx:
        return grants.create(tx, key, GrantTerms(**given), now=shop.now)


def sums(shop: Business, customer_id: UUID) -> list[tuple[int, int, int, int]]:
    found = shop.invoices(customer_id)
    return [(one.subtotal, one.discount, one.tax, one.total) for one in found]


def drawn(shop: Business, customer_id: UUID) -> dict[UUID, int]:
    with shop.database.transaction() as tx:
        return discounts.drawn_of_grants(tx, [customer_id])


def test_credit_lowers_invoices_before_tax_until_it_is_used_up(shop: Business) -> None:
    with shop.database.transaction() as tx:
        taxes.apply(tx, TAXES, now=shop.now)
    customer_id = subscribed(shop)
    grant = granted(shop, "15.00")
    for month in ("2025-01-02", "2025-02-02", "2025-03-02"):
        shop.bill(month)
    assert sums(shop, customer_id) == [
        (1_000, 1_000, 0, 0),
        (1_000, 500, 110, 610),
        (1_000, 0, 220, 1_220),
    ]
    assert drawn(shop, customer_id) == {grant.grant_id: 1_500}
    with shop.database.transaction() as tx:
        totals = {account: money.minor for (account, _), money in ledger.totals(tx).items()}
    assert (totals["deferred_revenue"], totals["tax_payable"]) == (-1_500, -330)
    assert shop.verify() == []


def test_coupons_come_first_then_credit_by_priority_and_expiry(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop)
    redeemed(shop, customer_id)
    last = granted(shop, "5.00", priority=2)
    second = granted(shop, "5.00", priority=1, expires_at=at("2026-01-01"))
    first = granted(shop, "2.00", priority=1, expires_at=at("2025-06-01"))
    shop.bill("2025-01-02")
    assert sums(shop, customer_id) == [(1_000, 1_000, 0, 0)]
    assert drawn(shop, customer_id) == {
        first.grant_id: 200,
        second.grant_id: 500,
        last.grant_id: 200,
    }


def test_the_time_of_usage_decides_and_not_that_of_the_invoice(shop: Business) -> None:
    customer_id = subscribed(shop)
    grant = granted(shop, "100.00", expires_at=at("2025-02-01"))
    shop.bill("2025-02-02")
    shop.use("acme", 100, "2025-01-20T00:00:00Z")
    shop.use("acme", 100, "2025-02-20T00:00:00Z")
    shop.bill("2025-03-02")
    assert [one[1] for one in sums(shop, customer_id)] == [1_000, 0, 500]
    assert drawn(shop, customer_id) == {grant.grant_id: 1_500}
    assert shop.verify() == []


def test_credit_that_has_not_begun_is_not_drawn(shop: Business) -> None:
    customer_id = subscribed(shop)
    granted(shop, "5.00", starts_at=at("2025-03-01"))
    shop.bill("2025-01-02")
    assert sums(shop, customer_id) == [(1_000, 0, 0, 1_000)]


def test_money_that_was_paid_in_is_no_grant_but_the_balance(shop: Business) -> None:
    customer_id = subscribed(shop)
    with pytest.raises(Invalid) as error:
        granted(shop, "5.00", category="purchased")
    assert error.value.field == "category"
    assert drawn(shop, customer_id) == {}


def test_of_credit_that_was_taken_back_nothing_more_is_drawn(shop: Business) -> None:
    customer_id = subscribed(shop)
    grant = granted(shop, "15.00")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        grants.void(tx, "acme", grant.grant_id, now=shop.now)
    shop.bill("2025-02-02")
    assert [one[1] for one in sums(shop, customer_id)] == [1_000, 0]
    assert shop.verify() == []


def test_a_void_invoice_gives_back_its_credit_only_where_it_is_billed_again(
    shop: Business,
) -> None:
    customer_id = subscribed(shop)
    grant = granted(shop, "6.00")
    shop.bill("2025-01-02")
    by = issuing.Issuer(SELLER, shop.keyring, at("2025-01-03"), at("2025-01-03"))
    with shop.database.transaction() as tx:
        (invoice,) = billing.page(tx, customer_id=customer_id)
        correcting.void(tx, by, invoice=invoice, how=Voiding.REISSUE)
    assert drawn(shop, customer_id) == {}
    shop.bill("2025-02-02")
    assert sums(shop, customer_id)[1] == (2_000, 600, 0, 1_400)
    assert drawn(shop, customer_id) == {grant.grant_id: 600}
    again = shop.invoices(customer_id)[-1]
    with shop.database.transaction() as tx:
        correcting.void(tx, by, invoice=again, how=Voiding.WAIVE)
    assert drawn(shop, customer_id) == {grant.grant_id: 600}
    assert shop.verify() == []


def test_two_runs_at_once_never_draw_more_than_there_is(shop: Business) -> None:
    ids = {key: subscribed(shop, key) for key in (f"c{number}" for number in range(6))}
    for key in ids:
        granted(shop, "25.00", key)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shop.bill, ["2025-03-02", "2025-04-02"]))
    shop.bill("2025-04-02")
    for customer_id in ids.values():
        assert sum(one[1] for one in sums(shop, customer_id)) == 2_500
        assert sum(drawn(shop, customer_id).values()) == 2_500
    assert shop.verify() == []


def test_a_coupon_of_all_leaves_credit_untouched(shop: Business) -> None:
    customer_id = subscribed(shop)
    with shop.database.transaction() as tx:
        terms = Terms(code="FREE", name="Free", amount=1_000, currency="usd")
        discounts.create(tx, terms, now=shop.now)
    redeemed(shop, customer_id, "FREE")
    granted(shop, "5.00")
    shop.bill("2025-01-02")
    assert drawn(shop, customer_id) == {}
