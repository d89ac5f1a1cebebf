"""Attacks of the shared list on money: what cannot be had for less, twice, or in another's name."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import correcting
from convergio.billing.model import Invoice, Status
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.postgres import Embedded
from convergio.kernel.errors import Conflict, Invalid, LimitExceeded
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.payments import actions as payments
from convergio.payments import checking, receiving
from convergio.payments.gateways.sandbox import Sandbox
from convergio.payments.model import ReceiptMethod
from convergio.rating.model import Unit
from convergio.rating.rules import rate
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.subscriptions.rules import CHANGES_A_DAY_MAX
from tests.fakes.api import Api, running
from tests.fakes.business import Business, at

YEN = b"""
currency: jpy
plans:
  - key: pro
    name: Pro
    prices:
      - {key: fee, name: Pro, charge: {model: flat, amount: 500}}
      - {key: fee_kwd, name: Pro, currency: kwd, charge: {model: flat, amount: 1.234}}
"""
FREE_OF_CHARGE = b"""
currency: usd
plans:
  - key: pro
    name: Pro
    prices:
      - {key: fee, name: Pro, charge: {model: flat, amount: %s}}
"""


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


def change(shop: Business, customer_id: UUID, plan: str, when: datetime) -> None:
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=customer_id, plan_key=plan, seats=None, when=When.NOW, now=when
        )


def receive(
    shop: Business, customer_id: UUID, amount: str, reference: str, invoice: Invoice | None = None
) -> None:
    with shop.database.transaction() as tx:
        receiving.record(
            tx, customer_id=customer_id, amount=Money.parse(amount, "usd"),
            method=ReceiptMethod.BANK_TRANSFER, reference=reference,
            received_on=date(2025, 1, 14), now=shop.now, invoice=invoice,
        )  # fmt: skip


def balance(shop: Business, customer_id: UUID) -> int:
    with shop.database.transaction() as tx:
        return ledger.customer_credit(tx, [customer_id]).get(customer_id, 0)


def differences(shop: Business) -> list[object]:
    with shop.database.transaction() as tx:
        return [*checking.verify(tx), *shop.verify()]


@pytest.mark.parametrize("amount", ["-1.00", "0", "0.00", "-0.01"])
def test_money_05_nothing_below_zero_is_charged_received_or_taken_off(
    api: Api, amount: str
) -> None:
    name, _ = api.customer("pro")
    number = api.billed()
    tables = ("price", "subscription_item", "invoice", "credit_note", "coupon", "receipt")
    before = [api.count(table) for table in tables]
    for path, body in (
        ("/v1/charges", {"customer": name, "description": "x", "amount": amount}),
        (f"/v1/invoices/{number}/credit", {"reason": "x", "amount": amount}),
        (f"/v1/invoices/{number}/credit", {"reason": "x", "lines": {"1": amount}}),
        ("/v1/coupons", {"code": "NEG", "amount": amount, "currency": "usd"}),
        ("/v1/coupons", {"code": "NEG", "percent": amount}),
        ("/v1/receipts", {"customer": name, "amount": amount, "reference": "r",
                          "received_on": "2025-01-14"}),
        (f"/v1/customers/{name}/credit-grants",
         {"key": "neg", "category": "promotional", "amount": amount}),
    ):  # fmt: skip
        found = api.post(path, body)
        assert found.status_code in {409, 422}, (path, found.text)
    assert [api.count(table) for table in tables] == before


@pytest.mark.parametrize(
    "amount", ["5,00", "1e3", "NaN", "0.005", "", "10000000000000.01", "99999999999999999999.00"]
)
def test_an_amount_that_is_none_is_refused_with_its_field(api: Api, amount: str) -> None:
    name, _ = api.customer("pro")
    number = api.billed()
    bodies: list[tuple[str, dict[str, object], str]] = [
        ("/v1/charges", {"customer": name, "description": "x", "amount": amount}, "amount"),
        ("/v1/charges/preview", {"customer": name, "description": "x", "amount": amount}, "amount"),
        ("/v1/coupons", {"code": "BAD", "amount": amount, "currency": "usd"}, "amount"),
        ("/v1/receipts", {"customer": name, "amount": amount, "reference": "r",
                          "received_on": "2025-01-14"}, "amount"),
        (f"/v1/customers/{name}/credit-grants",
         {"key": "bad", "category": "promotional", "amount": amount}, "amount"),
    ]  # fmt: skip
    if len(amount) < len("10000000000000.01"):  # which is beyond the invoice
        where = f"/v1/invoices/{number}/credit"
        bodies.append((where, {"reason": "x", "amount": amount}, "amount"))
        bodies.append((where, {"reason": "x", "lines": {"1": amount}}, "lines"))
    if amount != "0.005":  # which is a percentage, and a fine one
        bodies.append(("/v1/coupons", {"code": "BAD", "percent": amount}, "percent"))
    for path, body, field in bodies:
        found = api.post(path, body)
        assert (found.status_code, found.json().get("field")) == (422, field), (path, found.text)


def test_money_05_a_price_below_zero_is_not_for_sale_and_a_plain_key_charges_nobody(
    api: Api,
) -> None:
    for amount in (b"-1", b"'-0.01'"):
        found = api.send("POST", "/v1/catalog/apply", FREE_OF_CHARGE % amount)
        assert found.status_code == 422, found.text
    name, customer_id = api.customer("pro")
    body = {"customer": name, "description": "x", "amount": "1.00"}
    own = api.key(*(one for one in Scope if one != Scope.ADMIN), customer_id=customer_id)
    for key in (api.key(Scope.SUBSCRIPTIONS_WRITE, Scope.USAGE_WRITE), own):
        assert api.post("/v1/charges", body, key=key).status_code == 403


def test_money_10_a_line_is_rounded_once_and_lines_add_up_to_the_total(api: Api) -> None:
    half = Unit(unit="0.005")
    lines = [rate(half, Decimal(1), currency="usd").total for _ in range(1_000)]
    assert {one.text() for one in lines} == {"0.01"}  # half away from zero, each by itself
    assert sum(one.minor for one in lines) == 1_000
    assert rate(half, Decimal(1_000), currency="usd").total.text() == "5.00"
    name, _ = api.customer("pro")
    body = {"customer": name, "description": "x", "amount": "0.005"}
    assert api.post("/v1/charges", body).status_code == 422


def test_money_13_a_coupon_or_plan_of_another_currency_is_not_had(api: Api) -> None:
    name, _ = api.customer("pro")
    before = api.count("coupon_redemption")
    coupon = {"code": "EURO", "amount": "5.00", "currency": "eur"}
    assert api.post("/v1/coupons", coupon).status_code == 201
    told = api.post("/v1/coupon-redemptions", {"customer": name, "code": "EURO"})
    assert told.status_code in {409, 422}
    assert api.count("coupon_redemption") == before
    assert api.post("/v1/customers", {"key": "euro", "currency": "eur"}).status_code == 201
    told = api.post("/v1/subscriptions", {"customer": "euro", "plan": "pro"})
    assert (told.status_code, told.json()["field"]) == (422, "plan")


def test_money_14_minor_units_are_those_of_the_currency_in_both_directions(
    database: Database, now: datetime
) -> None:
    shop = Business(database, now, YEN)
    clock = VirtualClock(now)
    sandbox = Sandbox(database, clock)
    for currency, minor, text in (("jpy", 500, "500"), ("kwd", 1_234, "1.234")):
        who = shop.customer(currency, currency=currency)
        shop.subscribe(who, "pro", "2024-12-20")
        with database.transaction() as tx:
            payments.add_method(tx, who, gateway="sandbox", token="tok_ok", now=now)
        shop.bill("2024-12-21")
        (invoice,) = shop.invoices(who)
        assert (invoice.total, invoice.due.text(), invoice.currency) == (minor, text, currency)
        report = payments.collect_due(database, {"sandbox": sandbox}, clock=clock)
        assert report.collected == {currency: text}
        assert shop.invoices(who)[0].paid == minor
    for wrong in ("500.5", "0.1"):
        with pytest.raises(Invalid):
            Money.parse(wrong, "jpy")
    assert differences(shop) == []


def test_money_15_going_up_and_down_all_day_ends_and_gains_nothing(shop: Business) -> None:
    who = shop.customer("acme")
    shop.subscribe(who, "pro", "2025-01-01")
    shop.bill("2025-01-02")
    begin = at("2025-01-10")

    def attempt(number: int) -> bool:
        try:
            change(shop, who, ("team", "pro")[number % 2], begin + timedelta(minutes=7 * number))
        except (LimitExceeded, Invalid):  # enough for a day, or on that plan already
            return False
        return True

    done = sum(attempt(number) for number in range(100))
    assert done == CHANGES_A_DAY_MAX
    shop.bill("2025-01-12")
    shop.bill("2025-02-02")
    with shop.database.transaction() as tx:
        notes = correcting.notes(tx, customer_id=who)
    billed = sum(one.total for one in shop.invoices(who)) - sum(one.total for one in notes)
    stretches = done + 1  # each is rounded by itself, by half a cent at most
    assert billed >= 2 * 699 - stretches // 2  # two months of the smaller of the two plans
    assert differences(shop) == []


def test_money_17_a_change_at_the_very_boundary_is_billed_once_and_on_its_side(
    shop: Business,
) -> None:
    who, other = shop.customer("acme"), shop.customer("other")
    for each in (who, other):
        shop.subscribe(each, "pro", "2024-11-01")
        shop.bill("2024-11-02")
    change(shop, who, "team", at("2024-12-01"))
    shop.subscribe(fresh := shop.customer("fresh"), "team", "2024-12-01")
    shop.bill("2024-12-02")
    assert [one.total for one in shop.invoices(other)] == [699, 699]
    (november, december), (alone,) = shop.invoices(who), shop.invoices(fresh)
    assert (november.total, november.credited) == (699, 0)
    assert december.total == alone.total  # no rest of the old plan, all of the new one
    shop.bill("2024-12-03")
    assert len(shop.invoices(who)) == 2
    assert differences(shop) == []


def test_money_18_a_change_or_an_end_leaves_the_debt_of_before(shop: Business) -> None:
    who = shop.customer("acme")
    shop.subscribe(who, "pro", "2024-12-01")
    shop.bill("2024-12-02")
    (debt,) = shop.invoices(who)
    change(shop, who, "team", at("2024-12-10"))
    shop.cancel(who, "2024-12-12", at_period_end=False)
    shop.bill("2024-12-13")
    after = shop.invoices(who)[0]
    assert (after.status, after.due) == (Status.OPEN, debt.due)
    shop.subscribe(who, "pro", "2024-12-12")
    shop.bill("2024-12-14")
    assert shop.invoices(who)[0].due == debt.due
    assert differences(shop) == []


def test_money_22_what_is_paid_twice_is_the_customer_s_and_the_invoice_is_paid_once(
    shop: Business, now: datetime
) -> None:
    who = shop.customer("acme")
    shop.subscribe(who, "pro", "2024-12-01")
    shop.bill("2024-12-02")
    (invoice,) = shop.invoices(who)
    receive(shop, who, "6.99", "TRF 1", invoice)
    receive(shop, who, "6.99", "TRF 2", invoice)
    with shop.database.transaction() as tx:
        payments.add_method(tx, who, gateway="sandbox", token="tok_ok", now=now)
    clock = VirtualClock(now)
    sandbox = Sandbox(shop.database, clock)
    assert payments.collect_due(shop.database, {"sandbox": sandbox}, clock=clock).succeeded == 0
    (invoice,) = shop.invoices(who)
    assert (invoice.status, invoice.paid, invoice.due.minor) == (Status.PAID, 699, 0)
    assert balance(shop, who) == 699
    assert differences(shop) == []


def test_money_24_an_issued_invoice_is_changed_by_nothing_but_a_credit_note(api: Api) -> None:
    number = api.billed()
    where = f"/v1/invoices/{number}"
    before = api.get(where).json()
    wishes: tuple[dict[str, Any], ...] = (
        {"total": "0.01"}, {"lines": []}, {"issued_on": "2020-01-01"}, {"customer": "acme"},
    )  # fmt: skip
    for body in wishes:
        for method in ("PATCH", "PUT"):
            assert api.send(method, where, body).status_code == 405
    assert api.send("DELETE", where).status_code == 405
    assert api.get(where).json() == before
    credit = api.post(f"{where}/credit", {"reason": "a mistake", "amount": "1.00"})
    assert credit.status_code == 201
    after = api.get(where).json()
    assert after == before | {"credited": "1.00", "due": "5.99"}


def test_money_26_runs_at_once_spend_a_balance_once(shop: Business) -> None:
    who = shop.customer("acme")
    shop.subscribe(who, "pro", "2024-10-01")
    receive(shop, who, "10.00", "TRF 1")
    assert balance(shop, who) == 1_000
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(shop.bill, ["2025-01-02"] * 3))
    invoices = shop.invoices(who)
    assert [one.from_balance for one in invoices] == [699, 301, 0, 0]
    assert balance(shop, who) == 0
    assert differences(shop) == []


def test_money_06_a_coupon_that_is_used_up_or_over_is_refused(api: Api) -> None:
    (one, _), (two, _) = api.customer("pro"), api.customer("pro")
    assert api.post("/v1/coupons", {"code": "ONCE", "percent": "10", "limit_in_all": 1}).is_success
    taken = {"customer": one, "code": "ONCE"}
    assert api.post("/v1/coupon-redemptions", taken).status_code == 201
    for body in (taken, {"customer": two, "code": "ONCE"}):
        assert api.post("/v1/coupon-redemptions", body).status_code in {409, 422}


def test_money_17_two_subscriptions_never_bill_the_same_time(shop: Business) -> None:
    who = shop.customer("acme")
    shop.subscribe(who, "pro", "2024-12-01")
    shop.cancel(who, "2024-12-20", at_period_end=False)
    with pytest.raises(Conflict, match="2024-12-20T00:00:00Z"):
        shop.subscribe(who, "pro", "2024-12-19")
    shop.subscribe(who, "pro", "2024-12-20")
