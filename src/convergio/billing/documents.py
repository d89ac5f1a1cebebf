"""The invoice as a person reads it: a PDF/A that is a pure function of what was issued.

One idea: the template holds the layout, this module holds the words. Every amount, date and label
is worded here for the reader's language, and the template receives plain strings as JSON, so text
that a customer typed is never read as markup. The same document gives the same bytes on every
machine: only the typefaces inside typst are used, and the file's time is the day of issue.

Invariants: no clock, no network, no system typeface, no database. PDF/A forbids a hole in the
text, so a character that the typefaces lack is shown as U+FFFD; `typefaces` names a folder with
more of them.
"""

import json
import re
import threading
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

import msgspec
import typst
from babel import Locale
from babel.dates import format_date, format_interval
from babel.numbers import format_currency, format_decimal

from convergio.billing.model import InvoiceLine, InvoiceView
from convergio.infra.settings import Seller
from convergio.kernel.errors import Fault, require
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, zone

Language = Literal["en", "it"]
Status = Literal["open", "paid", "void", "uncollectible"]


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """The seller or the buyer as the document names them."""

    name: str
    address: tuple[str, ...] = ()
    email: str | None = None
    tax_id: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the arithmetic of a line; `unit_price` is in major units for `per` units."""

    description: str
    quantity: Decimal
    amount: Money
    unit_price: Decimal | None = None
    per: Decimal = Decimal(1)


class DocumentLine(Step, frozen=True, kw_only=True):
    """One charge, and in small print below it the steps that it was worked out in, if any."""

    period: Period | None = None
    steps: tuple[Step, ...] = ()


class InvoiceDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page says. Days are those of the seller's zone; periods are half-open.

    `time_zone` is the subscription's: the days of a period are shown in it.
    """

    number: str
    status: Status
    seller: Party
    buyer: Party
    issued_on: date
    due_on: date
    lines: tuple[DocumentLine, ...]
    total: Money
    paid: Money
    language: Language = "en"
    time_zone: str = "UTC"
    customer_key: str | None = None
    note: str | None = None


class _StoredStep(msgspec.Struct, frozen=True):
    """A step as billing keeps it with the line: numbers as text."""

    description: str
    quantity: str
    unit: str
    per: str
    amount: str


_WORDS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "invoice": "Invoice",
        "from": "From",
        "bill_to": "Bill to",
        "number": "Invoice number",
        "issued": "Date of issue",
        "due": "Date due",
        "customer": "Customer",
        "description": "Description",
        "quantity": "Quantity",
        "unit_price": "Unit price",
        "amount": "Amount",
        "total": "Total",
        "paid": "Paid",
        "amount_due": "Amount due",
        "tax_id": "Tax ID",
        "page": "Page",
        "open_headline": "Due by {due}",
        "paid_headline": "Paid in full",
        "zero_headline": "Nothing to pay",
        "void_headline": "Void: nothing is due",
        "late_usage": "usage of an earlier period",
        "late_fee": "fee of an earlier period",
        "credit_usage": "credit for corrected usage",
        "credit_fee": "credit for unused time",
    },
    "it": {
        "invoice": "Fattura",
        "from": "Emessa da",
        "bill_to": "Intestata a",
        "number": "Numero fattura",
        "issued": "Data di emissione",
        "due": "Scadenza",
        "customer": "Cliente",
        "description": "Descrizione",
        "quantity": "Quantità",
        "unit_price": "Prezzo unitario",
        "amount": "Importo",
        "total": "Totale",
        "paid": "Pagato",
        "amount_due": "Importo dovuto",
        "tax_id": "Partita IVA",
        "page": "Pagina",
        "open_headline": "Da pagare entro il {due}",
        "paid_headline": "Interamente pagata",
        "zero_headline": "Nulla da pagare",
        "void_headline": "Annullata: nulla è dovuto",
        "late_usage": "consumo di un periodo precedente",
        "late_fee": "canone di un periodo precedente",
        "credit_usage": "accredito per consumo rettificato",
        "credit_fee": "accredito per il tempo non goduto",
    },
}
# The steps of rating speak English; these are all the phrases that they are made of.
_STEPS_IT: Final = {
    "Flat fee": "Canone fisso",
    "Fixed fee": "Quota fissa",
    "flat fee": "quota fissa",
    "Included": "Compreso nel piano",
    "Usage": "Consumo",
    "Seats": "Postazioni",
    "Packages of": "Pacchetti da",
    "Minimum": "Minimo",
    "Tier": "Scaglione",
    "up to the maximum": "fino al massimo",
    "up to": "fino a",
    "above": "oltre",
    "of the period": "del periodo",
}
_STEP_PHRASE: Final = re.compile("|".join(map(re.escape, _STEPS_IT)))
_TEMPLATE: Final = Path(__file__).with_name("invoice.typ")
_LOCALES: Final = {"en": Locale("en"), "it": Locale("it")}
_MISSING: Final = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\u\{([0-9a-fA-F]+)\}")
_LONG_WORD: Final = re.compile(r"\S{31,}")
_AFTER_SIGN: Final = re.compile(r"(?<=[@./_-])")
_REPAIRS_MAX: Final = 3
_LATIN_LAST: Final = 0x24F
_own = threading.local()


