"""Where a line below zero goes, and what a credit note may take: decisions without a database.

A line below zero names the line that it takes back from. It nets within an invoice as long as no
tax group of it turns negative; otherwise it goes on a credit note of the invoice that it takes from
(RULES 11). No line is ever credited beyond what is left of it, whoever asks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final
from uuid import UUID

from convergio.billing import errors
from convergio.billing.bearing import Credited, earned_by, net_of, share
from convergio.billing.model import (
    Bearing,
    ChargeKey,
    Creditable,
    CreditDraft,
    CreditKind,
    CreditLine,
    CreditNote,
    Draft,
    Invoice,
    Kind,
    Line,
    LineId,
    Numbers,
    Status,
    Voiding,
)
from convergio.billing.rules import ACCOUNTS
from convergio.discounts.model import Draw, LinePlace
from convergio.kernel.errors import require
from convergio.kernel.money import Money, allocate
from convergio.kernel.quantity import subtract
from convergio.kernel.text import refuse_card_number
from convergio.ledger.model import Account

SERIES_SUFFIX: Final = "-CN"
REASON_SIZE_MAX: Final = 500
_NUMBER: Final = re.compile(r"([A-Z0-9]{1,8}-CN)-(\d{4})-(\d{6,18})", re.ASCII)
_ONE: Final = Decimal(1)
_PLACES: Final = 9
_NANO: Final = 10**_PLACES


class Left:
    """What is left to credit of the lines of some customers, the newest first for each charge."""

    def __init__(self, rows: Iterable[Creditable]) -> None:
        """Keep the lines that something is left of."""
        self._of: dict[UUID, dict[ChargeKey, list[Creditable]]] = {}
        for row in rows:
            if row.remaining > 0:
                self._rows(row).append(row)

    def _rows(self, row: Creditable) -> list[Creditable]:
        return self._of.setdefault(row.customer_id, {}).setdefault(row.key, [])

    def of(self, customer_id: UUID) -> dict[ChargeKey, list[Creditable]]:
        """Return what is left of one customer's lines, as it stays whatever is taken later."""
        return {key: list(rows) for key, rows in self._of.get(customer_id, {}).items()}

    def restore(self, customer_id: UUID, rows: dict[ChargeKey, list[Creditable]]) -> None:
        """Let that be left of one customer's lines again."""
        self._of[customer_id] = rows

    def add(self, row: Creditable) -> None:
        """Keep a line that was just billed, before the older ones of its charge."""
        if row.remaining > 0:
            self._rows(row).insert(0, row)

    def take(
        self, customer_id: UUID, key: ChargeKey, minor: int
    ) -> Iterator[tuple[LineId, int, Bearing]]:
        """Yield the lines that an amount is taken from, as far as they reach, and use it up.

        Each with the part of it, and what that part of the line bears.
        """
        rows = self._of.get(customer_id, {}).get(key, [])
        while minor and rows:
            row = rows.pop(0)
            part = min(minor, row.remaining)
            bearing = share(row, part)
            if part < row.remaining:
                rest = row.discount_left - bearing.discount
                rows.insert(0, replace(row, remaining=row.remaining - part, discount_left=rest))
            yield LineId(row.invoice_id, row.line_number), part, bearing
            minor -= part


def attributed(draft: Draft, left: Left) -> tuple[list[Line], list[Line]]:
    """Return a draft's lines above zero, and those below, each of which names its origin."""
    above: list[Line] = []
    below: list[Line] = []
    for line in draft.lines:
        if line.amount.minor >= 0:
            above.append(line)
            continue
        rest, quantity = -line.amount.minor, line.quantity
        for origin, part, bears in left.take(draft.customer_id, line.key, rest):
            amount = Money(-part, line.amount.currency)
            bearing = bears._replace(discount=-bears.discount)
            share = _share_of(quantity, part, rest) if line.key.kind == Kind.USAGE else quantity
            below.append(
                replace(line, amount=amount, origin=origin, bearing=bearing, quantity=share)
            )
            if line.key.kind == Kind.USAGE:
                rest, quantity = rest - part, subtract(quantity, share)
    return above, below


def _share_of(quantity: Decimal, part: int, rest: int) -> Decimal:
    """Return the part of a quantity of usage that goes with a part of an amount.

    So that a line that takes back from several has its quantity once.
    """
    if part == rest:
        return quantity
    exact = Fraction(quantity) * part / rest
    return Decimal(int(exact * _NANO)).scaleb(-_PLACES)


