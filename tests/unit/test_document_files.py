"""Documents with tax: what the page says, what the file holds, whatever the customer is."""

import io
import re
from dataclasses import replace
from decimal import Decimal

import msgspec
import pypdf
import pytest

from convergio.billing import documents, einvoices, factur_x, marking, page, wording
from convergio.billing.model import Buyer, InvoiceView, Status
from convergio.kernel.errors import Fault
from convergio.kernel.money import Money
from convergio.rating.taxing import Treatment
from tests.fakes.documents import (
    AMERICAN,
    GERMAN,
    ITALIAN,
    SELLER,
    credit_note,
    in_dollars,
    invoice,
    line,
)

ZERO = Decimal(0)
ENGLISH = msgspec.structs.replace(ITALIAN, locale="en")
TWO_RATES = invoice(
    line(69_900, 6_990, description="Team"),
    line(2_500, tax=(Treatment.STANDARD, Decimal(4)), description="Manual"),
    from_balance=5_000,
)


def opened(pdf: bytes) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(pdf), strict=True)


def pages(pdf: bytes) -> list[str]:
    """Return the text of each page as a reader selects it, with every blank made a plain one."""
    every = (one.extract_text() for one in opened(pdf).pages)
    return [re.sub(r"[\u00a0\u202f]", " ", text.replace("\u200b", "")) for text in every]


def metadata(pdf: bytes) -> str:
    stream = opened(pdf).root_object["/Metadata"].get_object()
    assert isinstance(stream, pypdf.generic.StreamObject)
    return stream.get_data().decode()


def test_an_italian_page_shows_discount_rates_net_tax_credit_and_what_is_due() -> None:
    (text,) = pages(documents.pdf(TWO_RATES, SELLER))
    for words in (
        "Sconto", "\u221269,90 €", "Aliquota", "22 %", "629,10 €", "138,40 €", "4 %", "25,00 €",
        "1,00 €", "Totale", "793,50 €", "Pagato con il credito", "\u221250,00 €",
        "Importo dovuto", "743,50 €", "Ordine di acquisto", "PO-2025-17", "Bonifico bancario",
        "IT60 X054 2811 1010 0000 0123 456", "BPMOIT22XXX", "10121 Torino (TO)",
        "Capitale sociale",
    ):  # fmt: skip
        assert words in text, words


def test_an_english_page_says_the_same_in_english() -> None:
    (text,) = pages(documents.pdf(replace(TWO_RATES, buyer=ENGLISH), SELLER))
    for words in (
        "Discount", "\u2212€69.90", "Rate", "22 %", "€629.10", "Paid from credit balance",
        "Amount due", "€743.50", "Purchase order", "Bank transfer to Convergio S.r.l.",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("treatment", "buyer", "words"),
    [
        (Treatment.REVERSE_CHARGE, GERMAN, "Reverse charge: the recipient accounts for the VAT (A"),
        (Treatment.REVERSE_CHARGE, ENGLISH, "Reverse charge: the recipient accounts for the VAT."),
        (Treatment.REVERSE_CHARGE, ITALIAN, "Inversione contabile"),
        (Treatment.EXPORT, AMERICAN, "the place of supply is outside the European Union"),
        (Treatment.EXPORT, ITALIAN, "prestazione resa fuori dall'Unione europea"),
        (Treatment.EXEMPT, ENGLISH, "Exempt from tax. Article 10"),
        (Treatment.EXEMPT, ITALIAN, "Operazione esente da imposta. Article 10"),
        (Treatment.NONE, ENGLISH, "Not subject to tax."),
    ],
)
def test_a_page_without_tax_says_why_as_the_law_asks(
    treatment: Treatment, buyer: Buyer, words: str
) -> None:
    reason = "Article 10" if treatment is Treatment.EXEMPT else None
    view = invoice(line(10_000, tax=(treatment, ZERO)), buyer=buyer, reason=reason)
    (text,) = pages(documents.pdf(view, SELLER))
    assert words in " ".join(text.split())


def test_a_foreign_invoice_shows_its_tax_in_the_seller_s_currency_and_the_rate() -> None:
    view = in_dollars(TWO_RATES)
    (text,) = pages(documents.pdf(replace(view, buyer=ENGLISH), SELLER))
    # 138.40 and 1.00 dollars of tax at 1.0411 are 132.94 and 0.96 euros
    assert "VAT in EUR €133.90" in " ".join(text.split())
    assert "1 EUR = 1.0411 USD (ECB, February 28, 2025)" in text
    (text,) = pages(documents.pdf(view, SELLER))
    assert "IVA in EUR 133,90 €" in " ".join(text.split())
    assert "1 EUR = 1,0411 USD (ECB, 28 febbraio 2025)" in text
    assert "IVA in" not in pages(documents.pdf(TWO_RATES, SELLER))[0]


