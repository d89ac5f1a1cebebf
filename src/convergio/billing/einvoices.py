"""What a tax authority reads in a document: parties, lines without tax, and the tax by rate.

One idea: both formats, EN 16931 (`factur_x.py`) and FatturaPA (`fatturapa.py`), are written from
this one value, which is made from what was issued and checked by the arithmetic of EN 16931 before
anything is written. A line is always shown without its tax, also where its price has it inside: the
taxable amount of its group is then shared among the lines by largest remainder.

A document says what was true on the day of issue: seller and buyer are who they were, what the
customer's credit paid at once is in it, later payments never are. So the same document gives the
same bytes for ever.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal

from convergio.billing import wording
from convergio.billing.model import (
    Buyer,
    CreditNoteLine,
    CreditNoteView,
    InvoiceLine,
    InvoiceView,
)
from convergio.infra.settings import Seller
from convergio.kernel.errors import Conflict, require
from convergio.kernel.money import Money, exponent
from convergio.kernel.periods import Period
from convergio.rating.taxing import TaxRow, Treatment
from convergio.taxes import reference
from convergio.taxes.model import NOTHING_KEPT, Kept

# EN 16931 codes of a tax category (UNTDID 5305).
CODES: Final = {
    Treatment.STANDARD: "S",
    Treatment.ZERO: "Z",
    Treatment.EXEMPT: "E",
    Treatment.REVERSE_CHARGE: "AE",
    Treatment.EXPORT: "G",
    Treatment.NONE: "O",
}
_EXPONENT_MAX: Final = 2
_GREECE: Final = {"GR": "EL"}
_ITALIAN_PERSON: Final = re.compile(r"[A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9A-Z]{7}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ELine:
    """A line without its tax, in minor units: `amount` less `discount` is `net`.

    `quantity` and `unit_price` (major units) multiply to `amount` exactly, or are None. `foreign`
    is the net before it was converted, where it was.
    """

    number: int
    name: str
    amount: int
    discount: int
    treatment: Treatment
    rate: Decimal
    first_day: date
    last_day: date
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    foreign: Money | None = None

    @property
    def net(self) -> int:
        """What is taxed of it."""
        return self.amount - self.discount


@dataclass(frozen=True, slots=True)
class EGroup:
    """The tax of one category and rate.

    `why` is the sentence for one without tax, in the buyer's language; `own` is the seller's reason
    alone. What is stated is in the seller's currency, where the document is in another one.
    """

    treatment: Treatment
    rate: Decimal
    net: int
    tax: int
    why: str
    own: str = ""
    stated_net: int = 0
    stated_tax: int = 0


@dataclass(frozen=True, slots=True)
class EInvoice:
    """A document for a tax authority; amounts in minor units, days in the seller's zone.

    `stated` is the currency that the seller accounts for tax in and the tax in it (BT-6, BT-111).
    `block` tells its series and year apart in names of files; None where none was left.
    """

    kind: Literal["invoice", "credit_note"]
    number: str
    series: str
    year: int
    sequence: int
    issued_on: date
    due_on: date | None
    currency: str
    seller: Seller
    buyer: Buyer = field(repr=False)
    lines: tuple[ELine, ...]
    groups: tuple[EGroup, ...]
    settled: int = 0
    origin: tuple[str, date] | None = None
    note: str | None = None
    kept: Kept = NOTHING_KEPT
    stated: tuple[str, int] | None = None
    block: int | None = None

    @property
    def net(self) -> int:
        """The sum of the lines."""
        return sum(line.net for line in self.lines)

    @property
    def tax(self) -> int:
        """The sum of the groups' tax."""
        return sum(group.tax for group in self.groups)

    @property
    def total(self) -> int:
        """What is to be paid in all, or is credited."""
        return self.net + self.tax

    def text(self, minor: int) -> str:
        """Return an amount of the document's currency as XML writes it, with two decimals."""
        return amount_text(minor, self.currency)


def amount_text(minor: int, currency: str) -> str:
    """Return an amount as XML writes it, with two decimals."""
    return f"{Decimal(minor).scaleb(-exponent(currency)):.2f}"


