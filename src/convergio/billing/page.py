"""What a page says, and how it is worded: from a document's facts to the strings of the template.

Pure. The template sets every string as text, so nothing that a customer typed can become markup;
here it only loses what a page cannot hold.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final, Literal

import msgspec

from convergio.billing import wording
from convergio.billing.wording import WORDS, Language, clean
from convergio.kernel.errors import require
from convergio.kernel.money import Money
from convergio.kernel.periods import Period

Status = Literal["open", "paid", "void", "uncollectible"]
_ONE_PAGE_ROWS: Final = 12
LINES_MAX: Final = 1_000
_IBAN_GROUP: Final = 4


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """The seller or the buyer as the document names them."""

    name: str
    address: tuple[str, ...] = ()
    email: str | None = None
    tax_id: str | None = None
    legal_form: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the arithmetic of a line; `unit_price` is in major units for `per` units."""

    description: str
    quantity: Decimal
    amount: Money
    unit_price: Decimal | None = None
    per: Decimal = Decimal(1)


class DocumentLine(Step, frozen=True, kw_only=True):
    """One charge, and in small print below it the steps that it was worked out in, if any.

    `amount` is before `discount`; `rate` is the tax that it bears in percent, where it bears any.
    """

    period: Period | None = None
    steps: tuple[Step, ...] = ()
    discount: Money | None = None
    rate: Decimal | None = None