def test_a_currency_of_letters_stands_apart_from_its_amount() -> None:
    assert wording.money(Money(61_429, "pln"), "en") == "PLN\u00a0614.29"
    assert wording.money(Money(-61_429, "pln"), "en") == "\u2212PLN\u00a0614.29"
    assert wording.price(Decimal("0.0375"), "chf", "en") == "CHF\u00a00.0375"
    assert wording.money(Money(61_429, "usd"), "en") == "$614.29"
    assert wording.money(Money(61_429, "pln"), "it") == "614,29\u00a0PLN"


def test_who_pays_by_card_reads_so_and_no_account() -> None:
    card = msgspec.structs.replace(ENGLISH, by_transfer=False)
    (text,) = pages(documents.pdf(replace(TWO_RATES, buyer=card), SELLER))
    assert "Charged to your payment method on file" in text
    assert "IBAN" not in text
    assert "BPMOIT22XXX" not in text
    italian = msgspec.structs.replace(ITALIAN, by_transfer=False)
    assert "Addebito" in pages(documents.pdf(replace(TWO_RATES, buyer=italian), SELLER))[0]
    nowhere = msgspec.structs.replace(SELLER, iban="")
    assert "Payment" not in pages(documents.pdf(replace(TWO_RATES, buyer=ENGLISH), nowhere))[0]


def test_prices_with_the_tax_inside_come_to_what_they_say() -> None:
    view = invoice(line(999, inclusive=True), line(333, 100, inclusive=True), buyer=ENGLISH)
    (text,) = pages(documents.pdf(view, SELLER))
    assert "VAT included" in text
    assert "€12.32" in text
    assert text.count("€2.22") == 2


def test_sixty_lines_carry_their_sum_from_page_to_page() -> None:
    lines = [line(100 + at, description=f"Modello {at}") for at in range(60)]
    every = pages(documents.pdf(invoice(*lines), SELLER))
    assert len(every) >= 3
    assert all("Descrizione" in text for text in every)
    assert [("Riporto" in text, "Da riportare" in text) for text in every] == [
        (at > 0, at < len(every) - 1) for at in range(len(every))
    ]
    carried = [re.search(r"Da riportare\s*([\d.,]+ €)", text) for text in every[:-1]]
    brought = [re.search(r"Riporto\s*([\d.,]+ €)", text) for text in every[1:]]
    assert [one and one[1] for one in carried] == [one and one[1] for one in brought]
    shown = every[0].count("Modello")
    until = sum(100 + at for at in range(shown)) / 100
    assert carried[0] is not None
    assert carried[0][1] == f"{until:.2f} €".replace(".", ",")


def test_dos_12_a_page_shows_a_thousand_lines_and_sums_the_rest_by_rate() -> None:
    lines = [line(100 + at, at % 2, description=f"Modello {at}") for at in range(3_000)]
    manual = line(50, tax=(Treatment.STANDARD, Decimal(4)))
    view = invoice(*lines, manual, buyer=ENGLISH)
    words = page.worded(documents.of(view, SELLER))
    shown = words["lines"]
    assert isinstance(shown, list)
    assert len(shown) == page.LINES_MAX + 2
    assert str(shown[-2]["description"]).startswith("Further lines: 2,000")
    assert str(shown[-1]["description"]).startswith("Further lines: 1")
    assert shown[-1]["running"] == wording.money(Money(view.invoice.subtotal - 1_500, "eur"), "en")
    assert len(einvoices.of(view, SELLER).lines) == 3_001


def test_a_credit_note_names_its_invoice_and_where_the_money_went() -> None:
    note = credit_note(replace(TWO_RATES, buyer=ENGLISH), (1, 20_000), (2, 1_000))
    note = replace(note, note=replace(note.note, applied=15_000))
    (text,) = pages(documents.note_pdf(note, SELLER))
    for words in (
        "Credit note", "CVG-CN-2025-000004", "Credit for invoice CVG-2025-000123 of March 1, 2025",
        "Team", "€200.00", "Manual", "Total credited", "€254.40", "Taken off the invoice",
        "€150.00", "To your credit balance", "€104.40", "Reason: Delay in March",
    ):  # fmt: skip
        assert words in text, words
    assert "Date due" not in text
    italian = pages(documents.note_pdf(credit_note(TWO_RATES, (1, 100)), SELLER))[0]
    assert "Nota di credito" in italian
    assert "Accredito della fattura CVG-2025-000123 del 1 marzo 2025" in italian


