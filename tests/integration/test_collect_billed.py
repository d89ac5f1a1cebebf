"""From a billing run to money and paper: real invoices are collected, and read as documents."""

import io
from datetime import datetime, timedelta

import pypdf
import pytest

from convergio.billing import actions as billing
from convergio.billing import documents
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.settings import Seller
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.payments import actions as payments
from convergio.payments import checking
from convergio.payments.gateways.sandbox import Sandbox
from tests.fakes.business import Business


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
    gateways = {"sandbox": Sandbox(shop.database, VirtualClock(now))}
    report = payments.collect_due(shop.database, gateways, now=now)
    assert (report.succeeded, report.declined, report.problems) == (2, 2, ())
    assert report.collected == {"usd": "20.62"}
    shop.use("tok_ok", 1, "2024-12-20")
    shop.bill("2025-01-02")
    later = now + timedelta(days=1)
    assert payments.collect_due(shop.database, gateways, now=later).succeeded == 1
    with shop.database.transaction() as tx:
        assert checking.verify(tx) == []
        assert ledger.balance(tx, customers["tok_ok"], Account.RECEIVABLE, "usd").minor == 0
    assert shop.verify() == []


def test_a_paid_invoice_reads_as_a_document_with_its_arithmetic(
    shop: Business, now: datetime
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-11-01")
    shop.use("acme", 1_164, "2024-11-20")
    with shop.database.transaction() as tx:
        payments.add_method(tx, acme, gateway="sandbox", token="tok_ok", now=now)
    shop.bill("2024-12-02")
    gateways = {"sandbox": Sandbox(shop.database, VirtualClock(now))}
    payments.collect_due(shop.database, gateways, now=now)
    with shop.database.transaction() as tx:
        view = billing.read(tx, shop.keyring, shop.invoices()[-1])
    pdf = documents.render(documents.of(view, Seller()))
    text = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text().replace("\u00a0", " ")
    for words in ("CVG-2024-", "acme", "Paid in full", "$13.63", "Nov 1 \u2013 30, 2024", "1,164"):
        assert words in text, words
