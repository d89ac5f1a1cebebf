"""Invoice and credit note as a person reads them: a PDF/A, a pure function of what was issued.

One idea: the template holds the layout, `wording.py` and `page.py` the words. The template receives
plain strings as JSON, so text that a customer typed is never read as markup. The same document
gives the same bytes on every machine: only the typefaces inside typst are used, and the file's time
is the day of issue. Where tax is configured, the XML of EN 16931 is inside (Factur-X), written from
the same facts.

Invariants: no clock, no network, no system typeface, no database. PDF/A forbids a hole in the
text, so a character that the typefaces lack is shown as U+FFFD; `typefaces` names a folder with
more of them.
"""

import json
import re
import threading
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import typst

from convergio.billing import einvoices, factur_x, marking, wording
from convergio.billing.einvoices import EInvoice
from convergio.billing.model import Buyer, CreditNoteView, InvoiceLine, InvoiceView
from convergio.billing.page import (
    Account,
    DocumentLine,
    InvoiceDocument,
    Party,
    Stated,
    Step,
    Tax,
    worded,
)
from convergio.billing.wording import Language
from convergio.infra.settings import Seller
from convergio.kernel.errors import Fault
from convergio.kernel.money import Money
from convergio.kernel.periods import Period
from convergio.rating.taxing import TaxRow, Treatment
from convergio.taxes import reference
from convergio.taxes.model import Kept


class _StoredStep(msgspec.Struct, frozen=True):
    """A step as billing keeps it with the line: numbers as text."""

    description: str
    quantity: str
    unit: str
    per: str
    amount: str


_TEMPLATE: Final = Path(__file__).with_name("invoice.typ")
_MISSING: Final = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\u\{([0-9a-fA-F]+)\}")
_REPAIRS_MAX: Final = 3
_LATIN_LAST: Final = 0x24F
_STATE_BEFORE_CODE: Final = frozenset({"US", "CA", "AU"})
_own = threading.local()


def pdf(view: InvoiceView, seller: Seller) -> bytes:
    """Return an invoice as PDF, with its e-invoice inside where it can be one."""
    return _with_xml(of(view, seller), einvoices.of(view, seller))


def note_pdf(view: CreditNoteView, seller: Seller) -> bytes:
    """Return a credit note as PDF, with its e-invoice inside where it can be one."""
    return _with_xml(of_note(view, seller), einvoices.of_note(view, seller))


def _with_xml(document: InvoiceDocument, told: EInvoice) -> bytes:
    xml = None if einvoices.problems(told) else factur_x.write(told)
    return render(document, xml=xml)


def of(view: InvoiceView, seller: Seller) -> InvoiceDocument:
    """Return what the document of a finalised invoice says.

    Buyer and seller are who they were on the day of issue; `seller` is today's, for an invoice
    from before that was kept. The language is the buyer's where it is spoken here, and English
    otherwise.
    """
    invoice, buyer, currency = view.invoice, view.buyer, view.invoice.currency
    seller = view.issued.seller or seller
    language = wording.language_of(buyer.locale)
    return InvoiceDocument(
        number=invoice.number_text,
        status=invoice.status.value,
        seller=_seller(seller, language),
        buyer=_buyer(buyer, language),
        issued_on=invoice.issued_on,
        due_on=invoice.due_on,
        lines=tuple(_line_of(line, language, is_taxed=bool(view.taxes)) for line in view.lines),
        total=Money(invoice.total, currency),
        paid=Money(invoice.paid - invoice.excess, currency),
        from_balance=Money(invoice.from_balance, currency),
        credited=Money(invoice.credited, currency),
        taxes=_taxes(view.taxes, currency, seller, buyer),
        tax_name=wording.tax_name(language, seller.country),
        stated=_stated(view.taxes, view.kept, currency, language),
        account=_account(seller) if buyer.by_transfer else None,
        by_card=not buyer.by_transfer,
        purchase_order=buyer.purchase_order,
        language=language,
        time_zone=view.time_zone,
        customer_key=buyer.key,
    )