def test_a_paid_invoice_asks_for_no_transfer() -> None:
    paid = replace(TWO_RATES, invoice=replace(TWO_RATES.invoice, status=Status.PAID, paid=74_350))
    (text,) = pages(documents.pdf(paid, SELLER))
    assert "Interamente pagata" in text
    assert "IBAN" not in text


def test_the_file_holds_its_e_invoice_as_factur_x_asks() -> None:
    pdf = documents.pdf(TWO_RATES, SELLER)
    reader = opened(pdf)
    assert list(reader.attachments) == ["factur-x.xml"]
    assert reader.attachments["factur-x.xml"] == [factur_x.write(einvoices.of(TWO_RATES, SELLER))]
    every = reader.root_object["/AF"].get_object()
    assert isinstance(every, pypdf.generic.ArrayObject)
    (associated,) = (one.get_object() for one in every)
    assert associated["/AFRelationship"] == "/Alternative"
    assert associated["/UF"] == "factur-x.xml"
    about = metadata(pdf)
    for words in (
        "<pdfaid:part>3</pdfaid:part>", "<pdfaid:conformance>B</pdfaid:conformance>",
        "<fx:DocumentFileName>factur-x.xml</fx:DocumentFileName>",
        "<fx:DocumentType>INVOICE</fx:DocumentType>", "<fx:Version>1.0</fx:Version>",
        "<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>",
        f"<pdfaSchema:namespaceURI>{marking.NAMESPACE}</pdfaSchema:namespaceURI>",
    ):  # fmt: skip
        assert about.count(words) == 1, words
    assert about.count("<pdfaExtension:schemas>") == 1  # a property may stand only once


def test_a_credit_note_holds_its_e_invoice_too() -> None:
    note = credit_note(TWO_RATES, (1, 100))
    (held,) = opened(documents.note_pdf(note, SELLER)).attachments["factur-x.xml"]
    assert held == factur_x.write(einvoices.of_note(note, SELLER))


def test_every_object_of_a_marked_file_is_where_its_table_says() -> None:
    pdf = documents.pdf(TWO_RATES, SELLER)
    table = int(pdf.rsplit(b"startxref\n", 1)[1].split()[0])
    entries = re.findall(rb"(\d{10}) 00000 n", pdf[table:])
    assert len(entries) > 50
    for number, place in enumerate(map(int, entries), 1):
        assert pdf[place:].startswith(b"%d 0 obj" % number)
    assert pdf.count(b"%%EOF") == 1


@pytest.mark.parametrize(
    "view",
    [
        invoice(line(699), is_taxed=False),
        invoice(line(699), buyer=msgspec.structs.replace(ITALIAN, country=None)),
    ],
    ids=["nothing configured", "no country"],
)
def test_what_cannot_be_an_e_invoice_is_a_plain_archivable_pdf(view: InvoiceView) -> None:
    pdf = documents.pdf(view, SELLER)
    assert not opened(pdf).attachments
    assert "factur-x" not in metadata(pdf)
    assert "<pdfaid:part>3</pdfaid:part>" in metadata(pdf)


def test_the_same_document_gives_the_same_file() -> None:
    assert documents.pdf(TWO_RATES, SELLER) == documents.pdf(TWO_RATES, SELLER)


@pytest.mark.parametrize("other", [b"", b"%PDF-1.7\nnothing", b"startxref\n0\n%%EOF"])
def test_a_file_of_another_form_is_a_fault_and_never_half_marked(other: bytes) -> None:
    with pytest.raises(Fault):
        marking.marked(other)


def test_long_names_and_references_stay_on_the_page() -> None:
    long = msgspec.structs.replace(
        GERMAN,
        name="Gesellschaft für künstliche Intelligenz mit beschränkter Haftung & Co. KGaA " * 2,
        street="Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtenweg 117",
        purchase_order="PO-4711-0815-ABCDEFGHIJKLMNOP",
    )
    (text,) = pages(documents.pdf(invoice(line(699), buyer=long), SELLER))
    assert "KGaA" in text
    assert "PO-4711-0815-ABCDEF…" in text


def test_a_typed_text_reaches_the_e_invoice_as_typed() -> None:
    evil = "</ram:Name><x/>&lt;![CDATA[ ]]> \u202e\x00"
    view = invoice(line(699, description=evil), buyer=msgspec.structs.replace(ENGLISH, name=evil))
    (held,) = opened(documents.pdf(view, SELLER)).attachments["factur-x.xml"]
    assert b"<x/>" not in held
    assert held.count(b"&lt;/ram:Name&gt;&lt;x/&gt;&amp;lt;![CDATA[ ]]&gt;<") == 2
