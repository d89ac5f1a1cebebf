"""Coupons on real invoices: which period, which lines, how often, and what a void gives back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, explaining, issuing, redeeming
from convergio.billing.model import InvoiceView, Voiding
from convergio.discounts import actions as discounts
from convergio.discounts.model import Coupon, Duration, Redemption, Terms
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, ConvergioError, Invalid
from convergio.ledger import actions as ledger
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.taxes import actions as taxes
from tests.fakes.business import SELLER, Business, at

CATALOG = b"""
currency: usd
events: [{type: ai.request, keep: []}]
meters: [{key: questions, name: Questions, event: ai.request, value: quantity}]
plans:
  - key: pro
    name: Pro
    prices:
      - {key: pro-fee, name: Pro, charge: {model: flat, amount: "10.00"}}
      - {key: pro-questions, name: Questions, meter: questions, charge: {model: unit, unit: "0.05"}}
  - key: team
    name: Team
    prices: [{key: team-fee, name: Team, charge: {model: flat, amount: "100.00"}}]
  - key: weekly
    name: Weekly
    prices: [{key: week, name: Week, interval: week, charge: {model: flat, amount: "10.00"}}]
  - key: payg
    name: Pay as you go
    prices:
      - {key: payg-setup, name: Setup, once: true, charge: {model: flat, amount: "5.00"}}
      - {key: payg-use, name: Questions, meter: questions, charge: {model: unit, unit: "0.05"}}
  - key: yearly
    name: Yearly
    prices:
      - {key: setup, name: Setup, once: true, charge: {model: flat, amount: "5.00"}}
      - {key: year, name: Year, interval: year, charge: {model: flat, amount: "90.00"}}
