"""Everything that is not the hot path: usage, quotas, customers, subscriptions, invoices.

A handler reads its parameters, opens one transaction, calls one action and renders. Handlers are
plain functions and run in a thread; the key's scope is declared beside each.
"""

from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.params import Parameter

from convergio.api.hot import AskBody
from convergio.api.security import PUBLIC, SCOPE_KEY, own
from convergio.billing import actions as billing
from convergio.billing import documents
from convergio.billing.model import Invoice
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.entitlements.model import Reservation
from convergio.identity.model import Principal, Scope
from convergio.infra import ids, migrate
from convergio.infra.db import Tx
from convergio.kernel.errors import NotFound, Unavailable
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text, parse_instant
from convergio.kernel.quantity import parse_quantity, quantity_text
from convergio.metering import actions as metering
from convergio.metering.model import Event
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Subscription
from convergio.wiring import App

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*\Z")]
PageSize = Annotated[int, Parameter(ge=1, le=100)]
Anyone = Request[Any, Any, Any]


def _needs(scope: Scope) -> dict[str, Any]:
    return {SCOPE_KEY: scope}


def _product(request: Anyone) -> App:
    product: App = request.app.state.product
    return product


def _principal(request: Anyone) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


class CustomerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new customer; personal fields are sealed before they are stored."""

    key: Text
    currency: str = "usd"
    name: str | None = None
    email: str | None = None
    address: str | None = None
    tax_id: str | None = None
    country: str | None = None
    locale: str = "en"


class SubscriptionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer and the plan to put them on, from `start` (now when left out)."""

    customer: Text
    plan: Text
    start: str | None = None
    time_zone: str = "UTC"
    seats: int = 1


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose subscription to cancel, and when."""

    customer: Text
    at_period_end: bool = True


class SettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose reservation to settle; `actual` is what was really used, all of it when left out."""

    customer: Text
    actual: str | None = None


@post("/v1/events", status_code=202, opt=_needs(Scope.USAGE_WRITE), sync_to_thread=False)
def count_events(data: list[Event]) -> None:
    """Count CloudEvents, single or batch; served by the hot path, listed here for the document."""
    raise Unavailable("this route is served before the framework")


@post("/v1/authorize", opt=_needs(Scope.QUOTA_WRITE), sync_to_thread=False)
def authorize(data: AskBody) -> None:
    """Reserve quota; served by the hot path, listed here for the document."""
    raise Unavailable("this route is served before the framework")


@get("/v1/usage", opt=_needs(Scope.USAGE_READ), sync_to_thread=True)
def usage(
    request: Anyone,
    meter: str,
    by: str = "month",
    customer: str | None = None,
    since: Annotated[str | None, Parameter(query="from")] = None,
    until: Annotated[str | None, Parameter(query="to")] = None,
    time_zone: str = "UTC",
) -> dict[str, Any]:
    """Return metered usage in buckets of local time, right to the last committed event."""
    product, principal = _product(request), _principal(request)
    start = parse_instant(since, field="from") if since else None
    end = parse_instant(until, field="to") if until else None
    with product.database.transaction() as tx:
        customer_id = principal.customer_id
        if customer is not None:
            customer_id = customers.find(tx, customer).customer_id
            own(principal, customer_id)
        found = metering.usage(
            tx,
            meter_key=meter,
            by=by,
            time_zone=time_zone,
            customer_id=customer_id,
            since=start,
            until=end,
        )
    rows = [
        {
            "start": instant_text(row.start),
            "quantity": quantity_text(row.quantity),
            "events": row.events,
        }
        for row in found
    ]
    return {"meter": meter, "by": by, "time_zone": time_zone, "usage": rows}


@get("/v1/quota", opt=_needs(Scope.QUOTA_READ), sync_to_thread=True)
def quota(request: Anyone, customer: str, meter: str) -> dict[str, Any]:
    """Return a quota: limit, used, reserved, remaining and when it resets."""
    product = _product(request)
    _own_key(product, _principal(request), customer)
    found = product.gate.quota(customer, meter, now=product.clock.now())
    return {
        "customer": customer,
        "meter": meter,
        "limit": _quantity(found.limit),
        "included": _quantity(found.included),
        "used": quantity_text(found.used),
        "reserved": quantity_text(found.reserved),
        "remaining": _quantity(found.remaining),
        "resets_at": instant_text(found.resets_at),
        "access": found.access,
    }