class Tax(msgspec.Struct, frozen=True, kw_only=True):
    """The tax of a group of lines; `sentence` says why there is none."""

    rate: Decimal
    net: Money
    amount: Money
    inclusive: bool = False
    sentence: str = ""


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """The tax in the seller's own currency, and what it was converted at."""

    amount: Money
    rate: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bank transfer goes."""

    name: str
    iban: str
    bic: str = ""


class InvoiceDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the page says. Days are those of the seller's zone; periods are half-open.

    `time_zone` is the subscription's: the days of a period are shown in it. `from_balance` is what
    the customer's credit paid at once, `credited` what credit notes took off later. Of a credit
    note, `origin` is the invoice that it takes from and `credited` what it took off that one.
    Without an `account` to transfer to, the payment method on file is charged, if `by_card`.
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
    kind: Literal["invoice", "credit_note"] = "invoice"
    from_balance: Money | None = None
    credited: Money | None = None
    taxes: tuple[Tax, ...] = ()
    tax_name: str = ""
    stated: Stated | None = None
    account: Account | None = None
    by_card: bool = False
    origin: tuple[str, date] | None = None
    purchase_order: str | None = None
    language: Language = "en"
    time_zone: str = "UTC"
    customer_key: str | None = None
    note: str | None = None

    @property
    def subtotal(self) -> Money:
        """The sum of the lines before discount."""
        return Money(sum(line.amount.minor for line in self.lines), self.total.currency)

    @property
    def discount(self) -> Money:
        """What is taken off the lines."""
        parts = (line.discount.minor for line in self.lines if line.discount is not None)
        return Money(sum(parts), self.total.currency)

    @property
    def due(self) -> Money:
        """What is still to be paid."""
        if self.status == "void":
            return Money.zero(self.total.currency)
        settled = self.paid.minor
        settled += sum(one.minor for one in (self.from_balance, self.credited) if one is not None)
        return Money(self.total.minor - settled, self.total.currency)


def worded(document: InvoiceDocument) -> dict[str, object]:
    """Return what the template reads: strings, already worded for the reader.

    Raises: Fault when the sums of the document disagree.
    """
    _check(document)
    document = _cut(document)
    words, language = WORDS[document.language], document.language
    is_note = document.kind == "credit_note"
    title = words["credit_note" if is_note else "invoice"]
    closed = is_note or document.status in {"paid", "void"}
    last = document.total if closed else document.due
    sums = _sums(document, words)
    return {
        "language": language,
        "labels": {**words, "title": title, "tax": document.tax_name or words["tax"]},
        "tone": "open" if is_note else _TONES.get(document.status, "open"),
        "title": f"{title} {clean(document.number)}",
        "number": clean(document.number),
        "amount": wording.money(last, language),
        "headline": _headline(document, words),
        "seller": _party(document.seller, words)
        | {"footer": " · ".join(_footer(document.seller, words))},
        "buyer": _party(document.buyer, words),
        "facts": _facts(document, words),
        "lines": _lines(document),
        "carried": _is_long(document),
        "priced": not is_note,
        "taxes": [_tax(tax, document) for tax in document.taxes],
        "stated": _stated(document, words),
        "sums": sums[:-1],
        "due": sums[-1],
        "payment": _payment(document, words),
        "note": clean(document.note or ""),
        "sentences": list(
            dict.fromkeys(clean(tax.sentence) for tax in document.taxes if tax.sentence)
        ),
    }


_TONES: Final = {"paid": "paid", "void": "closed"}


def _check(document: InvoiceDocument) -> None:
    """Refuse a page whose lines, discount and tax do not come to its total."""
    added = sum(tax.amount.minor for tax in document.taxes if not tax.inclusive)
    sums = document.subtotal.minor - document.discount.minor + added
    why = f"{document.kind} {document.number}: lines and total differ"
    require(sums == document.total.minor, why)


def _cut(document: InvoiceDocument) -> InvoiceDocument:
    """Return a page with at most LINES_MAX lines: those beyond are one sum a rate.

    The e-invoice and the API hold them all; a page of a hundred thousand lines helps no reader.
    """
    tail = document.lines[LINES_MAX:]
    if not tail:
        return document
    words, currency = WORDS[document.language], document.total.currency
    sums: dict[Decimal | None, DocumentLine] = {}
    for line in tail:
        known = sums.get(line.rate)
        count = known.quantity + 1 if known else Decimal(1)
        amount = line.amount + known.amount if known else line.amount
        off = line.discount.minor if line.discount else 0
        off += known.discount.minor if known and known.discount else 0
        text = words["further"].format(count=wording.number(count, document.language))
        sums[line.rate] = DocumentLine(
            description=text,
            quantity=count,
            amount=amount,
            discount=Money(off, currency) if off else None,
            rate=line.rate,
        )
    lines = (*document.lines[:LINES_MAX], *sums.values())
    return msgspec.structs.replace(document, lines=lines)


def _is_long(document: InvoiceDocument) -> bool:
    """Say whether the lines may need a second page, and so sums carried to it."""
    rows = sum(1 + len(line.steps) + (line.discount is not None) for line in document.lines)
    return rows > _ONE_PAGE_ROWS


def _sums(document: InvoiceDocument, words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the column of sums; the last one is what the reader asks for."""
    language = document.language
    tax = document.tax_name or words["tax"]
    is_note = document.kind == "credit_note"
    sums: list[tuple[str, Money]] = []
    added = sum(one.amount.minor for one in document.taxes if not one.inclusive)
    inside = sum(one.amount.minor for one in document.taxes if one.inclusive)
    if document.taxes or document.discount.minor:
        sums.append((words["subtotal"], document.subtotal))
    if document.discount.minor:
        sums.append((words["discount"], -document.discount))
    if document.taxes and not (inside and not added):
        sums.append((tax, Money(added, document.total.currency)))
    sums.append((words["total_credited" if is_note else "total"], document.total))
    if inside:
        included = words["tax_inside"].format(tax=tax)
        sums.append((included, Money(inside, document.total.currency)))
    if is_note:
        applied = document.credited or Money.zero(document.total.currency)
        if applied.minor and applied != document.total:
            sums.append((words["applied"], applied))
        rest = document.total - applied
        last = (words["to_balance"], rest) if rest.minor else (words["applied"], applied)
        return [(name, wording.money(amount, language)) for name, amount in (*sums, last)]
    for name in ("from_balance", "credited", "paid"):
        part: Money | None = getattr(document, name)
        if part is not None and part.minor:
            sums.append((words[name], -part))
    every = (*sums, (words["amount_due"], document.due))
    return [(name, wording.money(amount, language)) for name, amount in every]


def _headline(document: InvoiceDocument, words: Mapping[str, str]) -> str:
    if document.kind == "credit_note" and document.origin is not None:
        number, issued_on = document.origin
        day = wording.day(issued_on, document.language)
        return words["note_headline"].format(invoice=clean(number), day=day)
    match document.status:
        case "void":
            return words["void_headline"]
        case "paid":
            return words["paid_headline"] if document.total.minor else words["zero_headline"]
        case "open" | "uncollectible":
            return words["open_headline"].format(
                due=wording.day(document.due_on, document.language)
            )


