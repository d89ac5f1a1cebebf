"""Invoices in another currency state their tax in the seller's, at a rate that nobody guessed."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, einvoices, factur_x, fatturapa, issuing
from convergio.billing.model import CreditNote, CreditNoteView, InvoiceView, Voiding
from convergio.infra.db import Database
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.money import Money
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.taxes import actions as taxes
from convergio.taxes import stating, store
from convergio.taxes.model import Exchange
from tests.fakes import documents, schemas
from tests.fakes.business import SELLER, Business, at

CATALOG = b"""
currency: usd
events: [{type: ai.request, keep: []}]
meters: [{key: questions, name: Questions, event: ai.request, value: quantity}]
plans:
  - key: team
    name: Team
    prices: [{key: team-fee, name: Team, charge: {model: flat, amount: "100.00"},
              currencies: {eur: {model: flat, amount: "100.00"}}}]
  - key: house
    name: House
    prices: [{key: house-fee, name: House, charge: {model: flat, amount: "300.00"},
              currencies: {eur: {model: flat, amount: "300.00"}}}]
"""
TAXES = b"""
seller: IT
currency: eur
registrations: [{country: IT}]
rates: [{country: IT, percent: "22"}]
"""
RATES = b"""Date,USD,
2025-01-17,1.0298,
2025-01-16,1.0300,
2025-01-15,1.0300,
2025-01-14,1.0245,
2025-01-13,1.0198,
2025-01-10,1.0304,
2025-01-09,1.0305,
2025-01-08,1.0286,
2025-01-07,1.0393,
2025-01-06,1.0426,
2025-01-03,1.0299,
2025-01-02,1.0321,
2024-12-31,1.0389,
"""
Make = Callable[..., Business]


@pytest.fixture
def make(database: Database, now: datetime) -> Make:
    def made(source: bytes = TAXES, rates: bytes | None = RATES) -> Business:
        shop = Business(database, now, CATALOG)
        with database.transaction() as tx:
            taxes.apply(tx, source, now=now)
            if rates is not None:
                stating.import_rates(tx, rates, now=now)
        return shop

    return made


def subscribed(shop: Business, key: str, currency: str = "usd", **more: str) -> UUID:
    address = {"street": "Via Roma 1", "city": "Roma", "postal_code": "00144", "country": "IT"}
    personal: dict[str, Any] = {"tax_id": "IT07643520567", **address, **more}
    customer_id = shop.customer(key, currency=currency, **personal)
    shop.subscribe(customer_id, "team", "2025-01-01")
    return customer_id


def view(shop: Business, customer_id: UUID, place: int = 0) -> InvoiceView:
    found = shop.invoices(customer_id)[place]
    with shop.database.transaction() as tx:
        return billing.read(tx, shop.keyring, found)


def notes(shop: Business, customer_id: UUID) -> list[CreditNoteView]:
    with shop.database.transaction() as tx:
        found = correcting.notes(tx, customer_id=customer_id)
        return [correcting.read_note(tx, shop.keyring, one) for one in found]


def credit(shop: Business, customer_id: UUID, when: str, minor: int | None) -> CreditNote:
    invoice = shop.invoices(customer_id)[0]
    by = issuing.Issuer(documents.SELLER, shop.keyring, at(when), at(when))
    amount = None if minor is None else Money(minor, invoice.currency)
    with shop.database.transaction() as tx:
        return correcting.credit(tx, by, invoice=invoice, reason="Goodwill", amount=amount)


def stated(one: InvoiceView | CreditNoteView) -> list[tuple[int | None, int | None]]:
    return [(row.stated_net, row.stated_tax) for row in one.taxes]


def test_a_foreign_invoice_keeps_its_rate_and_its_tax_in_euros(make: Make) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02", seller=documents.SELLER)
    found = view(shop, customer_id)
    one = Decimal(1)
    assert found.kept.exchange == Exchange("eur", date(2025, 1, 2), Decimal("1.0321"), one, "ECB")
    # 22.00 / 1.0321 = 21.3157..., 100.00 / 1.0321 = 96.8898...
    assert stated(found) == [(9_689, 2_132)]
    xml = factur_x.write(einvoices.of(found, documents.SELLER))
    assert schemas.texts(xml, "TaxTotalAmount") == ["22.00", "21.32"]
    assert schemas.en_16931(xml) == []
    assert shop.verify() == []


def test_the_day_is_that_of_the_seller_s_zone_and_of_the_last_rate_before_it(make: Make) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    rome = Seller(name="Test Seller", time_zone="Europe/Rome")
    shop.bill("2025-01-02T23:30:00Z", seller=rome)  # the third in Rome
    kept = view(shop, customer_id).kept.exchange
    assert kept is not None
    assert kept.day == date(2025, 1, 3)
    other = subscribed(shop, "bianchi")
    shop.bill("2025-01-05")  # a Sunday
    kept = view(shop, other).kept.exchange
    assert kept is not None
    assert kept.day == date(2025, 1, 3)


def test_a_run_of_an_earlier_day_takes_the_rate_of_the_day_that_its_documents_bear(
    make: Make,
) -> None:
    shop = make()
    subscribed(shop, "first", "eur")
    shop.bill("2025-01-17T12:00:00Z")
    usd = subscribed(shop, "late")
    shop.bill("2025-01-15T12:00:00Z")
    late = view(shop, usd)
    assert late.invoice.issued_on == date(2025, 1, 17)
    assert late.kept.exchange is not None
    assert late.kept.exchange.day == date(2025, 1, 17)


def test_an_invoice_in_the_seller_s_own_currency_states_nothing(make: Make) -> None:
    shop = make(rates=None)
    customer_id = subscribed(shop, "rossi", "eur")
    assert shop.bill("2025-01-02").problems == []
    found = view(shop, customer_id)
    assert (stated(found), found.kept.exchange) == ([(None, None)], None)


def test_a_customer_whose_rate_is_missing_waits_alone_and_goes_on_once_it_is_there(
    make: Make,
) -> None:
    shop = make(rates=RATES)
    dollars, euros = subscribed(shop, "rossi"), subscribed(shop, "bianchi", "eur")
    report = shop.bill("2025-01-21")  # rates of the 20th were never imported
    assert [(one.customer_id, one.code) for one in report.problems] == [(dollars, "rate_unknown")]
    assert "2025-01-20" in report.problems[0].reason
    assert len(shop.invoices(euros)) == 1
    assert shop.invoices(dollars) == []
    with shop.database.transaction() as tx:
        assert [one.code for one in billing.parked(tx)] == ["rate_unknown"]
        stating.import_rates(tx, b"Date,USD\n2025-01-20,1.0316\n", now=shop.now)
    assert shop.bill("2025-01-21").problems == []
    kept = view(shop, dollars).kept.exchange
    assert kept is not None
    assert kept.day == date(2025, 1, 20)
    with shop.database.transaction() as tx:
        assert billing.parked(tx) == []
    assert shop.verify() == []


def test_credit_notes_take_the_rate_of_their_invoice_and_the_last_closes_the_cent(
    make: Make,
) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02", seller=documents.SELLER)
    for minor in (3_333, 3_333, None):
        credit(shop, customer_id, "2025-01-17", minor)
    found = notes(shop, customer_id)
    assert [one.kept.exchange for one in found] == [view(shop, customer_id).kept.exchange] * 3
    assert [one.note.tax for one in found] == [733, 734, 733]
    assert [stated(one)[0][1] for one in found] == [710, 711, 711]
    assert sum(stated(one)[0][1] or 0 for one in found) == 2_132
    assert sum(stated(one)[0][0] or 0 for one in found) == 9_689
    for one in found:
        assert schemas.en_16931(factur_x.write(einvoices.of_note(one, documents.SELLER))) == []
    assert shop.verify() == []


@pytest.mark.parametrize("how", list(Voiding))
def test_a_void_gives_back_what_was_stated(make: Make, how: Voiding) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02")
    by = issuing.Issuer(SELLER, shop.keyring, at("2025-01-10"), at("2025-01-10"))
    with shop.database.transaction() as tx:
        correcting.void(tx, by, invoice=shop.invoices(customer_id)[0], how=how)
    assert [stated(one) for one in notes(shop, customer_id)] == [[(9_689, 2_132)]]
    assert shop.verify() == []


def test_a_reduction_never_nets_where_tax_is_converted(make: Make) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=customer_id, plan_key="house", seats=None, when=When.NOW,
            now=at("2025-01-16"),
        )  # fmt: skip
    shop.bill("2025-01-17")
    assert all(line.amount > 0 for line in view(shop, customer_id, -1).lines)
    (note,) = notes(shop, customer_id)
    kept = note.kept.exchange
    assert kept is not None
    assert kept.day == date(2025, 1, 2)
    assert shop.verify() == []


@pytest.mark.parametrize("issues", [False, True])
def test_sellers_who_issue_fatturapa_have_credit_notes_and_no_negative_line(
    make: Make, issues: bool
) -> None:
    source = TAXES + b"fatturapa: true\n" if issues else TAXES
    shop = make(source)
    customer_id = subscribed(shop, "rossi", "eur")
    shop.bill("2025-01-02", seller=documents.SELLER)
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=customer_id, plan_key="house", seats=None, when=When.NOW,
            now=at("2025-01-16"),
        )  # fmt: skip
    shop.bill("2025-01-17", seller=documents.SELLER)
    last = view(shop, customer_id, -1)
    found = notes(shop, customer_id)
    assert any(line.amount < 0 for line in last.lines) is not issues
    assert len(found) == issues
    # 16 of 31 days are left of 100.00 and of 300.00
    assert last.invoice.subtotal == (15_484 if issues else 10_323)
    told = [einvoices.of(last, documents.SELLER)]
    told += [einvoices.of_note(one, documents.SELLER) for one in found]
    for one in told:
        assert schemas.fatturapa(fatturapa.write(one)) == []
    if issues:
        assert schemas.texts(fatturapa.write(told[1]), "TipoDocumento") == ["TD04"]
    assert shop.verify() == []


def test_a_rate_that_differs_is_refused_unless_replaced_and_issued_documents_keep_theirs(
    make: Make,
) -> None:
    shop = make()
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02")
    before = view(shop, customer_id)
    with shop.database.transaction() as tx:
        assert stating.import_rates(tx, RATES, now=shop.now) == (13, 0)
        other = b"Date,USD\n2025-01-02,1.5\n"
        with pytest.raises(Conflict, match=r"USD on 2025-01-02 is stored as 1\.0321"):
            stating.import_rates(tx, other, now=shop.now)
        assert stating.import_rates(tx, other, now=shop.now, replace=True) == (1, 1)
    assert view(shop, customer_id) == before
    note = credit(shop, customer_id, "2025-01-17", None)
    assert note.tax == 2_200
    assert stated(notes(shop, customer_id)[0]) == [(9_689, 2_132)]


def test_a_day_that_a_file_has_twice_is_taken_once_unless_its_rates_differ(make: Make) -> None:
    shop = make()
    with shop.database.transaction() as tx:
        twice = b"Date,USD,\n2025-01-20,1.0316,\n2025-01-20,1.03160,\n"
        assert stating.import_rates(tx, twice, now=shop.now) == (1, 1)
        other = b"Date,USD,\n2025-01-22,1.0443,\n2025-01-21,1.0357,\n2025-01-21,1.0358,\n"
        for replace in (False, True):
            with pytest.raises(Invalid, match="USD has two rates on 2025-01-21"):
                stating.import_rates(tx, other, now=shop.now, replace=replace)
        since = date(2025, 1, 22)
        assert stating.import_rates(tx, other, now=shop.now, since=since) == (1, 1)


@pytest.mark.parametrize(("currency", "asked"), [("usd", 1), ("eur", 0)])
def test_a_page_of_customers_asks_for_rates_once_and_only_where_it_needs_them(
    make: Make, monkeypatch: pytest.MonkeyPatch, currency: str, asked: int
) -> None:
    shop = make()
    for number in range(20):
        subscribed(shop, f"customer-{number}", currency)
    calls = []
    list_last_rates = store.list_last_rates

    def counted(*parts: Any, **named: Any) -> Any:  # noqa: ANN401 - as the query takes them
        calls.append(named)
        return list_last_rates(*parts, **named)

    monkeypatch.setattr(store, "list_last_rates", counted)
    shop.bill("2025-01-02")
    assert len(shop.invoices()) == 20
    assert len(calls) == asked


def test_a_dishonest_figure_is_found(make: Make) -> None:
    shop = make()
    subscribed(shop, "rossi")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        tx.raw.execute("UPDATE invoice_tax SET stated_tax = stated_tax + 1")
    (found,) = shop.verify()
    assert (found.expected, found.found) == ("2132", "2133")


def test_the_tax_file_names_a_currency_that_exists_and_fatturapa_is_italian(make: Make) -> None:
    shop = make()
    with shop.database.transaction() as tx:
        before = taxes.stored(tx)
        for wrong in (
            TAXES.replace(b"eur", b"xxx"),
            TAXES.replace(b"eur", b"EUR"),
            TAXES.replace(b"IT", b"FR") + b"fatturapa: true\n",
            TAXES + b"location_evidence: 3\n",
            TAXES.replace(b"eur", b"pln") + b"fatturapa: true\n",
        ):
            with pytest.raises(Invalid):
                taxes.apply(tx, wrong, now=shop.now)
        assert taxes.stored(tx) == before


def test_a_credit_note_of_an_invoice_that_stated_nothing_states_nothing(make: Make) -> None:
    shop = make(TAXES.replace(b"currency: eur\n", b""))
    customer_id = subscribed(shop, "rossi")
    shop.bill("2025-01-02")
    with shop.database.transaction() as tx:
        taxes.apply(tx, TAXES, now=shop.now)
    credit(shop, customer_id, "2025-01-17", 1_000)
    assert stated(notes(shop, customer_id)[0]) == [(None, None)]
    assert shop.verify() == []