def of_note(view: CreditNoteView, seller: Seller) -> InvoiceDocument:
    """Return what the document of a credit note says, its seller as in `of`."""
    note, buyer, currency = view.note, view.buyer, view.note.currency
    seller = note.issued.seller or seller
    language = wording.language_of(buyer.locale)
    origins = {line.line_number: line for line in view.invoice_lines}
    lines = []
    for line in view.lines:
        source = origins[line.invoice_line]
        lines.append(
            DocumentLine(
                description=line.description,
                quantity=line.quantity,
                amount=Money(line.amount, currency),
                period=Period(source.period_start, source.period_end),
                discount=Money(line.discount, currency) if line.discount else None,
                rate=_rate_of(source, is_taxed=bool(view.taxes)),
            )
        )
    return InvoiceDocument(
        kind="credit_note",
        number=note.number_text,
        status="paid",
        seller=_seller(seller, language),
        buyer=_buyer(buyer, language),
        issued_on=note.issued_on,
        due_on=note.issued_on,
        lines=tuple(lines),
        total=Money(note.total, currency),
        paid=Money.zero(currency),
        credited=Money(note.applied, currency),
        taxes=_taxes(view.taxes, currency, seller, buyer),
        tax_name=wording.tax_name(language, seller.country),
        stated=_stated(view.taxes, view.kept, currency, language),
        origin=(view.invoice.number_text, view.invoice.issued_on),
        purchase_order=buyer.purchase_order,
        language=language,
        time_zone=view.time_zone,
        customer_key=buyer.key,
        note=f"{wording.WORDS[language]['reason']}: {note.reason}",
    )


def _seller(seller: Seller, language: Language) -> Party:
    return Party(
        name=seller.name,
        address=_place(
            seller.street, seller.postal_code, seller.city, seller.region, seller.country, language
        )
        or _address(seller.address, seller.country, language),
        email=seller.email or None,
        tax_id=seller.tax_id or None,
        legal_form=seller.legal_form or None,
    )


def _buyer(buyer: Buyer, language: Language) -> Party:
    return Party(
        name=buyer.name or buyer.key,
        address=_place(
            buyer.street, buyer.postal_code, buyer.city, buyer.region, buyer.country, language
        )
        or _address(buyer.address or "", buyer.country, language),
        email=buyer.email,
        tax_id=buyer.tax_id,
    )


def _place(  # noqa: PLR0917 - the parts of an address
    street: str | None,
    postal_code: str | None,
    city: str | None,
    region: str | None,
    country: str | None,
    language: Language,
) -> tuple[str, ...]:
    """Return the lines of an address in parts, as its country writes them; none without a city."""
    if not (street and city):
        return ()
    code = postal_code or ""
    if country in _STATE_BEFORE_CODE:
        rows = [f"{city}, {region} {code}" if region else f"{city} {code}"]
    elif country == "GB":
        rows = [city, region or "", code]
    else:
        rows = [f"{code} {city}" + (f" ({region})" if region else "")]
    rows.append(wording.country_name(country, language) if country else "")
    return tuple(row.strip() for row in (street, *rows) if row.strip())


def _address(text: str, country: str | None, language: Language) -> tuple[str, ...]:
    """Return the lines of an address: as typed, or at its commas; the country by its name."""
    rows = [row.strip() for row in (text.splitlines() if "\n" in text else text.split(","))]
    if country is not None:
        rows.append(wording.country_name(country, language))
    return tuple(row for row in rows if row)


def _account(seller: Seller) -> Account | None:
    if not seller.iban:
        return None
    return Account(name=seller.name, iban=seller.iban, bic=seller.bic)


def _taxes(rows: Sequence[TaxRow], currency: str, seller: Seller, buyer: Buyer) -> tuple[Tax, ...]:
    language = wording.language_of(buyer.locale)
    return tuple(
        Tax(
            rate=row.rate,
            net=Money(row.net, currency),
            amount=Money(row.tax, currency),
            inclusive=row.inclusive,
            sentence=wording.sentence(
                row.treatment,
                row.reason,
                language,
                seller_country=seller.country,
                buyer_country=buyer.country,
            ),
        )
        for row in rows
    )


def _stated(rows: Sequence[TaxRow], kept: Kept, currency: str, language: Language) -> Stated | None:
    """Return the tax in the seller's currency; None where the document is in it, or states none."""
    told = reference.stated_tax(rows, kept)
    if told is None or kept.exchange is None:
        return None
    rate = wording.exchange_rate(kept.exchange, currency, language)
    return Stated(amount=Money(told[1], told[0]), rate=rate)


