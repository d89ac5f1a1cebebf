"""Issued documents as they read, made by hand: what the document tests render and write."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from convergio.billing.model import (
    Buyer,
    CreditKind,
    CreditNote,
    CreditNoteLine,
    CreditNoteView,
    Invoice,
    InvoiceLine,
    InvoiceView,
    Status,
)
from convergio.billing.sellers import Issued, block_of
from convergio.infra.settings import Seller
from convergio.kernel.money import Money
from convergio.rating.taxing import GroupKey, Priced, TaxRow, Treatment, tax_groups
from convergio.taxes import reference
from convergio.taxes.model import Exchange, Kept, Placed

START, END = datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
SELLER = Seller(
    name="Convergio S.r.l.",
    legal_form="Capitale sociale € 10.000 i.v. · REA RM-1234567",
    street="Via dei Faggi 12",
    postal_code="00144",
    city="Roma",
    region="RM",
    country="IT",
    tax_id="IT00743110157",
    tax_number="00743110157",
    email="fatture@convergio.example",
    iban="IT60X0542811101000000123456",
    bic="BPMOIT22XXX",
    time_zone="Europe/Rome",
)
ITALIAN = Buyer(
    key="alba",
    locale="it",
    country="IT",
    name="Alba Analisi S.r.l.",
    email="contabilita@alba.example",
    tax_id="IT07643520567",
    street="Corso Vecchio 7",
    postal_code="10121",
    city="Torino",
    region="TO",
    sdi_code="CVG0001",
    purchase_order="PO-2025-17",
    by_transfer=True,
)
GERMAN = Buyer(
    key="birke",
    country="DE",
    name="Birke Robotik GmbH",
    email="rechnung@birke.example",
    tax_id="DE136695976",
    street="Lindenweg 4",
    postal_code="10115",
    city="Berlin",
)
AMERICAN = Buyer(
    key="cobalt",
    country="US",
    name="Cobalt Legal Inc.",
    street="Maple Avenue 5",
    postal_code="02108",
    city="Boston",
    region="MA",
)
VAT = (Treatment.STANDARD, Decimal(22))


def line(  # noqa: PLR0917 - the columns of a table
    amount: int,
    discount: int = 0,
    tax: tuple[Treatment, Decimal] = VAT,
    description: str = "Pro",
    quantity: str = "1",
    unit: str | None = None,
    *,
    inclusive: bool = False,
    **more: Any,  # noqa: ANN401 - any column of a line
) -> InvoiceLine:
    """Return a line; with `unit` it is one step of the arithmetic."""
    steps = []
    if unit is not None:
        text = f"{Decimal(amount).scaleb(-2):.2f}"
        step = {"description": "Usage", "quantity": quantity, "unit": unit, "per": "1"}
        steps = [step | {"amount": text}]
    made = InvoiceLine(
        line_number=1,
        subscription_id=UUID(int=1),
        item_id=UUID(int=2),
        period_start=START,
        kind="fixed" if unit is None else "usage",
        dimensions="",
        period_end=END,
        price_id=UUID(int=3),
        reason="fee" if unit is None else "usage",
        description=description,
        quantity=Decimal(quantity),
        amount=amount,
        currency="eur",
        detail={"steps": steps},
        discount=discount,
        tax_rate=tax[1],
        tax_treatment=tax[0],
        tax_inclusive=inclusive,
    )
    return replace(made, **more)


def groups(lines: Sequence[InvoiceLine], reason: str | None = None) -> tuple[TaxRow, ...]:
    """Return the tax of lines as the run computes it."""
    priced = [
        Priced(
            Money(one.net, one.currency),
            GroupKey(one.tax_category, one.tax_rate, one.tax_treatment, one.tax_inclusive),
            reason,
        )
        for one in lines
    ]
    return tuple(tax_groups(priced))


def invoice(
    *lines: InvoiceLine,
    buyer: Buyer = ITALIAN,
    reason: str | None = None,
    is_taxed: bool = True,
    **more: Any,  # noqa: ANN401 - any column of an invoice
) -> InvoiceView:
    """Return an invoice with these lines, numbered, taxed and summed."""
    numbered = tuple(replace(one, line_number=at) for at, one in enumerate(lines, 1))
    taxes = groups(numbered, reason) if is_taxed else ()
    net = sum(row.net for row in taxes) if is_taxed else sum(one.net for one in numbered)
    tax = sum(row.tax for row in taxes)
    made = Invoice(
        customer_id=UUID(int=4),
        invoice_id=UUID(int=5),
        boundary_at=END,
        series="CVG",
        year=2025,
        number=123,
        status=Status.OPEN,
        currency=lines[0].currency,
        total=net + tax,
        paid=0,
        issued_on=date(2025, 3, 1),
        due_on=date(2025, 3, 15),
        finalized_at=END,
        sealed_buyer=b"",
        subtotal=sum(one.amount for one in numbered),
        discount=sum(one.discount for one in numbered),
        tax=tax,
    )
    made = replace(made, **more)
    issued = Issued(None, block_of(made.year, is_note=False))
    return InvoiceView(made, numbered, buyer, "UTC", taxes, issued=issued)


def credit_note(view: InvoiceView, *parts: tuple[int, int]) -> CreditNoteView:
    """Return a credit note of (line number, amount) of an invoice."""
    of = {one.line_number: one for one in view.lines}
    lines = tuple(
        CreditNoteLine(at, UUID(int=5), number, of[number].description, Decimal(1), amount)
        for at, (number, amount) in enumerate(parts, 1)
    )
    sources = [
        replace(of[one.invoice_line], amount=one.amount, discount=one.discount) for one in lines
    ]
    taxes = groups(sources) if view.taxes else ()
    tax = sum(row.tax for row in taxes)
    total = sum(row.net for row in taxes) + tax if taxes else sum(one.amount for one in lines)
    note = CreditNote(
        customer_id=UUID(int=4),
        credit_note_id=UUID(int=6),
        invoice_id=UUID(int=5),
        series="CVG-CN",
        year=2025,
        number=4,
        kind=CreditKind.CONCESSION,
        reason="Delay in March",
        currency=view.invoice.currency,
        total=total,
        applied=total,
        issued_on=date(2025, 3, 20),
        finalized_at=END,
        sealed_buyer=b"",
        subtotal=sum(one.amount for one in lines),
        tax=tax,
        issued=Issued(None, block_of(2025, is_note=True)),
    )
    return CreditNoteView(note, lines, view.invoice, view.lines, view.buyer, view.time_zone, taxes)


RATE = Exchange("eur", date(2025, 2, 28), Decimal("1.0411"), Decimal(1), "ECB")


def in_dollars(view: InvoiceView, by: Exchange = RATE) -> InvoiceView:
    """Return an invoice as if it had been in dollars, with its tax stated in euros."""
    lines = tuple(replace(one, currency="usd") for one in view.lines)
    invoice = replace(view.invoice, currency="usd")
    taxes = reference.stated(view.taxes, "usd", by)
    return replace(
        view, invoice=invoice, lines=lines, taxes=taxes, kept=view.kept._replace(exchange=by)
    )


def taxed_in(view: InvoiceView, country: str) -> InvoiceView:
    """Return an invoice that bears a country's tax, as the account and a card said."""
    place = Placed(country, (("billing", country), ("card", country)))
    return replace(view, kept=Kept(view.kept.exchange, place))