def _facts(document: InvoiceDocument, words: Mapping[str, str]) -> list[tuple[str, str]]:
    is_note = document.kind == "credit_note"
    facts = [
        (words["note_number" if is_note else "number"], clean(document.number)),
        (words["issued"], wording.day(document.issued_on, document.language)),
    ]
    if document.origin is not None:
        facts.append((words["of_invoice"], clean(document.origin[0])))
    else:
        facts.append((words["due"], wording.day(document.due_on, document.language)))
    if document.customer_key:
        facts.append((words["customer"], _short(clean(document.customer_key))))
    if document.purchase_order:
        facts.append((words["purchase_order"], _short(clean(document.purchase_order))))
    return facts


def _party(party: Party, words: Mapping[str, str]) -> dict[str, object]:
    tax = f"{words['tax_id']} {party.tax_id}" if party.tax_id else ""
    rows = (*party.address, party.email or "", tax)
    return {"name": clean(party.name), "details": [row for row in map(clean, rows) if row]}


def _footer(party: Party, words: Mapping[str, str]) -> list[str]:
    tax = f"{words['tax_id']} {party.tax_id}" if party.tax_id else ""
    every = (party.name, party.legal_form or "", tax, "" if party.legal_form else party.email or "")
    return [row for row in map(clean, every) if row]


def _payment(document: InvoiceDocument, words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return how what is due is paid; nothing where nothing is, or no account is known."""
    account = document.account
    if document.status != "open" or document.due.minor <= 0:
        return []
    if account is None:
        return [(words["payment"], words["by_card"])] if document.by_card else []
    signs = account.iban
    groups = (signs[at : at + _IBAN_GROUP] for at in range(0, len(signs), _IBAN_GROUP))
    rows = [
        (words["payment"], words["transfer"].format(name=clean(account.name))),
        ("IBAN", " ".join(groups)),
        ("BIC", account.bic),
        (words["reference"], clean(document.number)),
    ]
    return [row for row in rows if row[1]]


def _lines(document: InvoiceDocument) -> list[dict[str, object]]:
    """Return the rows of the table, each with the sum of all until it, where that is carried."""
    rows, sum_until = [], 0
    for line in document.lines:
        sum_until += line.amount.minor - (line.discount.minor if line.discount else 0)
        until = Money(sum_until, document.total.currency)
        running = wording.money(until, document.language) if _is_long(document) else ""
        rows.append(_line(line, document) | {"running": running})
    return rows


def _line(line: DocumentLine, document: InvoiceDocument) -> dict[str, object]:
    language = document.language
    steps = [_step(step, language) for step in line.steps]
    if line.discount is not None and line.discount.minor:
        off = {"description": WORDS[language]["discount"], "quantity": "", "unit_price": ""}
        steps.append(off | {"amount": wording.money(-line.discount, language)})
    days = "" if line.period is None else wording.days(line.period, document.time_zone, language)
    rate = "" if line.rate is None else wording.percent(line.rate, language)
    return {**_step(line, language), "period": days, "rate": rate, "steps": steps}


def _step(step: Step, language: Language) -> dict[str, str]:
    return {
        "description": clean(step.description),
        "quantity": wording.number(step.quantity, language),
        "unit_price": _unit_price(step, language),
        "amount": wording.money(step.amount, language),
    }


def _unit_price(line: Step, language: Language) -> str:
    if line.unit_price is None:
        return ""
    price = wording.price(line.unit_price, line.amount.currency, language)
    return price if line.per == 1 else f"{price} / {wording.number(line.per, language)}"


def _tax(tax: Tax, document: InvoiceDocument) -> list[str]:
    language = document.language
    return [
        wording.percent(tax.rate, language),
        wording.money(tax.net, language),
        wording.money(tax.amount, language),
    ]


def _stated(document: InvoiceDocument, words: Mapping[str, str]) -> list[str]:
    """Return the tax in the seller's currency as label, amount and rate; nothing without one."""
    stated = document.stated
    if stated is None or not document.taxes:
        return []
    tax = document.tax_name or words["tax"]
    label = words["tax_in"].format(tax=tax, currency=stated.amount.currency.upper())
    return [label, wording.money(stated.amount, document.language), clean(stated.rate)]


def _short(text: str, size: int = 20) -> str:
    text = text.replace("\u200b", "")
    return text if len(text) <= size else f"{text[: size - 1]}…"