def of(view: InvoiceView, seller: Seller) -> InvoiceDocument:
    """Return what the document of a finalised invoice says.

    The buyer is who it was on the day of issue; the language is theirs where this module speaks
    it, and English otherwise.
    """
    invoice, buyer = view.invoice, view.buyer
    language: Language = "it" if buyer.locale.lower().startswith("it") else "en"
    return InvoiceDocument(
        number=invoice.number_text,
        status=invoice.status.value,
        seller=Party(
            name=seller.name,
            address=_address(seller.address, seller.country, language),
            email=seller.email or None,
            tax_id=seller.tax_id or None,
        ),
        buyer=Party(
            name=buyer.name or buyer.key,
            address=_address(buyer.address or "", buyer.country, language),
            email=buyer.email,
            tax_id=buyer.tax_id,
        ),
        issued_on=invoice.issued_on,
        due_on=invoice.due_on,
        lines=tuple(_line_of(line, language) for line in view.lines),
        total=Money(invoice.total, invoice.currency),
        paid=Money(invoice.paid, invoice.currency),
        language=language,
        time_zone=view.time_zone,
        customer_key=buyer.key,
    )


def _address(text: str, country: str | None, language: Language) -> tuple[str, ...]:
    """Return the lines of an address: as typed, or at its commas; the country by its name."""
    rows = [row.strip() for row in (text.splitlines() if "\n" in text else text.split(","))]
    if country is not None:
        rows.append(_LOCALES[language].territories.get(country, country))
    return tuple(row for row in rows if row)


def _line_of(line: InvoiceLine, language: Language) -> DocumentLine:
    """Return a stored line; one that amends an earlier period shows no steps but says so."""
    steps = _steps_of(line, language)
    late = line.reason.startswith(("late ", "credit: "))
    only = steps[0] if len(steps) == 1 and not late else None
    name = line.description
    if late:
        kind = "fee" if line.kind == "fixed" else "usage"
        words = _WORDS[language][f"{'late' if line.amount >= 0 else 'credit'}_{kind}"]
        name = f"{name.removesuffix(f': {line.reason}')}: {words}"
    return DocumentLine(
        description=name,
        quantity=line.quantity,
        amount=Money(line.amount, line.currency),
        period=Period(line.period_start, line.period_end),
        unit_price=only.unit_price if only else None,
        per=only.per if only else Decimal(1),
        steps=() if late or only else steps,
    )


def _steps_of(line: InvoiceLine, language: Language) -> tuple[Step, ...]:
    """Return the steps that came to something, or that show an allowance in use."""
    every = msgspec.convert(line.detail.get("steps", ()), tuple[_StoredStep, ...])
    shown = [one for one in every if Decimal(one.quantity)]
    return tuple(
        Step(
            description=_step_words(one.description, language),
            quantity=Decimal(one.quantity),
            amount=Money.parse(one.amount, line.currency),
            unit_price=Decimal(one.unit),
            per=Decimal(one.per),
        )
        for one in shown or every[:1]
    )


def _step_words(text: str, language: Language) -> str:
    if language == "en":
        return text
    return _STEP_PHRASE.sub(lambda found: _STEPS_IT[found[0]], text)


def render(invoice: InvoiceDocument, *, typefaces: Path | None = None) -> bytes:
    """Return the invoice as PDF/A-3b and PDF/UA-1. The same document gives the same bytes.

    `typefaces` is a folder with further fonts, for scripts such as Chinese that the ones inside
    typst lack. Raises: Fault when the sums of the document disagree.
    """
    lines = sum((line.amount.minor for line in invoice.lines), 0)
    require(lines == invoice.total.minor, f"invoice {invoice.number}: lines and total differ")
    text = json.dumps(_worded(invoice), ensure_ascii=False)
    for _ in range(_REPAIRS_MAX):
        try:
            return _compile(text, invoice.issued_on, typefaces)
        except typst.TypstError as error:
            text = _without_missing(text, error)
    latin = "".join(letter if ord(letter) <= _LATIN_LAST else "\ufffd" for letter in text)
    return _compile(latin, invoice.issued_on, typefaces)


def _compile(text: str, issued_on: date, typefaces: Path | None) -> bytes:
    midnight = datetime.combine(issued_on, time(), UTC)
    pdf = _compiler(typefaces).compile(
        format="pdf",
        sys_inputs={"invoice": text},
        pdf_standards=["a-3b", "ua-1"],
        timestamp=int(midnight.timestamp()),
    )
    if not isinstance(pdf, bytes):
        detail = "typst returned no PDF"
        raise Fault(detail)
    return pdf


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