def returned(
    taken: MutableMapping[LinePlace, list[Draw]], origin: LinePlace, discount: int
) -> tuple[Draw, ...]:
    """Return what a part of a line's discount goes back to, and take it off what is `taken`.

    It is shared over all that took something off the line, by what is left of each; the draws have
    the sign of `discount`.
    """
    draws = taken.get(origin, [])
    size = min(abs(discount), abs(sum(one.amount for one in draws)))
    if not size:
        return ()
    side = 1 if draws[0].amount > 0 else -1
    parts = [
        part.minor for part in allocate(Money(size, "usd"), [abs(one.amount) for one in draws])
    ]
    pairs = list(zip(draws, parts, strict=True))
    rest = [one._replace(amount=one.amount - side * part) for one, part in pairs]
    taken[origin] = [one for one in rest if one.amount]
    sign = 1 if discount > 0 else -1
    return tuple(one._replace(amount=sign * part) for one, part in pairs if part)


def returning(draft: CreditDraft, taken: MutableMapping[LinePlace, list[Draw]]) -> CreditDraft:
    """Return a correction with what the discounts of its lines go back to."""
    lines = []
    for line in draft.lines:
        place = draft.invoice_id, line.invoice_line
        draws = returned(taken, place, line.bearing.discount) if line.bearing.discount else ()
        lines.append(replace(line, bearing=line.bearing._replace(draws=draws)))
    return replace(draft, lines=tuple(lines))


def notes_of(customer_id: UUID, lines: Sequence[Line], credited: Credited) -> Iterator[CreditDraft]:
    """Yield one credit note for each invoice that these lines take from."""
    by_invoice: dict[UUID, list[CreditLine]] = {}
    reasons: dict[UUID, str] = {}
    for line in lines:
        require(line.origin is not None, "a line below zero names what it takes from")
        if line.origin is not None:
            bearing = line.bearing._replace(
                discount=-line.bearing.discount,
                draws=tuple(one._replace(amount=-one.amount) for one in line.bearing.draws),
            )
            credit = CreditLine(
                line.origin.line_number, line.key.kind, line.description, -line.quantity,
                -line.amount, bearing,
            )  # fmt: skip
            by_invoice.setdefault(line.origin.invoice_id, []).append(credit)
            reasons.setdefault(line.origin.invoice_id, line.reason)
    for invoice_id, some in by_invoice.items():
        reason = reasons[invoice_id]
        yield _note(customer_id, invoice_id, CreditKind.CORRECTION, reason, some, credited)


def _note(  # noqa: PLR0917 - the parts of one document, named at both calls
    customer_id: UUID,
    invoice_id: UUID,
    kind: CreditKind,
    reason: str,
    lines: Sequence[CreditLine],
    credited: Credited,
) -> CreditDraft:
    taxes = credited.take(invoice_id, lines)
    minor = sum(net_of(one).minor for one in lines)
    minor += sum(row.tax for row in taxes if not row.inclusive)
    total = Money(minor, lines[0].amount.currency)
    require(total.minor > 0, "a credit note gives something back")
    return CreditDraft(customer_id, invoice_id, kind, reason, tuple(lines), total, taxes)


def asked(
    invoice: Invoice,
    rows: Sequence[Creditable],
    credited: Credited,
    *,
    reason: str,
    kind: CreditKind,
    amount: Money | None,
    lines: Mapping[int, Money] | None,
) -> CreditDraft:
    """Return the credit note that was asked for: of all that is left, of lines, or of an amount.

    Amounts are those of the lines, before discount and tax: the note gives back their share of
    the discount less, and the tax on them more. An amount is shared over the lines by what is
    left of each, by largest remainder. Raises: Invalid; Conflict beyond what is left, or of a
    void invoice.
    """
    _check_reason(reason)
    if invoice.status == Status.VOID:
        raise errors.void_already(invoice.number_text)
    whole = Money(sum(row.remaining for row in rows), invoice.currency)
    if lines is not None:
        wanted = {number: money.minor for number, money in lines.items()}
        _check_currency(invoice, lines.values())
    elif amount is not None:
        _check_currency(invoice, [amount])
        if not 0 < amount.minor <= whole.minor:
            raise errors.beyond_credit(invoice.number_text, whole.text())
        above = [row for row in rows if row.remaining > 0]
        parts = allocate(amount, [row.remaining for row in above])
        wanted = {row.line_number: part.minor for row, part in zip(above, parts, strict=True)}
    else:
        wanted = {row.line_number: row.remaining for row in rows}
    credit = [
        _credit_line(row, wanted[row.line_number]) for row in rows if wanted.get(row.line_number, 0)
    ]
    for row in rows:
        _check_line(invoice, row, wanted.get(row.line_number, 0), all_=lines is None)
    strangers = wanted.keys() - {row.line_number for row in rows}
    total = sum(one.amount.minor for one in credit)
    if strangers or not 0 < total <= whole.minor:
        raise errors.beyond_credit(invoice.number_text, whole.text())
    if sum(net_of(one).minor for one in credit) <= 0:
        raise errors.nothing_paid(invoice.number_text)
    return _note(invoice.customer_id, invoice.invoice_id, kind, reason, credit, credited)


