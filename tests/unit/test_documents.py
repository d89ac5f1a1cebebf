"""The invoice PDF: what a reader finds in it, in each language, whatever was typed into it."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pypdf
import pytest

from convergio.billing.documents import of, render
from convergio.billing.model import Buyer, Invoice, InvoiceLine, InvoiceView, Status
from convergio.billing.page import DocumentLine, InvoiceDocument, Party, Step
from convergio.infra.settings import Seller
from convergio.kernel.errors import Fault
from convergio.kernel.money import Money
from convergio.kernel.periods import Period

STEP = ("description", "quantity", "unit", "amount")


def period(month: int) -> Period:
    return Period(datetime(2025, month, 1, tzinfo=UTC), datetime(2025, month + 1, 1, tzinfo=UTC))


def invoice(currency: str = "usd") -> InvoiceDocument:
    return InvoiceDocument(
        number="INV-2025-000123",
        status="open",
        seller=Party(name="Convergio Demo Ltd", address=("1 Market Street",), tax_id="IE1234567T"),
        buyer=Party(name="Ada Lovelace", address=("12 St James's Square", "London")),
        issued_on=date(2025, 3, 1),
        due_on=date(2025, 3, 15),
        lines=(
            DocumentLine(
                description="Pro plan",
                quantity=Decimal(1),
                unit_price=Decimal("6.99"),
                amount=Money(699, currency),
                period=period(3),
            ),
            DocumentLine(
                description="Questions",
                quantity=Decimal(1664),
                unit_price=Decimal("0.01"),
                amount=Money(1664, currency),
                period=period(2),
            ),
        ),
        total=Money(2363, currency),
        paid=Money(0, currency),
    )


def stored(kind: str, reason: str, description: str, amount: int, *steps: str) -> InvoiceLine:
    """Return a line as billing keeps it; a step is `description quantity unit amount`."""
    named = [dict(zip(STEP, one.rsplit(" ", 3), strict=True), per="1") for one in steps]
    return InvoiceLine(
        line_number=1,
        subscription_id=UUID(int=1),
        item_id=UUID(int=2),
        period_start=period(2).start,
        kind=kind,
        dimensions="",
        period_end=period(2).end,
        price_id=UUID(int=3),
        reason=reason,
        description=description,
        quantity=Decimal(1) if kind == "fixed" else Decimal(1164),
        amount=amount,
        currency="eur",
        detail={"steps": named},
    )


def view(locale: str, *lines: InvoiceLine) -> InvoiceView:
    return InvoiceView(
        invoice=Invoice(
            customer_id=UUID(int=4),
            invoice_id=UUID(int=5),
            boundary_at=period(3).start,
            series="CVG",
            year=2025,
            number=123,
            status=Status.OPEN,
            currency="eur",
            total=sum(line.amount for line in lines),
            paid=0,
            issued_on=date(2025, 3, 1),
            due_on=date(2025, 3, 15),
            finalized_at=period(3).start,
            sealed_buyer=b"",
        ),
        lines=lines,
        buyer=Buyer(
            key="cus-42", locale=locale, country="IT", name="Ada", address="Via Roma 1\n00100 Roma"
        ),
        time_zone="UTC",
    )


def read(pdf: bytes) -> str:
    """Return the text as a reader selects it, with every blank made a plain one."""
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    text = "\n".join(page.extract_text() for page in pages)
    return text.replace("\u200b", "").replace("\u00a0", " ").replace("\u202f", " ")


FEE = stored("fixed", "fee", "Pro", 699, "Flat fee 1 6.99 6.99")
USAGE = stored("usage", "usage", "Questions", 664, "Included 500 0 0.00", "Usage 664 0.01 6.64")
LATE = stored(
    "usage",
    "late usage for 2025-02-01 to 2025-02-28",
    "Questions: late usage for 2025-02-01 to 2025-02-28",
    100,
    "Usage 764 0.01 7.64",
)


def named(buyer: str, *address: str) -> InvoiceDocument:
    return msgspec.structs.replace(invoice(), buyer=Party(name=buyer, address=address))


def test_a_reader_finds_parties_number_dates_lines_and_the_amount_due() -> None:
    text = read(render(invoice()))
    for words in (
        "INV-2025-000123", "Convergio Demo Ltd", "Ada Lovelace", "March 1, 2025",
        "Due by March 15, 2025", "Pro plan", "Mar 1 \u2013 31, 2025", "1,664", "$0.01", "$16.64",
        "$23.63", "Page 1 / 1",
    ):  # fmt: skip
        assert words in text, words


def test_an_italian_invoice_speaks_italian_and_writes_numbers_so() -> None:
    paid = msgspec.structs.replace(
        invoice("eur"), language="it", status="paid", paid=Money(2363, "eur")
    )
    text = read(render(paid))
    for words in ("Fattura", "1 marzo 2025", "Interamente pagata", "1.664", "23,63 €", "Pagina"):
        assert words in text, words
    assert "Invoice" not in text


def test_a_currency_without_decimals_shows_none() -> None:
    assert "¥2,363" in read(render(invoice("jpy")))


def test_a_paid_invoice_owes_nothing_and_a_void_one_says_so() -> None:
    paid = msgspec.structs.replace(invoice(), status="paid", paid=Money(2363, "usd"))
    assert "Paid in full" in read(render(paid))
    assert "$0.00" in read(render(paid))
    void = msgspec.structs.replace(invoice(), status="void")
    assert "Void: nothing is due" in read(render(void))


def test_the_same_document_gives_the_same_bytes_in_any_thread() -> None:
    once = render(invoice())
    with ThreadPoolExecutor(2) as threads:
        again = list(threads.map(lambda _: render(invoice()), range(4)))
    assert set(again) == {once}


def test_the_file_says_that_it_is_an_archivable_and_accessible_pdf() -> None:
    reader = pypdf.PdfReader(io.BytesIO(render(invoice())))
    metadata = reader.root_object["/Metadata"].get_object()
    assert isinstance(metadata, pypdf.generic.StreamObject)
    xmp = metadata.get_data().decode()
    assert "<pdfaid:part>3</pdfaid:part>" in xmp
    assert "pdfuaid:part" in xmp
    assert reader.metadata is not None
    assert reader.metadata.title == "Invoice INV-2025-000123"
    assert reader.metadata.creation_date == datetime(2025, 3, 1, tzinfo=UTC)


def test_a_plain_period_ends_on_its_last_day_in_the_zone_of_the_subscription() -> None:
    rome = Period(datetime(2025, 2, 28, 23, tzinfo=UTC), datetime(2025, 3, 31, 22, tzinfo=UTC))
    line = msgspec.structs.replace(invoice().lines[0], period=rome)
    document = msgspec.structs.replace(
        invoice(), lines=(line,), total=line.amount, time_zone="Europe/Rome"
    )
    assert "Mar 1 \u2013 31, 2025" in read(render(document))


@pytest.mark.parametrize(
    "typed",
    [
        '#import "evil.typ"',
        "#sys.inputs",
        "*bold* _it_ $x^2$ @ref <label> = Title",
        "{{7*7}} ${7*7} \\u{41} \\ // /* `raw`",
        '"; #panic() //',
        "</script><img onerror=x>",
    ],
)
def test_what_a_customer_typed_is_shown_as_typed(typed: str) -> None:
    text = read(render(named(typed)))
    assert "".join(typed.split()) in "".join(text.split())


@pytest.mark.parametrize(
    "typed",
    [
        "株式会社コンベルジオ",
        "😀👩‍👩‍👧",
        "a\x00b\x07c",
        "\ud800",
        "\u202eevil\u202c",
        "\ufffe\U0010ffff",
        "",
    ],
)
def test_no_text_can_keep_an_invoice_from_being_printed(typed: str) -> None:
    assert "INV-2025-000123" in read(render(named(typed, typed)))


def test_letters_beyond_the_latin_alphabet_are_shown_when_the_typefaces_have_them() -> None:
    text = read(render(named("Ωμέγα Київ Łódź Đặng")))
    assert "Ωμέγα Київ Łódź Đặng" in text


def test_the_steps_of_the_arithmetic_stand_below_their_line() -> None:
    steps = (
        Step(description="Included", quantity=Decimal(1000), amount=Money(0, "usd")),
        Step(
            description="Beyond",
            quantity=Decimal(1),
            unit_price=Decimal("0.0375"),
            per=Decimal(1_000_000),
            amount=Money(1664, "usd"),
        ),
    )
    first, second = invoice().lines
    lines = (first, msgspec.structs.replace(second, steps=steps))
    text = read(render(msgspec.structs.replace(invoice(), lines=lines)))
    assert text.index("Questions") < text.index("Included") < text.index("Beyond")
    assert "$0.0375 / 1,000,000" in text


def test_long_invoices_repeat_the_head_of_the_table_on_each_page() -> None:
    lines = tuple(
        DocumentLine(
            description=f"Model {i} " + "x" * 200, quantity=Decimal(i), amount=Money(i, "usd")
        )
        for i in range(200)
    )
    long = msgspec.structs.replace(invoice(), lines=lines, total=Money(199 * 100, "usd"))
    pages = pypdf.PdfReader(io.BytesIO(render(long))).pages
    assert len(pages) > 5
    with_lines = [text for page in pages if "Model" in (text := page.extract_text())]
    assert all("Unit price" in text for text in with_lines)
    assert "$199.00" in pages[-1].extract_text()


def test_a_document_whose_lines_are_not_its_total_is_refused() -> None:
    wrong = msgspec.structs.replace(invoice(), total=Money(2364, "usd"))
    with pytest.raises(Fault):
        render(wrong)


def test_a_stored_invoice_reads_in_the_language_of_its_buyer() -> None:
    seller = Seller(name="Convergio", address="1 Market Street, Dublin", country="IE", tax_id="IE1")
    document = of(view("it_IT", FEE, USAGE, LATE), seller)
    assert (document.language, document.number) == ("it", "CVG-2025-000123")
    assert document.seller.address == ("1 Market Street", "Dublin", "Irlanda")
    assert document.buyer.address == ("Via Roma 1", "00100 Roma", "Italia")
    text = read(render(document))
    for words in ("Compreso nel piano", "Consumo", "Ada", "Importo dovuto", "14,63 €", "1-28 feb"):
        assert words in text.replace("\u2013", "-").replace("01-28", "1-28"), words
    assert of(view("fr", FEE), seller).language == "en"


def test_one_step_is_the_unit_price_of_its_line_and_several_stand_below_it() -> None:
    fee, usage, late = of(view("en", FEE, USAGE, LATE), Seller()).lines
    assert (fee.unit_price, fee.steps) == (Decimal("6.99"), ())
    assert usage.unit_price is None
    assert [step.description for step in usage.steps] == ["Included", "Usage"]
    assert (late.description, late.unit_price, late.steps) == (
        "Questions: usage of an earlier period",
        None,
        (),
    )


def test_a_buyer_without_a_name_is_called_by_their_key() -> None:
    nameless = view("en", FEE)
    document = of(replace(nameless, buyer=Buyer(key="cus-42")), Seller())
    assert (document.buyer.name, document.buyer.address) == ("cus-42", ())
