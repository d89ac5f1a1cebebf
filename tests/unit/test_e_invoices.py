"""E-invoices: what the official schemas and rules say of them, and what is refused before."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from convergio.billing import documents, einvoices, factur_x, fatturapa, sellers
from convergio.billing.model import CreditNoteView, InvoiceView
from convergio.billing.sellers import Issued
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict, Fault
from convergio.rating.taxing import Treatment
from tests.fakes import schemas
from tests.fakes.documents import (
    AMERICAN,
    GERMAN,
    ITALIAN,
    SELLER,
    credit_note,
    invoice,
    line,
)
from tests.fakes.schemas import texts

ZERO = Decimal(0)
FOUR = (Treatment.STANDARD, Decimal(4))
REVERSE = (Treatment.REVERSE_CHARGE, ZERO)
EXPORT = (Treatment.EXPORT, ZERO)
EXEMPT = (Treatment.EXEMPT, ZERO)
OUTSIDE = (Treatment.NONE, ZERO)
USAGE = line(1664, quantity="1664", unit="0.01", description="Questions & <more>")
PERSON = msgspec.structs.replace(
    ITALIAN,
    name="Łukasz Niccolò \u2013 Ωmega \u201c株式会社\u201d",
    tax_id="RSSMRA80A01H501U",
    sdi_code=None,
    pec="ada@pec.example",
    purchase_order="Ordine n. 2025/ABC/0001 del 12 marzo",
)
NO_CODE = msgspec.structs.replace(ITALIAN, postal_code=None)
CASES = {
    "fee and usage": invoice(line(699), USAGE),
    "discounts and two rates": invoice(
        line(10_000, 2_500), line(333, tax=FOUR), line(-1_000, -250), line(-100)
    ),
    "reverse charge": invoice(line(10_000, tax=REVERSE), buyer=GERMAN),
    "reverse charge at home": invoice(line(10_000, tax=REVERSE)),
    "export": invoice(line(10_000, tax=EXPORT), buyer=AMERICAN),
    "exempt beside taxed": invoice(line(10_000, tax=EXEMPT), line(500), reason="Art. 10"),
    "outside of any tax": invoice(line(10_000, tax=OUTSIDE), buyer=AMERICAN),
    "tax inside": invoice(
        line(999, inclusive=True), line(333, 100, inclusive=True), line(1, inclusive=True)
    ),
    "tax inside and outside": invoice(line(999, inclusive=True), line(333)),
    "partly paid by credit": invoice(line(10_000), from_balance=5_000),
    "wholly paid by credit": invoice(line(10_000), from_balance=12_200),
    "a person of many alphabets": invoice(line(699, description="Piano €\u20ac 株"), buyer=PERSON),
}
NOTE = credit_note(CASES["fee and usage"], (1, 300), (2, 1_000))


def told(view: InvoiceView | CreditNoteView, seller: Seller = SELLER) -> einvoices.EInvoice:
    if isinstance(view, CreditNoteView):
        return einvoices.of_note(view, seller)
    return einvoices.of(view, seller)


@pytest.mark.parametrize("view", [*CASES.values(), NOTE], ids=[*CASES, "credit note"])
def test_en_16931_takes_every_kind_of_document(view: InvoiceView | CreditNoteView) -> None:
    assert schemas.en_16931(factur_x.write(told(view))) == []


@pytest.mark.parametrize("view", [*CASES.values(), NOTE], ids=[*CASES, "credit note"])
def test_the_italian_schema_takes_every_kind_of_document(
    view: InvoiceView | CreditNoteView,
) -> None:
    assert schemas.fatturapa(fatturapa.write(told(view))) == []


def test_the_judges_do_object() -> None:
    xml = factur_x.write(told(CASES["fee and usage"]))
    wrong_sum = xml.replace(b"<ram:LineTotalAmount>6.99", b"<ram:LineTotalAmount>7.99")
    assert any("BR-CO-10" in one for one in schemas.en_16931(wrong_sum))
    assert schemas.en_16931(xml.replace(b"ram:TypeCode", b"ram:Kind")) != []
    italian = fatturapa.write(told(CASES["fee and usage"]))
    assert schemas.fatturapa(italian.replace(b"TD01", b"TD99")) != []


def test_the_same_document_gives_the_same_bytes_and_a_payment_changes_none() -> None:
    view = CASES["fee and usage"]
    paid = replace(view, invoice=replace(view.invoice, paid=2_883))
    for write in (factur_x.write, fatturapa.write):
        assert write(told(view)) == write(told(view)) == write(told(paid))


def test_the_amounts_of_both_formats_are_those_of_the_invoice() -> None:
    view = CASES["discounts and two rates"]  # nets 75.00 + 3.33 - 7.50 - 1.00, tax 14.63 + 0.13
    xml = factur_x.write(told(view))
    assert texts(xml, "GrandTotalAmount") == ["84.59"]
    assert texts(xml, "TaxTotalAmount") == ["14.76"]
    assert texts(xml, "BasisAmount") == ["66.50", "3.33"]
    italian = fatturapa.write(told(view))
    assert texts(italian, "ImportoTotaleDocumento") == ["84.59"]
    assert texts(italian, "Imposta") == ["14.63", "0.13"]
    assert texts(italian, "Tipo") == ["SC", "MG"]
    assert texts(italian, "PrezzoTotale") == ["75.00", "3.33", "-7.50", "-1.00"]


def test_usage_of_one_price_keeps_its_quantity_and_price() -> None:
    xml = factur_x.write(told(CASES["fee and usage"]))
    assert texts(xml, "BilledQuantity") == ["1", "1664"]
    assert texts(xml, "ChargeAmount") == ["6.99", "0.01"]
    italian = fatturapa.write(told(CASES["fee and usage"]))
    assert texts(italian, "Quantita") == ["1664.00"]
    tiny = line(1, quantity="2", unit="0.005", description="Half cents")
    assert texts(factur_x.write(told(invoice(tiny))), "ChargeAmount") == ["0.005"]
    rounded = line(1, quantity="3", unit="0.004", description="Rounded")
    assert texts(factur_x.write(told(invoice(rounded))), "BilledQuantity") == ["1"]


def test_a_price_with_the_tax_inside_is_shown_without_it() -> None:
    view = CASES["tax inside"]
    document = told(view)
    assert document.net + document.tax == view.invoice.total == 999 + 233 + 1
    assert sum(one.net for one in document.lines) == view.taxes[0].net


def test_what_credit_paid_at_once_is_prepaid_and_the_rest_is_due() -> None:
    xml = factur_x.write(told(CASES["partly paid by credit"]))
    assert texts(xml, "TotalPrepaidAmount") == ["50.00"]
    assert texts(xml, "DuePayableAmount") == ["72.00"]
    assert texts(fatturapa.write(told(CASES["partly paid by credit"])), "ImportoPagamento") == [
        "72.00"
    ]
    assert texts(fatturapa.write(told(CASES["wholly paid by credit"])), "DatiPagamento") == []


def test_a_credit_note_names_its_invoice() -> None:
    xml, italian = factur_x.write(told(NOTE)), fatturapa.write(told(NOTE))
    assert texts(xml, "IssuerAssignedID")[-1] == "CVG-2025-000123"
    assert texts(xml, "TypeCode")[0] == "381"
    assert texts(italian, "TipoDocumento") == ["TD04"]
    assert texts(italian, "IdDocumento")[-1] == "CVG-2025-000123"
    assert texts(italian, "Causale") == ["Delay in March"]


@pytest.mark.parametrize(
    ("name", "nature"),
    [
        ("reverse charge", "N2.1"),
        ("reverse charge at home", "N6.9"),
        ("export", "N2.1"),
        ("exempt beside taxed", "N4"),
        ("outside of any tax", "N2.2"),
    ],
)
def test_the_nature_says_why_there_is_no_italian_tax(name: str, nature: str) -> None:
    xml = fatturapa.write(told(CASES[name]))
    assert set(texts(xml, "Natura")) == {nature}
    assert len(texts(xml, "RiferimentoNormativo")) == 1


@pytest.mark.parametrize(
    ("name", "code"),
    [("fee and usage", "CVG0001"), ("reverse charge", "XXXXXXX"),
     ("a person of many alphabets", "0000000")],
)  # fmt: skip
def test_the_file_goes_where_its_recipient_is(name: str, code: str) -> None:
    xml = fatturapa.write(told(CASES[name]))
    assert texts(xml, "CodiceDestinatario") == [code]
    pec = ["ada@pec.example"] if code == "0000000" else []
    assert texts(xml, "PECDestinatario") == pec


def test_a_stamp_is_owed_above_its_threshold_of_untaxed_amounts() -> None:
    below = invoice(line(7_747, tax=EXEMPT))
    assert texts(fatturapa.write(told(below)), "BolloVirtuale") == []
    above = invoice(line(7_748, tax=EXEMPT))
    assert texts(fatturapa.write(told(above)), "BolloVirtuale") == ["SI"]
    at_home = invoice(line(100_000, tax=REVERSE))
    assert texts(fatturapa.write(told(at_home)), "BolloVirtuale") == []


def test_text_beyond_latin_is_written_in_its_nearest_form() -> None:
    assert fatturapa.latin("Łódź \u2013 €5 \u2019株 naïve", 40) == "Lódz - EUR5 '? naïve"
    assert fatturapa.latin("  ", 10) == "-"
    assert fatturapa.latin("abcdef", 3) == "abc"


def test_every_document_of_a_seller_has_a_file_name_of_its_own() -> None:
    names = set()
    for year in (2025, 2026):
        for number in (1, 2, 62, 9_999_999):
            view = invoice(line(699), year=year, number=number)
            names.add(fatturapa.file_name(told(view)))
        issued = Issued(None, sellers.block_of(year, is_note=True))
        note = replace(NOTE, note=replace(NOTE.note, year=year, issued=issued))
        names.add(fatturapa.file_name(told(note)))
    assert len(names) == 10
    assert all(len(name) == len("IT00743110157_00000.xml") for name in names)
    assert fatturapa.file_name(told(invoice(line(699)))) == "IT00743110157_6labD.xml"
    last = invoice(line(699), number=9_999_999)
    last = replace(last, issued=Issued(None, sellers.BLOCKS - 1))
    assert len(fatturapa.progressive(told(last))) == 5


@pytest.mark.parametrize(
    "view",
    [
        invoice(line(699), number=10_000_000),
        replace(invoice(line(699)), issued=Issued(None, None)),
    ],
)
def test_a_series_without_file_names_is_refused_with_the_mend(view: InvoiceView) -> None:
    with pytest.raises(Conflict, match=r"number of a file.*CONVERGIO_SELLER_SERIES"):
        fatturapa.write(told(view))


def test_a_document_names_who_issued_it_and_not_who_the_seller_is_today() -> None:
    view = CASES["fee and usage"]
    today = msgspec.structs.replace(SELLER, name="New S.p.A.", street="Via Nuova 9", iban="")
    issued = Issued(SELLER, 10)
    kept, note = replace(view, issued=issued), replace(NOTE, note=replace(NOTE.note, issued=issued))
    for one in (kept, note):
        for write in (factur_x.write, fatturapa.write):
            assert write(told(one, today)) == write(told(one, SELLER))
    assert documents.of(kept, today) == documents.of(view, SELLER)
    assert documents.of_note(note, today) == documents.of_note(NOTE, SELLER)
    assert told(view, today).seller == today  # issued before it was kept


def test_a_seller_that_was_kept_once_is_read_for_ever() -> None:
    kept = (
        '{"bic": "", "iban": "", "city": "Roma", "name": "Convergio S.r.l.", "email": "",'
        ' "regime": "RF01", "region": "RM", "series": "CVG", "street": "Via dei Faggi 12",'
        ' "tax_id": "IT00743110157", "address": "Roma", "country": "IT", "net_days": 14,'
        ' "time_zone": "UTC", "legal_form": "", "stamp_duty": "2.00", "tax_number": "",'
        ' "postal_code": "00144"}'
    )
    seller = sellers.read(kept, None).seller
    assert seller is not None
    assert (seller.name, seller.postal_code) == ("Convergio S.r.l.", "00144")
    again = sellers.read(sellers.version_of(seller).text, None)
    assert again.seller == seller
    other = msgspec.structs.replace(seller, city="Milano")
    same = msgspec.structs.replace(other, city="Roma")
    assert sellers.version_of(other) != sellers.version_of(seller) == sellers.version_of(same)
    with pytest.raises(Fault, match="cannot be read"):
        sellers.read('{"name": 1}', None)


@pytest.mark.parametrize(
    ("view", "seller", "what"),
    [
        (invoice(line(699), is_taxed=False), {}, "no tax is configured"),
        (invoice(line(699), line(1, tax=OUTSIDE)), {}, "outside of any tax"),
        (invoice(line(699), buyer=msgspec.structs.replace(ITALIAN, country=None)), {}, "country"),
        (invoice(line(699)), {"tax_id": ""}, "CONVERGIO_SELLER_TAX_ID"),
        (CASES["outside of any tax"], {"tax_number": ""}, "CONVERGIO_SELLER_TAX_NUMBER"),
        (
            invoice(line(699, tax=REVERSE), buyer=msgspec.structs.replace(GERMAN, tax_id=None)),
            {},
            "VAT number",
        ),
    ],
)
def test_what_en_16931_could_not_take_is_refused_with_the_mend(
    view: InvoiceView, seller: dict[str, Any], what: str
) -> None:
    with pytest.raises(Conflict, match=what):
        factur_x.write(told(view, msgspec.structs.replace(SELLER, **seller)))


@pytest.mark.parametrize(
    ("view", "seller", "what"),
    [
        (invoice(line(699), is_taxed=False), {}, "no tax is configured"),
        (invoice(line(699)), {"country": "DE", "tax_id": "DE1"}, "Italian VAT number"),
        (invoice(line(699)), {"street": ""}, "CONVERGIO_SELLER_STREET"),
        (invoice(line(699, currency="usd"), buyer=ITALIAN), {}, "euros"),
        (invoice(line(699), buyer=GERMAN), {}, "which country"),
        (invoice(line(699, tax=(Treatment.ZERO, ZERO))), {}, "rate of zero"),
        (invoice(line(699, tax=(Treatment.STANDARD, Decimal("7.125")))), {}, "two decimals"),
        (invoice(line(699), buyer=msgspec.structs.replace(ITALIAN, tax_id=None)), {}, "codice"),
        (invoice(line(699), buyer=NO_CODE), {}, "postal"),
        (invoice(line(699), buyer=msgspec.structs.replace(ITALIAN, city=None)), {}, "in parts"),
        (invoice(line(699), series="ABCDEFGHIJ"), {}, "20 signs"),
    ],
)  # fmt: skip
def test_what_the_italian_exchange_could_not_take_is_refused_with_the_mend(
    view: InvoiceView, seller: dict[str, Any], what: str
) -> None:
    with pytest.raises(Conflict, match=what):
        fatturapa.write(told(view, msgspec.structs.replace(SELLER, **seller)))


def test_tax_07_sums_that_disagree_write_nothing() -> None:
    view = CASES["fee and usage"]
    wrong_total = replace(view, invoice=replace(view.invoice, total=view.invoice.total + 1))
    wrong_net = replace(view, taxes=(view.taxes[0]._replace(net=view.taxes[0].net - 1),))
    for one in (wrong_total, wrong_net):
        with pytest.raises(Fault):
            told(one)


@pytest.mark.parametrize(
    ("typed", "country", "number"),
    [
        ("IT00743110157", "IT", "IT00743110157"),
        ("00743110157", "IT", "IT00743110157"),
        ("it 0074-3110.157", "IT", "IT00743110157"),
        ("123456789", "GR", "EL123456789"),
        ("EL123456789", "GR", "EL123456789"),
        ("GR 123456789", "GR", "EL123456789"),
        ("RSSMRA80A01H501U", "IT", None),
        ("", "IT", None),
        (None, "IT", None),
    ],
)
def test_a_vat_number_has_its_country_in_front(
    typed: str | None, country: str, number: str | None
) -> None:
    assert einvoices.vat_number(typed, country) == number


@given(
    whole=some.integers(-(10**12), 10**12),
    weights=some.lists(some.integers(-(10**9), 10**9), min_size=1, max_size=30),
)
def test_shares_add_up_to_the_whole_and_are_off_by_less_than_one(
    whole: int, weights: list[int]
) -> None:
    if sum(weights):
        parts = einvoices.shared(whole, weights)
        assert sum(parts) == whole
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part * sum(weights) - whole * weight) < abs(sum(weights))


@some.composite
def mixed(draw: some.DrawFn) -> InvoiceView:
    """Draw an invoice of any lines, none of whose tax groups is below zero."""
    lines = []
    for _ in range(draw(some.integers(1, 8))):
        amount = draw(some.integers(-300, 20_000))
        off = draw(some.integers(0, abs(amount)))
        tax = draw(some.sampled_from([FOUR, EXEMPT, (Treatment.STANDARD, Decimal(22))]))
        inside = bool(tax[1]) and draw(some.booleans())
        lines.append(line(amount, off if amount >= 0 else -off, tax, inclusive=inside))
    view = invoice(*lines)
    assume(all(row.net >= 0 for row in view.taxes))
    return view


@settings(max_examples=40, deadline=None)
@given(view=mixed())
def test_any_mix_of_lines_discounts_and_rates_is_taken_by_both_judges(view: InvoiceView) -> None:
    assert schemas.en_16931(factur_x.write(told(view))) == []
    assert schemas.fatturapa(fatturapa.write(told(view))) == []