"""
TAXES = b'{seller: IT, registrations: [{country: IT}], rates: [{country: IT, percent: "22"}]}'


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG)


def offered(shop: Business, code: str = "TEN", **terms: Any) -> Coupon:  # noqa: ANN401 - any term
    given: dict[str, Any] = {"name": code, "percent": Decimal(10)} | terms
    with shop.database.transaction() as tx:
        return discounts.create(tx, Terms(code=code, **given), now=shop.now)


def redeemed(
    shop: Business, customer_id: UUID, code: str = "TEN", when: str = "2025-01-01"
) -> Redemption:
    with shop.database.transaction() as tx:
        return redeeming.redeem(tx, customer_id=customer_id, code=code, now=at(when))


def subscribed(shop: Business, key: str = "acme", plan: str = "pro") -> UUID:
    customer_id = shop.customer(key, country="IT")
    shop.subscribe(customer_id, plan, "2025-01-01")
    return customer_id


def views(shop: Business, customer_id: UUID) -> list[InvoiceView]:
    found = shop.invoices(customer_id)
    with shop.database.transaction() as tx:
        return [billing.read(tx, shop.keyring, one) for one in found]


def lines(view: InvoiceView) -> list[tuple[str, int, int]]:
    return [(line.kind, line.amount, line.discount) for line in view.lines]


def test_a_coupon_lowers_its_periods_and_no_other(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop, duration=Duration.REPEATING, periods=2)
    one = redeemed(shop, customer_id)
    assert (one.span.first, one.span.last) == (0, 1)
    for month in ("2025-01-02", "2025-02-02", "2025-03-02"):
        shop.bill(month)
    found = [view.invoice for view in views(shop, customer_id)]
    assert [(i.subtotal, i.discount, i.total) for i in found] == [
        (1_000, 100, 900),
        (1_000, 100, 900),
        (1_000, 0, 1_000),
    ]
    with shop.database.transaction() as tx:
        totals = {account: money.minor for (account, _), money in ledger.totals(tx).items()}
    assert totals["deferred_revenue"] == -2_800
    assert shop.verify() == []


def test_a_setup_fee_is_no_fee_of_the_period_that_a_coupon_would_come_too_late_for(
    shop: Business,
) -> None:
    customer_id = subscribed(shop, plan="payg")
    shop.bill("2025-01-02")
    offered(shop)
    assert redeemed(shop, customer_id, when="2025-01-05").span.first == 0
    shop.use("acme", 100, "2025-01-10")
    shop.bill("2025-02-02")
    assert lines(views(shop, customer_id)[-1]) == [("usage", 500, 50)]


def test_a_coupon_counts_for_the_plan_that_a_waiting_change_led_to(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        changes.change(
            tx,
            customer_id=customer_id,
            plan_key="weekly",
            when=When.PERIOD_END,
            now=at("2025-01-05"),
        )
    offered(shop, plans=("weekly",))
    one = redeemed(shop, customer_id, when="2025-02-03")  # no run has carried the change out
    assert (one.span.interval, one.span.anchor_at, one.span.first) == ("week", at("2025-02-01"), 0)
    shop.bill("2025-02-10")
    weeks = [line.discount for view in views(shop, customer_id)[1:] for line in view.lines]
    assert weeks == [100, 0]


def test_what_is_asked_once_gives_a_coupon_no_periods(shop: Business) -> None:
    customer_id = subscribed(shop, plan="yearly")
    offered(shop)
    assert redeemed(shop, customer_id).span.interval == "year"


def test_late_usage_gets_the_discount_of_its_own_period(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop)
    redeemed(shop, customer_id)
    shop.bill("2025-02-02")
    shop.use("acme", 100, "2025-01-20T00:00:00Z")
    shop.use("acme", 100, "2025-02-20T00:00:00Z")
    shop.bill("2025-03-02")
    *_, last = views(shop, customer_id)
    assert lines(last) == [("fixed", 1_000, 0), ("usage", 500, 50), ("usage", 500, 0)]


def test_a_coupon_redeemed_when_the_fee_is_billed_begins_with_the_next_period(
    shop: Business,
) -> None:
    customer_id = subscribed(shop)
    shop.bill("2025-01-02")
    shop.use("acme", 100, "2025-01-20T00:00:00Z")
    offered(shop)
    assert redeemed(shop, customer_id, when="2025-01-15").span.first == 1
    shop.bill("2025-02-02")
    assert lines(views(shop, customer_id)[1]) == [("fixed", 1_000, 100), ("usage", 500, 0)]


def test_an_amount_is_taken_once_a_period_before_tax(shop: Business) -> None:
    with shop.database.transaction() as tx:
        taxes.apply(tx, TAXES, now=shop.now)
    customer_id = subscribed(shop)
    offered(
        shop, "FIVE", percent=None, amount=500, currency="usd", duration=Duration.FOREVER,
        prices=("pro-questions",),
    )  # fmt: skip
    redeemed(shop, customer_id, "FIVE")
    shop.use("acme", 60, "2025-01-20T00:00:00Z")
    shop.bill("2025-02-02")
    shop.use("acme", 140, "2025-01-21T00:00:00Z")
    shop.bill("2025-03-02")
    _, second, third = views(shop, customer_id)
    assert lines(second) == [("fixed", 1_000, 0), ("usage", 300, 300)]
    assert lines(third) == [("fixed", 1_000, 0), ("usage", 700, 200)]
    assert (third.invoice.tax, third.invoice.total) == (330, 1_830)
    assert shop.verify() == []


def test_a_credit_gives_back_what_was_paid_and_not_what_was_discounted(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    offered(shop, percent=Decimal(25))
    redeemed(shop, customer_id)
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        subscriptions.cancel(
            tx, customer_id=customer_id, at_period_end=False, credit=True, now=at("2025-01-16")
        )
    shop.bill("2025-01-17")
    with shop.database.transaction() as tx:
        (note,) = correcting.notes(tx, customer_id=customer_id)
    assert (note.subtotal, note.discount, note.total) == (5_161, 1_290, 3_871)
    assert shop.verify() == []


def test_a_credit_of_a_free_month_is_a_line_of_nothing_on_a_paid_invoice(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    offered(shop, percent=Decimal(100))
    redeemed(shop, customer_id)
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        subscriptions.cancel(
            tx, customer_id=customer_id, at_period_end=False, credit=True, now=at("2025-01-16")
        )
    shop.bill("2025-01-17")
    first, second = views(shop, customer_id)
    assert (first.invoice.total, first.invoice.status) == (0, "paid")
    assert lines(second) == [("fixed", -5_161, -5_161)]
    assert (second.invoice.total, second.invoice.status) == (0, "paid")
    assert shop.bill("2025-01-17").invoices == 0
    assert shop.verify() == []


def test_an_invoice_that_a_coupon_brings_to_nothing_is_told_as_paid(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop, percent=Decimal(100))
    redeemed(shop, customer_id)
    shop.bill("2025-01-02")
    (one,) = shop.invoices(customer_id)
    assert (one.total, one.status) == (0, "paid")
    with shop.database.transaction() as tx:
        told = tx.tuples("SELECT type FROM outbox_event WHERE subject = %(id)s", id=one.invoice_id)
    assert sorted(told) == [("invoice.finalized",), ("invoice.paid",)]


def test_a_void_invoice_gives_its_discount_back_where_it_is_billed_again(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop, "FIVE", percent=None, amount=500, currency="usd")
    redeemed(shop, customer_id, "FIVE")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        by = issuing.Issuer(SELLER, shop.keyring, at("2025-01-03"), at("2025-01-03"))
        first = billing.page(tx, customer_id=customer_id)[0]
        correcting.void(tx, by, invoice=first, how=Voiding.REISSUE)
    shop.bill("2025-02-02")
    assert lines(views(shop, customer_id)[1]) == [("fixed", 1_000, 500), ("fixed", 1_000, 0)]
    assert shop.verify() == []


def test_money_06_a_limit_in_all_holds_however_many_redeem_at_once(shop: Business) -> None:
    ids = shop.customers([f"c{number}" for number in range(12)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2025-01-01"),
            now=shop.now,
        )  # fmt: skip
    offered(shop, limit_in_all=5)

    def attempt(customer_id: UUID) -> bool:
        try:
            redeemed(shop, customer_id)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, ids.values())) == 5
    with shop.database.transaction() as tx:
        assert discounts.find(tx, "TEN").redeemed == 5
    assert shop.verify() == []


def test_money_06_a_limit_of_a_customer_holds_when_they_try_at_once(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop, limit_customer=2)

    def attempt(_: int) -> bool:
        try:
            redeemed(shop, customer_id)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(8))) == 2
    assert shop.verify() == []


def test_every_code_that_does_not_work_gets_the_same_answer(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop, "OLD", redeem_by=at("2024-12-31"))
    offered(shop, "OTHER-PLAN", plans=("team",))
    offered(shop, "OTHER-PRICE", prices=("team-fee",))
    offered(shop, "EURO", percent=None, amount=100, currency="eur")
    offered(shop, "GONE")
    offered(shop, "USED")
    redeemed(shop, customer_id, "USED")
    with shop.database.transaction() as tx:
        discounts.archive(tx, "GONE", now=shop.now)
    answers = set()
    for code in ("NOBODY", "OLD", "OTHER-PLAN", "OTHER-PRICE", "EURO", "GONE", "USED", "\x00"):
        with pytest.raises(ConvergioError) as error:
            redeemed(shop, customer_id, code)
        answers.add((type(error.value), error.value.code, error.value.detail))
    assert len(answers) == 1
    with shop.database.transaction() as tx:
        assert [one.code for one in discounts.redemptions(tx, customer_id)] == ["USED"]
        assert discounts.find(tx, "USED").redeemed == 1


def test_who_has_no_subscription_cannot_redeem(shop: Business) -> None:
    offered(shop)
    with pytest.raises(Conflict) as error:
        redeemed(shop, shop.customer("acme"))
    assert error.value.code == "no_subscription"


def test_a_code_is_taken_once_and_names_what_the_catalog_sells(shop: Business) -> None:
    offered(shop)
    with pytest.raises(Conflict):
        offered(shop)
    for given in ({"plans": ("nothing",)}, {"prices": ("nothing",)}):
        with pytest.raises(Invalid):
            offered(shop, "OTHER", **given)
    with shop.database.transaction() as tx:
        assert [one.terms.code for one in discounts.page(tx)] == ["TEN"]


def test_a_preview_and_an_explanation_name_the_coupon(shop: Business) -> None:
    customer_id = subscribed(shop)
    offered(shop)
    redeemed(shop, customer_id)
    with shop.database.transaction() as tx:
        found = explaining.preview(tx, customer_id=customer_id, now=shop.now, at=at("2025-01-02"))
        assert discounts.drawn_by_line(tx, [customer_id]) == {}
    shown = explaining.preview_value(found)["invoices"][0]
    assert (shown["subtotal"], shown["discount"], shown["total"]) == ("10.00", "1.00", "9.00")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        (invoice,) = billing.page(tx, customer_id=customer_id)
        value = explaining.explanation_value(invoice, explaining.explain(tx, invoice, 1))
    assert value["discounts"] == [{"coupon": "TEN", "amount": "1.00"}]
    assert (value["amount"], value["net"]) == ("10.00", "9.00")