def of(view: InvoiceView, seller: Seller) -> EInvoice:
    """Return what an invoice tells a tax authority. Raises: Fault when its sums disagree.

    `seller` is today's, for an invoice from before the seller of its day was kept.
    """
    invoice, seller = view.invoice, view.issued.seller or seller
    language = wording.language_of(view.buyer.locale)
    nets = _nets(view.lines, [line.net for line in view.lines], view.taxes)
    lines = tuple(
        _line(line, line.line_number, wording.line_name(line, language), view.time_zone, net=net)
        for line, net in zip(view.lines, nets, strict=True)
    )
    found = EInvoice(
        kind="invoice",
        number=invoice.number_text,
        series=invoice.series,
        year=invoice.year,
        sequence=invoice.number,
        issued_on=invoice.issued_on,
        due_on=invoice.due_on,
        currency=invoice.currency,
        seller=seller,
        buyer=view.buyer,
        lines=lines,
        groups=_groups(view.taxes, seller, view.buyer),
        kept=view.kept,
        stated=reference.stated_tax(view.taxes, view.kept),
        settled=invoice.from_balance,
        block=view.issued.block,
    )
    return _checked(found, invoice.total, invoice.tax)


def of_note(view: CreditNoteView, seller: Seller) -> EInvoice:
    """Return what a credit note tells a tax authority, as `of` does. Raises: as it."""
    note, seller = view.note, view.note.issued.seller or seller
    origins = {line.line_number: line for line in view.invoice_lines}
    sources = [origins[line.invoice_line] for line in view.lines]
    nets = _nets(sources, [line.amount - line.discount for line in view.lines], view.taxes)
    lines = tuple(
        _credited(line, source, view.time_zone, net=net)
        for line, source, net in zip(view.lines, sources, nets, strict=True)
    )
    found = EInvoice(
        kind="credit_note",
        number=note.number_text,
        series=note.series,
        year=note.year,
        sequence=note.number,
        issued_on=note.issued_on,
        due_on=None,
        currency=note.currency,
        seller=seller,
        buyer=view.buyer,
        lines=lines,
        groups=_groups(view.taxes, seller, view.buyer),
        kept=view.kept,
        stated=reference.stated_tax(view.taxes, view.kept),
        origin=(view.invoice.number_text, view.invoice.issued_on),
        note=note.reason,
        block=note.issued.block,
    )
    return _checked(found, note.total, note.tax)


def problems(document: EInvoice) -> list[str]:
    """Return what keeps EN 16931 from taking a document, each with its mend; usually nothing."""
    seller, buyer = document.seller, document.buyer
    untaxed = {group.treatment for group in document.groups} == {Treatment.NONE}
    found = []
    if not document.groups:
        found.append("no tax is configured: see `convergio tax --help`")
    if Treatment.NONE in {group.treatment for group in document.groups} and not untaxed:
        found.append("lines outside of any tax stand beside taxed ones: bill them apart")
    currencies = [document.currency, *(document.stated[:1] if document.stated else ())]
    found += [
        f"{one} has more than two decimals" for one in currencies if exponent(one) > _EXPONENT_MAX
    ]
    if buyer.country is None:
        found.append("the customer has no country: convergio customer update --country")
    if untaxed and not seller.tax_number:
        found.append("the seller has no tax number: set CONVERGIO_SELLER_TAX_NUMBER")
    if not untaxed and not seller.tax_id:
        found.append("the seller has no VAT number: set CONVERGIO_SELLER_TAX_ID")
    reverse = any(group.treatment == Treatment.REVERSE_CHARGE for group in document.groups)
    if reverse and vat_number(buyer.tax_id, buyer.country) is None:
        found.append("a reverse charge needs the customer's VAT number: customer update --tax-id")
    return found


def require_possible(number: str, found: Sequence[str]) -> None:
    """Refuse an e-invoice that cannot be written. Raises: Conflict that says all of why."""
    if found:
        detail = f"{number} cannot be an e-invoice of this format: {'; '.join(found)}"
        raise Conflict(detail, code="no_e_invoice", field="format")


def vat_number(tax_id: str | None, country: str | None) -> str | None:
    """Return a VAT number with its country in front; None for what is not one.

    The sixteen letters and digits of an Italian person are a tax number, but no VAT number.
    """
    text = re.sub(r"[\s.-]", "", tax_id or "").upper()
    if not text or _ITALIAN_PERSON.fullmatch(text):
        return None
    prefix = _GREECE.get(country or "", country or "")
    if country in _GREECE:
        text = text.removeprefix(country)
    if text[:2] == prefix or (text[:2].isalpha() and country is None):
        return text
    return f"{prefix}{text}" if prefix else None