def _check_reason(reason: str) -> None:
    if not 1 <= len(reason.strip()) <= REASON_SIZE_MAX or not reason.isprintable():
        raise errors.bad_reason(REASON_SIZE_MAX)
    refuse_card_number(reason, field="reason")


def _check_currency(invoice: Invoice, amounts: Iterable[Money]) -> None:
    if any(amount.currency != invoice.currency for amount in amounts):
        raise errors.other_currency(invoice.number_text, invoice.currency)


def _check_line(invoice: Invoice, row: Creditable, minor: int, *, all_: bool) -> None:
    low = min(row.remaining, 0) if all_ else 0
    if not low <= minor <= max(row.remaining, 0):
        raise errors.beyond_credit(invoice.number_text, Money(row.remaining, row.currency).text())


def _credit_line(row: Creditable, minor: int) -> CreditLine:
    return CreditLine(
        row.line_number, Kind(row.kind), row.description, _ONE, Money(minor, row.currency),
        share(row, minor),
    )  # fmt: skip


def void(
    invoice: Invoice, rows: Sequence[Creditable], credited: Credited, how: Voiding
) -> CreditDraft | None:
    """Return the full credit note that voids an invoice; None where nothing is left of it.

    Raises: Conflict for one that is not open, of which anything is paid, or of which a part was
    taken back on another invoice: what is due of that part would be owed by nobody.
    """
    if invoice.status != Status.OPEN or invoice.paid:
        raise errors.cannot_void(invoice.number_text, invoice.status)
    kind = CreditKind.CORRECTION if how == Voiding.REISSUE else CreditKind.CONCESSION
    left = sum(row.remaining for row in rows)
    if left == 0 and not any(row.remaining for row in rows):
        if invoice.due.minor:
            raise errors.netted_elsewhere(invoice.number_text)
        return None
    if left <= 0:
        raise errors.beyond_credit(invoice.number_text, Money(left, invoice.currency).text())
    reason = f"void: {how}"
    draft = asked(invoice, rows, credited, reason=reason, kind=kind, amount=None, lines=None)
    if draft.total < invoice.due:
        raise errors.netted_elsewhere(invoice.number_text)
    return draft


def apply(invoice: Invoice, total: Money) -> tuple[Invoice, Money]:
    """Return the invoice with a credit note applied to what is due, and how much that took."""
    applied = (
        min(total, invoice.due) if invoice.status != Status.VOID else Money.zero(invoice.currency)
    )
    credited = replace(invoice, credited=invoice.credited + applied.minor)
    if invoice.status == Status.OPEN and not credited.due.minor:
        credited = replace(credited, status=Status.PAID)
    return credited, applied


def write_off(invoice: Invoice) -> Invoice:
    """Return an open invoice as one that will not be paid. Raises: Conflict."""
    if invoice.status != Status.OPEN:
        raise errors.not_open(invoice.number_text, invoice.status)
    return replace(invoice, status=Status.UNCOLLECTIBLE)


def reversal(credit: CreditDraft) -> dict[Account, Money]:
    """Return what a credit note takes back from each account, what is deferred first."""
    currency = credit.total.currency
    sums = {
        ACCOUNTS[kind]: Money(minor, currency)
        for kind, minor in earned_by(credit.lines, credit.taxes, currency).items()
    }
    if credit.taxes:
        sums[Account.TAX_PAYABLE] = Money(sum(row.tax for row in credit.taxes), currency)
    return sums


def number_notes(
    drafts: Sequence[CreditDraft],
    ids: Sequence[UUID],
    applied: Sequence[Money],
    numbers: Numbers,
    sealed: Sequence[bytes],
    *,
    finalized_at: datetime,
) -> Iterator[CreditNote]:
    """Yield the credit notes of drafts in their order, numbered without gaps."""
    for place, draft in enumerate(drafts):
        yield CreditNote(
            draft.customer_id, ids[place], draft.invoice_id, numbers.series, numbers.year,
            numbers.first + place, draft.kind, draft.reason, draft.total.currency,
            draft.total.minor, applied[place].minor, numbers.issued_on, finalized_at,
            sealed[place], *draft.sums,
        )  # fmt: skip


def parse_number(text: str) -> tuple[str, int, int]:
    """Read a credit note's number as series, year and number. Raises: Invalid."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise errors.bad_note_number(text)
    return found[1], int(found[2]), int(found[3])
