"""From a billing run to money and paper: real invoices are collected, and read as documents."""

import io
from datetime import datetime, timedelta

import pypdf
import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, documents, issuing
from convergio.billing.model import Voiding
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.settings import Seller
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.payments import actions as payments
from convergio.payments import checking
from convergio.payments.gateways.sandbox import Sandbox
from convergio.subscriptions import actions as subscriptions
from tests.fakes.business import SELLER, Business


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


def test_what_a_run_billed_is_collected_and_every_check_agrees(
    shop: Business, now: datetime
) -> None:
    customers = {token: shop.customer(token) for token in ("tok_ok", "tok_declined")}
    with shop.database.transaction() as tx:
        for token, customer in customers.items():
            payments.add_method(tx, customer, gateway="sandbox", token=token, now=now)
    for customer in customers.values():
        shop.subscribe(customer, "pro", "2024-11-01")
    shop.use("tok_ok", 1_164, "2024-11-20")
    shop.bill("2024-12-02")
    clock = VirtualClock(now)
    gateways = {"sandbox": Sandbox(shop.database, clock)}
    report = payments.collect_due(shop.database, gateways, clock=clock)
    assert (report.succeeded, report.declined, report.problems) == (2, 2, ())
    assert report.collected == {"usd": "20.62"}
    shop.use("tok_ok", 1, "2024-12-20")
    shop.bill("2025-01-02")
    clock.advance_to(now + timedelta(days=1))
    assert payments.collect_due(shop.database, gateways, clock=clock).succeeded == 1
    with shop.database.transaction() as tx:
        assert checking.verify(tx) == []
        assert ledger.balance(tx, customers["tok_ok"], Account.RECEIVABLE, "usd").minor == 0
    assert shop.verify() == []


@pytest.mark.parametrize("how", Voiding)
def test_who_was_given_up_is_let_in_again_when_the_invoice_is_void(
    shop: Business, now: datetime, how: Voiding
) -> None:
    acme = shop.customer("acme")
    with shop.database.transaction() as tx:
        payments.add_method(tx, acme, gateway="sandbox", token="tok_declined", now=now)
    shop.subscribe(acme, "pro", "2024-12-15")
    shop.bill("2024-12-16")
    clock = VirtualClock(now)
    gateways = {"sandbox": Sandbox(shop.database, clock)}
    for day in range(8):
        clock.advance_to(now + timedelta(days=day))
        payments.collect_due(shop.database, gateways, clock=clock)
    by = issuing.Issuer(SELLER, shop.keyring, clock.now(), clock.now())
    for expected in ("unpaid", "active"):
        with shop.database.transaction() as tx:
            assert subscriptions.live_status(tx, [acme])[acme] == expected
            (invoice,) = billing.page(tx, customer_id=acme)
            if expected == "unpaid":
                correcting.void(tx, by, invoice=invoice, how=how)
        payments.collect_due(shop.database, gateways, clock=clock)
    with shop.database.transaction() as tx:
        assert checking.verify(tx) == []


def test_a_paid_invoice_reads_as_a_document_with_its_arithmetic(
    shop: Business, now: datetime
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 1_164, "2024-11-20")
    with shop.database.transaction() as tx:
        payments.add_method(tx, acme, gateway="sandbox", token="tok_ok", now=now)
    shop.bill("2024-12-02")
    clock = VirtualClock(now)
    gateways = {"sandbox": Sandbox(shop.database, clock)}
    payments.collect_due(shop.database, gateways, clock=clock)
    with shop.database.transaction() as tx:
        view = billing.read(tx, shop.keyring, shop.invoices()[-1])
    pdf = documents.render(documents.of(view, Seller()))
    text = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text().replace("\u00a0", " ")
    for words in ("CVG-2024-", "acme", "Paid in full", "$13.63", "Nov 1 \u2013 30, 2024", "1,164"):
        assert words in text, words