def _line(line: InvoiceLine, number: int, name: str, time_zone: str, *, net: int) -> ELine:
    """Return a line; a single step that comes out exactly gives its quantity and unit price."""
    first, last = wording.days_of(Period(line.period_start, line.period_end), time_zone)
    discount = 0 if line.tax_inclusive else line.discount
    amount = net + discount
    unit = _unit_price(line) if amount == line.amount else None
    return ELine(
        number=number,
        name=wording.plain(name) or "-",
        amount=amount,
        discount=discount,
        treatment=line.tax_treatment,
        rate=line.tax_rate,
        first_day=first,
        last_day=max(first, last),
        quantity=line.quantity if unit is not None else None,
        unit_price=unit,
    )


def _credited(line: CreditNoteLine, source: InvoiceLine, time_zone: str, *, net: int) -> ELine:
    first, last = wording.days_of(Period(source.period_start, source.period_end), time_zone)
    discount = 0 if source.tax_inclusive else line.discount
    return ELine(
        number=line.line_number,
        name=wording.plain(line.description) or "-",
        amount=net + discount,
        discount=discount,
        treatment=source.tax_treatment,
        rate=source.tax_rate,
        first_day=first,
        last_day=max(first, last),
    )


def _unit_price(line: InvoiceLine) -> Decimal | None:
    """Return the price of one, where a line is one step whose quantity times it is its amount."""
    steps: list[Any] = list(line.detail.get("steps", ()))
    if len(steps) != 1 or line.quantity <= 0 or wording.is_amendment(line.reason):
        return None
    step = steps[0]
    exact = Fraction(step["unit"]) / Fraction(step["per"])
    amount = Fraction(line.amount, 10 ** exponent(line.currency))
    if Fraction(step["quantity"]) != line.quantity or exact * Fraction(line.quantity) != amount:
        return None
    price = Decimal(exact.numerator) / Decimal(exact.denominator)
    return price if Fraction(price) == exact and price >= 0 else None


def _nets(
    sources: Sequence[InvoiceLine], priced: Sequence[int], taxes: Sequence[TaxRow]
) -> list[int]:
    """Return what is taxed of each line: what is priced, or its share where tax is inside."""
    nets = list(priced)
    for row in taxes:
        if not row.inclusive:
            continue
        places = [
            place
            for place, line in enumerate(sources)
            if line.tax_inclusive
            and (line.tax_category, line.tax_rate, line.tax_treatment)
            == (row.category, row.rate, row.treatment)
        ]
        for place, part in zip(places, shared(row.net, [priced[at] for at in places]), strict=True):
            nets[place] = part
    return nets


def shared(whole: int, weights: Sequence[int]) -> list[int]:
    """Share a whole by weights of either sign, by largest remainder; the parts add up to it."""
    total = sum(weights)
    if not total:
        return list(weights)
    exact = [Fraction(whole * weight, total) for weight in weights]
    floors = [part.numerator // part.denominator for part in exact]
    left = whole - sum(floors)
    order = sorted(range(len(exact)), key=lambda place: (floors[place] - exact[place], place))
    for place in order[:left]:
        floors[place] += 1
    return floors


def _groups(taxes: Sequence[TaxRow], seller: Seller, buyer: Buyer) -> tuple[EGroup, ...]:
    """Return the tax by category and rate: rows that differ in neither are one to a reader."""
    language = wording.language_of(buyer.locale)
    sums: dict[tuple[Treatment, Decimal], EGroup] = {}
    for row in taxes:
        why = wording.sentence(
            row.treatment,
            row.reason,
            language,
            seller_country=seller.country,
            buyer_country=buyer.country,
        )
        known = sums.get((row.treatment, row.rate))
        own = wording.own_reason(row.reason)
        before = known or EGroup(row.treatment, row.rate, 0, 0, why, own)
        sums[row.treatment, row.rate] = replace(
            before,
            net=before.net + row.net,
            tax=before.tax + row.tax,
            stated_net=before.stated_net + (row.stated_net or 0),
            stated_tax=before.stated_tax + (row.stated_tax or 0),
        )
    return tuple(sums.values())


def _checked(found: EInvoice, total: int, tax: int) -> EInvoice:
    """Refuse a document whose sums disagree: EN 16931, BR-CO-10 to 16 and BR-S-08 and its like."""
    if not found.groups:
        return found
    name = f"{found.kind} {found.number}"
    require(found.tax == tax, f"{name}: the tax of its groups is not its tax")
    require(found.total == total, f"{name}: its lines and tax are not its total")
    for group in found.groups:
        same = (group.treatment, group.rate)
        nets = sum(line.net for line in found.lines if (line.treatment, line.rate) == same)
        require(nets == group.net, f"{name}: a taxable amount is not the sum of its lines")
    return found