@post(
    "/v1/reservations/{reservation:str}/commit",
    status_code=200,
    opt=_needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def commit(request: Anyone, reservation: str, data: SettleBody) -> dict[str, Any]:
    """Count what was really used and give back what was held."""
    product = _product(request)
    _own_key(product, _principal(request), data.customer)
    actual = parse_quantity(data.actual, field="actual") if data.actual is not None else None
    settled = product.gate.commit(
        data.customer,
        ids.parse_typeid("rsv", reservation),
        actual=actual,
        now=product.clock.now(),
    )
    return _reservation(settled)


@post(
    "/v1/reservations/{reservation:str}/release",
    status_code=200,
    opt=_needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def release(request: Anyone, reservation: str, data: SettleBody) -> dict[str, Any]:
    """Give back what was held."""
    product = _product(request)
    _own_key(product, _principal(request), data.customer)
    settled = product.gate.release(
        data.customer, ids.parse_typeid("rsv", reservation), now=product.clock.now()
    )
    return _reservation(settled)


@post("/v1/customers", opt=_needs(Scope.CUSTOMERS_WRITE), sync_to_thread=True)
def create_customer(request: Anyone, data: CustomerBody) -> dict[str, Any]:
    """Make a customer."""
    product = _product(request)
    with product.database.transaction() as tx:
        found = customers.create(
            tx, product.keyring, now=product.clock.now(), **msgspec.structs.asdict(data)
        )
    return _customer(found)


@get("/v1/customers/{customer:str}", opt=_needs(Scope.CUSTOMERS_READ), sync_to_thread=True)
def show_customer(request: Anyone, customer: str) -> dict[str, Any]:
    """Return a customer with their personal fields."""
    product = _product(request)
    with product.database.transaction() as tx:
        found = customers.find(tx, customer)
        own(_principal(request), found.customer_id)
        personal = customers.personal(tx, product.keyring, found.customer_id)
    return _customer(found) | {
        "name": personal.name,
        "email": personal.email,
        "address": personal.address,
        "tax_id": personal.tax_id,
    }


@post("/v1/subscriptions", opt=_needs(Scope.SUBSCRIPTIONS_WRITE), sync_to_thread=True)
def subscribe(request: Anyone, data: SubscriptionBody) -> dict[str, Any]:
    """Put a customer on a plan at the prices that it sells today."""
    product = _product(request)
    now = product.clock.now()
    start = parse_instant(data.start, field="start") if data.start else now
    with product.database.transaction() as tx:
        customer_id = customers.find(tx, data.customer).customer_id
        own(_principal(request), customer_id)
        created = subscriptions.create(
            tx,
            customer_id=customer_id,
            plan_key=data.plan,
            start=start,
            now=now,
            time_zone=data.time_zone,
            seats=data.seats,
        )
    return _subscription(created)


@post(
    "/v1/subscriptions/cancel",
    status_code=200,
    opt=_needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
def cancel(request: Anyone, data: CancelBody) -> dict[str, Any]:
    """Cancel a customer's live subscription, now or at the end of its period."""
    product = _product(request)
    with product.database.transaction() as tx:
        customer_id = customers.find(tx, data.customer).customer_id
        own(_principal(request), customer_id)
        canceled = subscriptions.cancel(
            tx,
            customer_id=customer_id,
            at_period_end=data.at_period_end,
            now=product.clock.now(),
        )
    return _subscription(canceled)


@get("/v1/invoices", opt=_needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_invoices(
    request: Anyone,
    customer: str | None = None,
    after: str | None = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of invoices; send `next` back as `after` for the following page."""
    product, principal = _product(request), _principal(request)
    with product.database.transaction() as tx:
        customer_id = principal.customer_id
        if customer is not None:
            customer_id = customers.find(tx, customer).customer_id
            own(principal, customer_id)
        position = _position(after) if after else _FIRST
        found = billing.page(tx, after=position, limit=limit, customer_id=customer_id)
    last = found[-1] if len(found) == limit else None
    following = None
    if last is not None:
        following = f"{ids.typeid('cus', last.customer_id)}.{ids.typeid('inv', last.invoice_id)}"
    return {"invoices": [_invoice(one) for one in found], "next": following}


@get("/v1/invoices/{number:str}", opt=_needs(Scope.INVOICES_READ), sync_to_thread=True)
def show_invoice(request: Anyone, number: str) -> dict[str, Any]:
    """Return an invoice and its lines, by number."""
    product, principal = _product(request), _principal(request)
    with product.database.transaction() as tx:
        found = _numbered(tx, principal, number)
        view = billing.read(tx, product.keyring, found)
    lines = [
        {
            "description": line.description,
            "reason": line.reason,
            "quantity": quantity_text(line.quantity),
            "amount": Money(line.amount, line.currency).text(),
            "period_start": instant_text(line.period_start),
            "period_end": instant_text(line.period_end),
        }
        for line in view.lines
    ]
    return _invoice(found) | {"lines": lines}


@get("/v1/invoices/{number:str}/pdf", opt=_needs(Scope.INVOICES_READ), sync_to_thread=True)
def invoice_pdf(request: Anyone, number: str) -> Response[bytes]:
    """Return an invoice as PDF."""
    product, principal = _product(request), _principal(request)
    with product.database.transaction() as tx:
        found = _numbered(tx, principal, number)
        view = billing.read(tx, product.keyring, found)
    return Response(
        documents.render(documents.of(view, product.settings.seller)),
        media_type="application/pdf",
        headers={"content-disposition": f'attachment; filename="{found.number_text}.pdf"'},
    )


@get("/readyz", opt={PUBLIC: True}, sync_to_thread=True)
def ready(request: Anyone) -> dict[str, str]:
    """Say whether this server can do its work: the database is there, at the newest schema."""
    found = migrate.revision(_product(request).database)
    if found != migrate.NEWEST:
        raise Unavailable("the database is not at the newest schema; run `convergio migrate`")
    return {"status": "ready"}


ROUTES: Final = (
    count_events,
    authorize,
    usage,
    quota,
    commit,
    release,
    create_customer,
    show_customer,
    subscribe,
    cancel,
    list_invoices,
    show_invoice,
    invoice_pdf,
    ready,
)
_FIRST: Final = (UUID(int=0), UUID(int=0))


def _own_key(product: App, principal: Principal, customer: str) -> None:
    if principal.customer_id is not None:
        with product.database.transaction() as tx:
            own(principal, customers.find(tx, customer).customer_id)


def _numbered(tx: Tx, principal: Principal, number: str) -> Invoice:
    found = billing.find_numbered(tx, number)
    if principal.customer_id not in {None, found.customer_id}:
        raise NotFound(f"there is no invoice {number[:40]}", code="unknown_invoice", field="number")
    return found


def _position(text: str) -> tuple[UUID, UUID]:
    customer, _, invoice = text.partition(".")
    return ids.parse_typeid("cus", customer), ids.parse_typeid("inv", invoice)


def _quantity(value: Decimal | None) -> str | None:
    return None if value is None else quantity_text(value)


def _reservation(found: Reservation) -> dict[str, Any]:
    return {
        "reservation": ids.typeid("rsv", found.reservation_id),
        "state": found.state,
        "held": quantity_text(found.quantity),
        "settled": _quantity(found.settled),
    }


def _customer(found: Customer) -> dict[str, Any]:
    return {
        "id": ids.typeid("cus", found.customer_id),
        "key": found.customer_key,
        "currency": found.currency,
        "country": found.country,
        "locale": found.locale,
        "created_at": instant_text(found.created_at),
    }


def _subscription(found: Subscription) -> dict[str, Any]:
    return {
        "id": ids.typeid("sub", found.subscription_id),
        "customer": ids.typeid("cus", found.customer_id),
        "plan": found.plan_key,
        "status": found.status,
        "started_at": instant_text(found.started_at),
        "cancel_at": instant_text(found.cancel_at) if found.cancel_at else None,
    }


def _invoice(found: Invoice) -> dict[str, Any]:
    return {
        "number": found.number_text,
        "customer": ids.typeid("cus", found.customer_id),
        "status": found.status,
        "currency": found.currency,
        "total": Money(found.total, found.currency).text(),
        "paid": Money(found.paid, found.currency).text(),
        "issued_on": found.issued_on.isoformat(),
        "due_on": found.due_on.isoformat(),
    }