def _worded(invoice: InvoiceDocument) -> dict[str, object]:
    """Return what the template reads: strings, already worded for the reader."""
    words = _WORDS[invoice.language]
    due = _due(invoice)
    sums = [(words["total"], _money(invoice.total, invoice.language))]
    if invoice.paid.minor:
        sums.append((words["paid"], _money(-invoice.paid, invoice.language)))
    closed = invoice.status in {"paid", "void"}
    return {
        "language": invoice.language,
        "labels": words,
        "tone": {"paid": "paid", "void": "closed"}.get(invoice.status, "open"),
        "title": f"{words['invoice']} {_clean(invoice.number)}",
        "number": _clean(invoice.number),
        "amount": _money(invoice.total if closed else due, invoice.language),
        "headline": _headline(invoice),
        "seller": {
            "name": _clean(invoice.seller.name),
            "details": _details(invoice.seller, words),
            "footer": " · ".join(_footer(invoice.seller, words)),
        },
        "buyer": {
            "name": _clean(invoice.buyer.name),
            "details": _details(invoice.buyer, words),
        },
        "facts": _facts(invoice, words),
        "lines": [_line(line, invoice) for line in invoice.lines],
        "sums": sums,
        "due": (words["amount_due"], _money(due, invoice.language)),
        "note": _clean(invoice.note or ""),
    }


def _due(invoice: InvoiceDocument) -> Money:
    if invoice.status == "void":
        return Money.zero(invoice.total.currency)
    return invoice.total - invoice.paid


def _headline(invoice: InvoiceDocument) -> str:
    words = _WORDS[invoice.language]
    match invoice.status:
        case "void":
            return words["void_headline"]
        case "paid":
            return words["paid_headline"] if invoice.total.minor else words["zero_headline"]
        case "open" | "uncollectible":
            return words["open_headline"].format(due=_day(invoice.due_on, invoice.language))


def _facts(invoice: InvoiceDocument, words: Mapping[str, str]) -> list[tuple[str, str]]:
    facts = [
        (words["number"], _clean(invoice.number)),
        (words["issued"], _day(invoice.issued_on, invoice.language)),
        (words["due"], _day(invoice.due_on, invoice.language)),
    ]
    if invoice.customer_key:
        facts.append((words["customer"], _short(_clean(invoice.customer_key))))
    return facts


def _details(party: Party, words: Mapping[str, str]) -> list[str]:
    tax = f"{words['tax_id']} {party.tax_id}" if party.tax_id else ""
    rows = (*party.address, party.email or "", tax)
    return [row for row in map(_clean, rows) if row]


def _footer(party: Party, words: Mapping[str, str]) -> list[str]:
    tax = f"{words['tax_id']} {party.tax_id}" if party.tax_id else ""
    return [row for row in map(_clean, (party.name, tax, party.email or "")) if row]


def _line(line: DocumentLine, invoice: InvoiceDocument) -> dict[str, object]:
    return {
        **_step(line, invoice.language),
        "period": "" if line.period is None else _period(line.period, invoice),
        "steps": [_step(step, invoice.language) for step in line.steps],
    }


def _step(step: Step, language: Language) -> dict[str, str]:
    return {
        "description": _clean(step.description),
        "quantity": _number(step.quantity, language),
        "unit_price": _unit_price(step, language),
        "amount": _money(step.amount, language),
    }


def _unit_price(line: Step, language: Language) -> str:
    if line.unit_price is None:
        return ""
    currency = line.amount.currency.upper()
    locale = _LOCALES[language]
    price = format_currency(line.unit_price, currency, locale=locale, decimal_quantization=False)
    return price if line.per == 1 else f"{price} / {_number(line.per, language)}"


def _money(money: Money, language: Language) -> str:
    major = Decimal(money.text())
    return format_currency(major, money.currency.upper(), locale=_LOCALES[language])


def _number(value: Decimal, language: Language) -> str:
    return format_decimal(value, locale=_LOCALES[language], decimal_quantization=False)


def _day(day: date, language: Language) -> str:
    return format_date(day, format="long", locale=_LOCALES[language])


def _period(period: Period, invoice: InvoiceDocument) -> str:
    """Return the first and the last day of a half-open period, as a reader counts days."""
    where = zone(invoice.time_zone)
    first = period.start.astimezone(where).date()
    last = (period.end - timedelta(microseconds=1)).astimezone(where).date()
    if first == last:
        return format_date(first, format="medium", locale=_LOCALES[invoice.language])
    # Babel pads the dash with thin spaces; plain ones keep the text easy to search and copy
    days = format_interval(first, last, skeleton="yMMMd", locale=_LOCALES[invoice.language])
    return days.replace("\u2009", " ")


def _clean(text: str) -> str:
    """Return text that a page can hold: no controls, no direction overrides, breakable words."""
    kept = (
        " " if letter.isspace() else letter
        for letter in unicodedata.normalize("NFC", text)
        if letter.isspace() or unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
    )
    single = " ".join("".join(kept).split())
    return _LONG_WORD.sub(lambda found: _breakable(found[0]), single)


def _breakable(word: str, size: int = 10) -> str:
    """Return the word with places where a line may end: after a sign, else every few letters."""
    parts = _AFTER_SIGN.split(word)
    chunks = (part[at : at + size] for part in parts for at in range(0, len(part), size))
    return "\u200b".join(chunks)


def _short(text: str, size: int = 20) -> str:
    text = text.replace("\u200b", "")
    return text if len(text) <= size else f"{text[: size - 1]}…"