def _line_of(line: InvoiceLine, language: Language, *, is_taxed: bool) -> DocumentLine:
    """Return a stored line; one that amends an earlier period shows no steps but says so."""
    steps = _steps_of(line, language)
    late = wording.is_amendment(line.reason)
    only = steps[0] if len(steps) == 1 and not late else None
    return DocumentLine(
        description=wording.line_name(line, language),
        quantity=line.quantity,
        amount=Money(line.amount, line.currency),
        period=Period(line.period_start, line.period_end),
        unit_price=only.unit_price if only else None,
        per=only.per if only else Decimal(1),
        steps=() if late or only else steps,
        discount=Money(line.discount, line.currency) if line.discount else None,
        rate=_rate_of(line, is_taxed=is_taxed),
    )


def _rate_of(line: InvoiceLine, *, is_taxed: bool) -> Decimal | None:
    """Return the rate that a line shows; what is outside of any tax shows none."""
    return line.tax_rate if is_taxed and line.tax_treatment != Treatment.NONE else None


def _steps_of(line: InvoiceLine, language: Language) -> tuple[Step, ...]:
    """Return the steps that came to something, or that show an allowance in use."""
    every = msgspec.convert(line.detail.get("steps", ()), tuple[_StoredStep, ...])
    shown = [one for one in every if Decimal(one.quantity)]
    return tuple(
        Step(
            description=wording.step_words(one.description, language),
            quantity=Decimal(one.quantity),
            amount=Money.parse(one.amount, line.currency),
            unit_price=Decimal(one.unit),
            per=Decimal(one.per),
        )
        for one in shown or every[:1]
    )


def render(
    document: InvoiceDocument, *, xml: bytes | None = None, typefaces: Path | None = None
) -> bytes:
    """Return a document as PDF/A-3b and PDF/UA-1. The same document gives the same bytes.

    `xml` is its e-invoice, which goes into the file. `typefaces` is a folder with further fonts,
    for scripts such as Chinese that the ones inside typst lack. Raises: Fault when the sums of the
    document disagree.
    """
    words = worded(document)
    if xml is not None:
        words["xml"] = xml.decode()
    made = _compiled(words, document.issued_on, typefaces)
    return made if xml is None else marking.marked(made)


def _compiled(words: dict[str, object], issued_on: date, typefaces: Path | None) -> bytes:
    """Return the PDF; letters that no typeface has are replaced as typst names them."""
    xml = words.pop("xml", "")
    text = json.dumps(words, ensure_ascii=False)
    for _ in range(_REPAIRS_MAX):
        try:
            return _compile(text, str(xml), issued_on, typefaces)
        except typst.TypstError as error:
            text = _without_missing(text, error)
    latin = "".join(letter if ord(letter) <= _LATIN_LAST else "\ufffd" for letter in text)
    return _compile(latin, str(xml), issued_on, typefaces)


def _compile(text: str, xml: str, issued_on: date, typefaces: Path | None) -> bytes:
    midnight = datetime.combine(issued_on, time(), UTC)
    made = _compiler(typefaces).compile(
        format="pdf",
        sys_inputs={"invoice": text, "xml": xml},
        pdf_standards=["a-3b", "ua-1"],
        timestamp=int(midnight.timestamp()),
    )
    if not isinstance(made, bytes):
        detail = "typst returned no PDF"
        raise Fault(detail)
    return made


def _compiler(typefaces: Path | None) -> typst.Compiler:
    """Return this thread's compiler: one is not safe to share, and making one reads the fonts."""
    compilers: dict[Path | None, typst.Compiler] = vars(_own).setdefault("compilers", {})
    if typefaces not in compilers:
        folders = [] if typefaces is None else [typefaces]
        fonts = typst.Fonts(include_system_fonts=False, font_paths=folders)
        compilers[typefaces] = typst.Compiler(_TEMPLATE, font_paths=fonts, ignore_system_fonts=True)
    return compilers[typefaces]


def _without_missing(text: str, error: typst.TypstError) -> str:
    """Return the JSON text with U+FFFD for each character that typst says it cannot show."""
    said = "".join(_MISSING.findall(error.diagnostic))
    letters = set(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), said))
    missing = {ord(letter): "\ufffd" for letter in letters if not letter.isascii()}
    if not missing:
        detail = f"typst: {error.message}"
        raise Fault(detail) from error
    return text.translate(missing)
