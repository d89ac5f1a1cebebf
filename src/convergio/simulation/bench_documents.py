"""How many documents a processor core renders in a second, and where the time goes.

Every invoice is of another buyer, number and amount, so nothing that the typesetter keeps between
documents can stand in for work. One page with two lines, two rates and a discount; PDF/A-3 with the
XML of EN 16931 inside. Time is that of the process, so neighbours on the machine slow it little.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from convergio.billing import documents, einvoices, factur_x, fatturapa
from convergio.billing.model import Buyer, Invoice, InvoiceLine, InvoiceView, Status
from convergio.billing.sellers import Issued, block_of
from convergio.infra.settings import Seller
from convergio.kernel.money import Money
from convergio.rating.taxing import GroupKey, Priced, Treatment, tax_groups

COUNT: Final = 300
_START, _END = datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
SELLER: Final = Seller(
    name="Convergio S.r.l.",
    street="Via dei Faggi 12",
    postal_code="00144",
    city="Roma",
    region="RM",
    tax_id="IT00743110157",
    iban="IT60X0542811101000000123456",
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Documents a second of processor time: the whole file, and its parts on their own."""

    pdf: float
    pdf_without_xml: float
    factur_x: float
    fatturapa: float


def speed(count: int = COUNT) -> Speed:
    """Render `count` new one-page invoices in each way."""
    return Speed(
        pdf=_timed(lambda view: documents.pdf(view, SELLER), count, first=0),
        pdf_without_xml=_timed(
            lambda view: documents.render(documents.of(view, SELLER)), count, first=count
        ),
        factur_x=_timed(
            lambda view: factur_x.write(einvoices.of(view, SELLER)), count, first=2 * count
        ),
        fatturapa=_timed(
            lambda view: fatturapa.write(einvoices.of(view, SELLER)), count, first=3 * count
        ),
    )


def _timed(work: Callable[[InvoiceView], Any], count: int, *, first: int) -> float:
    """Return how many a second of this process, after one that warms what every next one finds."""
    views = [view(number) for number in range(first, first + count + 1)]
    work(views[0])
    begin = time.process_time()
    for one in views[1:]:
        work(one)
    return count / (time.process_time() - begin)


def view(number: int) -> InvoiceView:
    """Return an issued invoice like no other."""
    lines = (
        _line(1, 699 + number, "6.99", "1", Decimal(22), "Pro, monthly fee"),
        _line(2, 1664 + number, "0.01", str(1664 + number), Decimal(4), "Questions", discount=100),
    )
    priced = [
        Priced(
            Money(one.net, "eur"),
            GroupKey("standard", one.tax_rate, Treatment.STANDARD, inclusive=False),
        )
        for one in lines
    ]
    taxes = tuple(tax_groups(priced))
    tax = sum(row.tax for row in taxes)
    invoice = Invoice(
        customer_id=UUID(int=number + 1),
        invoice_id=UUID(int=number + 1),
        boundary_at=_END,
        series="CVG",
        year=2025,
        number=number + 1,
        status=Status.OPEN,
        currency="eur",
        total=sum(one.net for one in lines) + tax,
        paid=0,
        issued_on=date(2025, 3, 1),
        due_on=date(2025, 3, 15),
        finalized_at=_END,
        sealed_buyer=b"",
        subtotal=sum(one.amount for one in lines),
        discount=100,
        tax=tax,
    )
    issued = Issued(SELLER, block_of(invoice.year, is_note=False))
    return InvoiceView(invoice, lines, _buyer(number), "Europe/Rome", taxes, issued=issued)


def _buyer(number: int) -> Buyer:
    return Buyer(
        key=f"user-{number:07d}",
        locale=("en", "it")[number % 2],
        country="IT",
        name=f"Almond Analytics {number} S.r.l.",
        email=f"billing.{number}@mail.example",
        tax_id="IT07643520567",
        street=f"Corso Vecchio {number}",
        postal_code=f"{10_000 + number % 80_000}",
        city="Torino",
        region="TO",
    )


def _line(  # noqa: PLR0917 - the columns of a table
    number: int,
    amount: int,
    unit: str,
    quantity: str,
    rate: Decimal,
    description: str,
    *,
    discount: int = 0,
) -> InvoiceLine:
    text = f"{Decimal(amount).scaleb(-2):.2f}"
    step = {"description": "Usage", "quantity": quantity, "unit": unit, "per": "1"}
    return InvoiceLine(
        line_number=number,
        subscription_id=UUID(int=1),
        item_id=UUID(int=number),
        period_start=_START,
        kind="usage",
        dimensions="",
        period_end=_END,
        price_id=UUID(int=3),
        reason="usage",
        description=description,
        quantity=Decimal(quantity),
        amount=amount,
        currency="eur",
        detail={"steps": [step | {"amount": text}]},
        discount=discount,
        tax_rate=rate,
        tax_treatment=Treatment.STANDARD,
    )
