"""Invoices and credit notes over HTTP: read, explain, preview, credit, void and give up.

A handler reads its parameters, opens one transaction, calls one action and renders.
"""

from datetime import date
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api import paging
from convergio.api.once import once
from convergio.api.requests import Anyone, PageSize, Text, Word, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.billing import actions as billing
from convergio.billing import correcting, declaring, explaining
from convergio.billing.errors import unknown_invoice, unknown_note
from convergio.billing.model import CreditKind, Invoice, InvoiceLine, Status, TaxRow, Voiding
from convergio.customers import actions as customers
from convergio.identity.model import Principal, Scope
from convergio.infra import ids
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text, parse_instant
from convergio.kernel.quantity import quantity_text
from convergio.payments import actions as payments
from convergio.subscriptions.model import When
from convergio.wiring import App

_LINE_DIGITS_MAX: Final = 9


class CreditBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, and how much: an amount, amounts of lines by number, or all that is left."""

    reason: Text
    amount: Text | None = None
    lines: dict[str, str] | None = None
    kind: CreditKind = CreditKind.CONCESSION


class VoidBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether what a void invoice billed is billed again (`reissue`) or given away (`waive`)."""

    how: Voiding


@get("/v1/invoices", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_invoices(
    request: Anyone,
    *,
    customer: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
    series: Word = None,
    issued_from: FromQuery[date | None] = None,
    issued_to: FromQuery[date | None] = None,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of invoices; send `next` back as `after` for the following page.

    Of one customer, status or series where given, issued on `issued_from` or later and before
    `issued_to`.
    """
    with product_of(request).database.transaction() as tx:
        who = principal_of(request).customer_id
        if customer is not None:
            who = _customer_id(tx, request, customer)
        found = billing.page(
            tx,
            after=paging.pair(after),
            limit=limit,
            customer_id=who,
            status=status,
            series=series,
            issued_from=issued_from,
            issued_to=issued_to,
        )
    key = paging.following(found, limit, lambda last: (last.customer_id, last.invoice_id))
    return {"invoices": [_invoice_value(one) for one in found], "next": key}


@get("/v1/invoices/{number:str}", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def show_invoice(request: Anyone, number: FromPath[str]) -> dict[str, Any]:
    """Return an invoice, its lines and its tax, by number."""
    product = product_of(request)
    with product.database.transaction() as tx:
        found = _invoice(tx, principal_of(request), number)
        view = billing.read(tx, product.keyring, found)
    return _invoice_value(found) | {
        "lines": [_line_value(line) for line in view.lines],
        "taxes": [_tax_value(row, found.currency) for row in view.taxes],
        **declaring.kept_value(view),
    }


@get("/v1/invoices/drafts", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_drafts(
    request: Anyone, after: FromQuery[str | None] = None, limit: PageSize = 50
) -> dict[str, Any]:
    """Return what the next runs will finalise, once their grace is over, of `limit` customers.

    Nothing of a draft is stored: it is what is owed and not billed at this moment.
    """
    unbound(principal_of(request))
    product = product_of(request)
    found, last = product.database.insist(
        lambda tx: explaining.drafts(
            tx,
            now=product.clock.now(),
            after=paging.one(after),
            limit=limit,
            can_pay=payments.payable,
            keyring=product.keyring,
        )
    )
    following = None if last is None else paging.following([last], 1, lambda one: one)
    return {"drafts": [explaining.draft_value(one) for one in found], "next": following}


@get("/v1/invoices/preview", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def preview(
    request: Anyone,
    *,
    customer: FromQuery[str],
    at: FromQuery[str | None] = None,
    plan: FromQuery[str | None] = None,
    seats: FromQuery[int | None] = None,
    when: FromQuery[When | None] = None,
) -> dict[str, Any]:
    """Return what would be billed next, or with a plan or seats, what that change would bill."""
    product = product_of(request)
    wish = None
    if plan is not None or seats is not None:
        wish = explaining.Wish(plan, seats, when)
    found = product.database.insist(
        lambda tx: explaining.preview(
            tx,
            customer_id=_customer_id(tx, request, customer),
            now=product.clock.now(),
            at=parse_instant(at, field="at") if at else None,
            wish=wish,
            can_pay=payments.payable,
            keyring=product.keyring,
        )
    )
    return explaining.preview_value(found)


@get(
    "/v1/invoices/{number:str}/lines/{line:int}/explain",
    opt=needs(Scope.INVOICES_READ),
    sync_to_thread=True,
)
def explain(
    request: Anyone,
    *,
    number: FromPath[str],
    line: FromPath[int],
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return why a line says what it says: price version, steps, period and a page of events."""
    with product_of(request).database.transaction() as tx:
        invoice = _invoice(tx, principal_of(request), number)
        found = explaining.explain(tx, invoice, line, after=paging.one(after), limit=limit)
    key = paging.following(found.events, limit, lambda last: last.event_key)
    return explaining.explanation_value(invoice, found) | {"next": key}


@post("/v1/invoices/{number:str}/credit", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def credit(
    tx: Tx, request: Anyone, number: FromPath[str], data: JSONBody[CreditBody]
) -> dict[str, Any]:
    """Give back all that is left of an invoice, an amount, or amounts of its lines."""
    unbound(principal_of(request))
    invoice = _invoice(tx, principal_of(request), number)
    lines = None
    if data.lines is not None:
        lines = {
            _line(number): Money.parse(text, invoice.currency, field="lines")
            for number, text in data.lines.items()
        }
    amount = None if data.amount is None else Money.parse(data.amount, invoice.currency)
    note = correcting.credit(
        tx,
        _issuer(product_of(request)),
        invoice=invoice,
        reason=data.reason,
        kind=data.kind,
        amount=amount,
        lines=lines,
    )
    return correcting.note_value(note, correcting.note_lines(tx, note))


@post(
    "/v1/invoices/{number:str}/void",
    status_code=200,
    opt=needs(Scope.BILLING_RUN),
    sync_to_thread=True,
)
@once
def void(
    tx: Tx, request: Anyone, number: FromPath[str], data: JSONBody[VoidBody]
) -> dict[str, str]:
    """Void an open invoice by a full credit note."""
    unbound(principal_of(request))
    invoice = _invoice(tx, principal_of(request), number)
    found = correcting.void(tx, _issuer(product_of(request)), invoice=invoice, how=data.how)
    return {"number": found.number_text, "status": found.status.value}


@post(
    "/v1/invoices/{number:str}/uncollectible",
    status_code=200,
    opt=needs(Scope.BILLING_RUN),
    sync_to_thread=True,
)
@once
def uncollectible(tx: Tx, request: Anyone, number: FromPath[str]) -> dict[str, str]:
    """Mark an open invoice as one that nobody will pay."""
    unbound(principal_of(request))
    invoice = _invoice(tx, principal_of(request), number)
    found = correcting.give_up(tx, _issuer(product_of(request)), invoice=invoice)
    return {"number": found.number_text, "status": found.status.value}


@get("/v1/credit-notes", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_credit_notes(
    request: Anyone,
    customer: FromQuery[str | None] = None,
    invoice: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of credit notes with their lines, of one customer or invoice where given."""
    with product_of(request).database.transaction() as tx:
        who, which = principal_of(request).customer_id, None
        if customer is not None:
            who = _customer_id(tx, request, customer)
        if invoice is not None:
            one = _invoice(tx, principal_of(request), invoice)
            if who not in {None, one.customer_id}:
                raise unknown_invoice()
            who, which = one.customer_id, one.invoice_id
        found = correcting.notes(
            tx, customer_id=who, invoice_id=which, after=paging.pair(after), limit=limit
        )
        shown = [correcting.note_value(one, correcting.note_lines(tx, one)) for one in found]
    key = paging.following(found, limit, lambda last: (last.customer_id, last.credit_note_id))
    return {"credit_notes": shown, "next": key}


@get("/v1/credit-notes/{number:str}", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def show_credit_note(request: Anyone, number: FromPath[str]) -> dict[str, Any]:
    """Return a credit note and its lines, by number."""
    with product_of(request).database.transaction() as tx:
        found = correcting.find_note(tx, number)
        if principal_of(request).customer_id not in {None, found.customer_id}:
            raise unknown_note()
        return correcting.note_value(found, correcting.note_lines(tx, found))


BILLING_ROUTES: Final = (
    list_invoices,
    show_invoice,
    list_drafts,
    preview,
    explain,
    credit,
    void,
    uncollectible,
    list_credit_notes,
    show_credit_note,
)


def _customer_id(tx: Tx, request: Anyone, customer: str) -> UUID:
    customer_id = customers.find(tx, customer).customer_id
    own(principal_of(request), customer_id)
    return customer_id


def _invoice(tx: Tx, principal: Principal, number: str) -> Invoice:
    found = billing.find_numbered(tx, number)
    if principal.customer_id not in {None, found.customer_id}:
        raise unknown_invoice()
    return found


def _issuer(product: App) -> billing.Issuer:
    now = product.clock.now()
    return billing.Issuer(product.settings.seller, product.keyring, now, now)


def _line(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _LINE_DIGITS_MAX:
        return int(text)
    raise Invalid("write the number of a line, such as 1", code="bad_line", field="lines")


def _invoice_value(found: Invoice) -> dict[str, Any]:
    def text(minor: int) -> str:
        return Money(minor, found.currency).text()

    return {
        "number": found.number_text,
        "customer": ids.typeid("cus", found.customer_id),
        "status": found.status,
        "currency": found.currency,
        "subtotal": text(found.subtotal),
        "discount": text(found.discount),
        "tax": text(found.tax),
        "total": text(found.total),
        "paid": text(found.paid),
        "credited": text(found.credited),
        "from_balance": text(found.from_balance),
        "due": found.due.text(),
        "issued_on": found.issued_on.isoformat(),
        "due_on": found.due_on.isoformat(),
    }


def _line_value(line: InvoiceLine) -> dict[str, Any]:
    return {
        "line": line.line_number,
        "description": line.description,
        "reason": line.reason,
        "quantity": quantity_text(line.quantity),
        "amount": Money(line.amount, line.currency).text(),
        "discount": Money(line.discount, line.currency).text(),
        "tax_category": line.tax_category,
        "period_start": instant_text(line.period_start),
        "period_end": instant_text(line.period_end),
    }


def _tax_value(row: TaxRow, currency: str) -> dict[str, Any]:
    return {
        "category": row.category,
        "rate": quantity_text(row.rate),
        "treatment": row.treatment,
        "net": Money(row.net, currency).text(),
        "tax": Money(row.tax, currency).text(),
        "reason": row.reason,
        "inclusive": row.inclusive,
    }
