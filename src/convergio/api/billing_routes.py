"""Changes of subscriptions, previews, explanations and credit notes over HTTP.

A handler reads its parameters, opens one transaction, calls one action and renders.
"""

from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.billing import actions as billing
from convergio.billing import correcting, explaining
from convergio.billing.errors import unknown_invoice
from convergio.billing.model import CreditKind, Invoice, Voiding
from convergio.customers import actions as customers
from convergio.identity.model import Principal, Scope
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid, NotFound
from convergio.kernel.money import Money
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from convergio.wiring import App

_LINE_DIGITS_MAX: Final = 9


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another plan or number of seats; without `when`, more takes effect now and less later."""

    customer: Text
    plan: Text | None = None
    seats: int | None = None
    when: When | None = None


class WhoseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose subscription."""

    customer: Text


class CreditBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, and how much: an amount, amounts of lines by number, or all that is left."""

    reason: Text
    amount: Text | None = None
    lines: dict[str, str] | None = None
    kind: CreditKind = CreditKind.CONCESSION


class VoidBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether what a void invoice billed is billed again (`reissue`) or given away (`waive`)."""

    how: Voiding


@get("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS_READ), sync_to_thread=True)
def show_subscriptions(request: Anyone, customer: FromQuery[str]) -> dict[str, Any]:
    """Return a customer's subscriptions, the oldest first, with the change that waits."""
    with product_of(request).database.transaction() as tx:
        customer_id = _customer_id(tx, request, customer)
        every = subscriptions.history(tx, customer_id)
        shown = [changes.value(one, changes.pending(tx, one)) for one in every]
    return {"subscriptions": shown}


@post(
    "/v1/subscriptions/change",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
def change(request: Anyone, data: JSONBody[ChangeBody]) -> dict[str, Any]:
    """Put a customer on another plan or number of seats."""
    product = product_of(request)
    with product.database.transaction() as tx:
        changed = changes.change(
            tx,
            customer_id=_customer_id(tx, request, data.customer),
            plan_key=data.plan,
            seats=data.seats,
            when=data.when,
            now=product.clock.now(),
        )
        return changes.value(changed, changes.pending(tx, changed))


@post(
    "/v1/subscriptions/{verb:str}",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
def move(request: Anyone, verb: FromPath[str], data: JSONBody[WhoseBody]) -> dict[str, Any]:
    """Pause, resume or reactivate a subscription, or drop the change that waits."""
    verbs = {
        "pause": changes.pause,
        "resume": changes.resume,
        "reactivate": changes.reactivate,
        "drop-change": changes.drop_change,
    }
    if verb not in verbs:
        detail = f"write one of {', '.join(verbs)}, change or cancel"
        raise NotFound(detail, code="unknown_verb", field="verb")
    product = product_of(request)
    with product.database.transaction() as tx:
        customer_id = _customer_id(tx, request, data.customer)
        return changes.value(verbs[verb](tx, customer_id=customer_id, now=product.clock.now()))


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
    with product.database.transaction() as tx:
        found = explaining.preview(
            tx,
            customer_id=_customer_id(tx, request, customer),
            now=product.clock.now(),
            at=parse_instant(at, field="at") if at else None,
            wish=wish,
            can_pay=payments.payable,
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
        found = explaining.explain(tx, invoice, line, after=_key(after), limit=limit)
    return explaining.explanation_value(invoice, found)


@post("/v1/invoices/{number:str}/credit", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
def credit(request: Anyone, number: FromPath[str], data: JSONBody[CreditBody]) -> dict[str, Any]:
    """Give back a part of an invoice by a credit note."""
    unbound(principal_of(request))
    product = product_of(request)
    with product.database.transaction() as tx:
        invoice = _invoice(tx, principal_of(request), number)
        lines = None
        if data.lines is not None:
            lines = {_line(k): Money.parse(v, invoice.currency) for k, v in data.lines.items()}
        amount = None if data.amount is None else Money.parse(data.amount, invoice.currency)
        note = correcting.credit(
            tx,
            _issuer(product),
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
def void(request: Anyone, number: FromPath[str], data: JSONBody[VoidBody]) -> dict[str, str]:
    """Void an open invoice by a full credit note."""
    unbound(principal_of(request))
    product = product_of(request)
    with product.database.transaction() as tx:
        invoice = _invoice(tx, principal_of(request), number)
        found = correcting.void(tx, _issuer(product), invoice=invoice, how=data.how)
    return {"number": found.number_text, "status": found.status.value}


@post(
    "/v1/invoices/{number:str}/uncollectible",
    status_code=200,
    opt=needs(Scope.BILLING_RUN),
    sync_to_thread=True,
)
def uncollectible(request: Anyone, number: FromPath[str]) -> dict[str, str]:
    """Mark an open invoice as one that nobody will pay."""
    unbound(principal_of(request))
    product = product_of(request)
    with product.database.transaction() as tx:
        invoice = _invoice(tx, principal_of(request), number)
        found = correcting.give_up(tx, _issuer(product), invoice=invoice)
    return {"number": found.number_text, "status": found.status.value}


@get("/v1/credit-notes", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_credit_notes(
    request: Anyone, customer: FromQuery[str], limit: PageSize = 50
) -> dict[str, Any]:
    """Return a customer's credit notes, the oldest first."""
    with product_of(request).database.transaction() as tx:
        customer_id = _customer_id(tx, request, customer)
        found = correcting.notes(tx, customer_id=customer_id, limit=limit)
        shown = [correcting.note_value(one, correcting.note_lines(tx, one)) for one in found]
    return {"credit_notes": shown}


BILLING_ROUTES: Final = (
    show_subscriptions,
    change,
    move,
    preview,
    explain,
    credit,
    void,
    uncollectible,
    list_credit_notes,
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


def _key(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        detail = "write `next` of the page before"
        raise Invalid(detail, code="bad_cursor", field="after") from None
