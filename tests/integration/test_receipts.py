"""Bank transfers: entered once, they pay invoices in part or in whole, and nothing is lost."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from convergio.billing import terms
from convergio.billing.model import CollectionMethod, Invoice, Status
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.payments import actions as payments
from convergio.payments import checking, receiving
from convergio.payments.gateways.sandbox import Sandbox
from convergio.payments.model import Receipt, ReceiptMethod
from convergio.subscriptions import actions as subscriptions
from tests.fakes.business import Business

DAY = date(2025, 1, 14)


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    made = Business(database, now)
    acme = made.customer("acme")
    made.subscribe(acme, "pro", "2024-11-01")
    made.bill("2024-12-02")
    return made


def enter(
    shop: Business, amount: str, reference: str, *, invoice: Invoice | None = None,
    received_on: date = DAY, currency: str = "usd",
) -> Receipt:  # fmt: skip
    with shop.database.transaction() as tx:
        return receiving.record(
            tx, customer_id=shop.invoices()[0].customer_id, amount=Money.parse(amount, currency),
            method=ReceiptMethod.BANK_TRANSFER, reference=reference, received_on=received_on,
            now=shop.now, invoice=invoice,
        )  # fmt: skip


def differences(shop: Business) -> list[object]:
    with shop.database.transaction() as tx:
        return [*checking.verify(tx), *shop.verify()]


def balance(shop: Business, account: Account) -> int:
    with shop.database.transaction() as tx:
        return ledger.balance(tx, shop.invoices()[0].customer_id, account, "usd").minor


def test_a_part_leaves_the_invoice_open_and_the_rest_completes_it(shop: Business) -> None:
    first = shop.invoices()[0]
    enter(shop, "2.00", "TRF 1", invoice=first)
    half = shop.invoices()[0]
    assert (half.status, half.due.text()) == (Status.OPEN, "4.99")
    enter(shop, "4.99", "TRF 2", invoice=first)
    assert shop.invoices()[0].status == Status.PAID
    assert shop.invoices()[1].status == Status.OPEN
    assert differences(shop) == []


def test_without_an_invoice_the_oldest_is_paid_first_and_the_rest_is_the_balance(
    shop: Business,
) -> None:
    enter(shop, "20.00", "TRF 1")
    assert [one.status for one in shop.invoices()] == [Status.PAID, Status.PAID]
    assert balance(shop, Account.BANK) == 2_000
    assert -balance(shop, Account.CUSTOMER_CREDIT) == 2_000 - 2 * 699
    shop.bill("2025-01-02")
    assert shop.invoices()[2].from_balance == 2_000 - 2 * 699
    assert differences(shop) == []


def test_the_same_reference_is_one_receipt_and_another_meaning_of_it_is_refused(
    shop: Business,
) -> None:
    one = enter(shop, "2.00", "TRF 1")
    assert enter(shop, "2.00", "TRF 1") == one
    assert shop.invoices()[0].paid == 200
    with pytest.raises(Conflict, match="other details"):
        enter(shop, "3.00", "TRF 1")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"amount": "0.00"}, "amount"),
        ({"received_on": date(2030, 1, 1)}, "received_on"),
        ({"received_on": date(1999, 12, 31)}, "received_on"),
        ({"reference": "   "}, "reference"),
        ({"reference": "card 4242 4242 4242 4242"}, "reference"),
        ({"reference": "a\x00b"}, "reference"),
    ],
)
def test_what_cannot_be_true_is_refused_with_the_field(
    shop: Business, changed: dict[str, object], field: str
) -> None:
    asked: dict[str, Any] = {"amount": "2.00", "reference": "TRF 1"} | changed
    with pytest.raises(Invalid) as caught:
        enter(shop, **asked)
    assert caught.value.field == field


def test_another_currency_is_refused(shop: Business) -> None:
    with pytest.raises(Conflict, match="pays in usd"):
        enter(shop, "2.00", "TRF 1", currency="eur")


def test_who_transfers_is_never_charged_and_is_past_due_after_the_due_day(
    shop: Business, now: datetime
) -> None:
    acme = shop.invoices()[0].customer_id
    with shop.database.transaction() as tx:
        payments.add_method(tx, acme, gateway="sandbox", token="tok_ok", now=now)
        terms.set_terms(tx, acme, CollectionMethod.SEND_INVOICE, 30, now=now)
        assert payments.payable(tx, [acme]) == {acme}
    clock = VirtualClock(now)
    gateways = {"sandbox": Sandbox(shop.database, clock)}
    report = payments.collect_due(shop.database, gateways, clock=clock)
    assert (report.succeeded, report.waiting_for_method) == (0, 2)
    enter(shop, "13.98", "TRF 1")
    clock.advance_to(now + timedelta(days=60))
    payments.collect_due(shop.database, gateways, clock=clock)
    with shop.database.transaction() as tx:
        assert subscriptions.live_status(tx, [acme])[acme] == "active"
    assert differences(shop) == []


def test_agreed_days_decide_the_due_day_of_the_next_invoice(shop: Business, now: datetime) -> None:
    first = shop.invoices()[0]
    with shop.database.transaction() as tx:
        terms.set_terms(tx, first.customer_id, CollectionMethod.SEND_INVOICE, 45, now=now)
    shop.bill("2025-01-02")
    assert first.due_on - first.issued_on == timedelta(days=14)
    latest = shop.invoices()[-1]
    assert latest.due_on - latest.issued_on == timedelta(days=45)
    with shop.database.transaction() as tx, pytest.raises(Invalid, match="365"):
        terms.set_terms(tx, first.customer_id, CollectionMethod.SEND_INVOICE, 366, now=now)


def test_whatever_comes_is_on_invoices_or_in_the_balance(shop: Business) -> None:
    amounts = [1, 350, 400, 699, 12, 1_000]
    for place, amount in enumerate(amounts):
        enter(shop, Money(amount, "usd").text(), f"TRF {place}")
        paid = sum(one.paid - one.excess for one in shop.invoices())
        held = -balance(shop, Account.CUSTOMER_CREDIT)
        assert paid + held == sum(amounts[: place + 1])
        assert differences(shop) == []


def test_a_card_that_declines_after_a_transfer_paid_leaves_the_customer_in_good_standing(
    shop: Business, now: datetime
) -> None:
    acme = shop.invoices()[0].customer_id
    with shop.database.transaction() as tx:
        payments.add_method(tx, acme, gateway="sandbox", token="tok_requires_action", now=now)
    clock = VirtualClock(now)
    gateways = {"sandbox": Sandbox(shop.database, clock)}
    assert payments.collect_due(shop.database, gateways, clock=clock).requires_action == 2
    enter(shop, "13.98", "TRF 1")
    clock.advance_to(now + timedelta(days=1))
    report = payments.reconcile(shop.database, gateways, now=clock.now())
    assert report.declined == 2
    with shop.database.transaction() as tx:
        assert subscriptions.live_status(tx, [acme])[acme] == "active"
        states = {(one.state.value, one.next_at) for one in payments.collections(tx, acme)}
    assert states == {("paid", None)}
    assert differences(shop) == []
