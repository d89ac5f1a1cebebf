"""Everything that is not the hot path or a quota: usage, customers, subscriptions, invoices.

A handler reads its parameters, opens one transaction, calls one action and renders. Handlers are
plain functions and run in a thread; the key's scope is declared beside each.
"""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from convergio.api import tables
from convergio.api.hot import AskBody
from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import PUBLIC, own, unbound
from convergio.billing import actions as billing
from convergio.billing import documents
from convergio.billing.errors import unknown_invoice
from convergio.billing.model import Invoice
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.identity.model import Principal, Scope
from convergio.infra import ids, migrate
from convergio.infra.db import Tx
from convergio.kernel.errors import Unavailable
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text, parse_instant
from convergio.kernel.quantity import quantity_text
from convergio.metering import actions as metering
from convergio.metering.model import EPOCH, Event, Usage
from convergio.metering.retention import boundary
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Trial, TrialPolicy

UsagePage = Annotated[int, QueryParameter(ge=1, le=metering.PAGE_SIZE_MAX)]


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
    """A customer and the plan to put them on, from `start` (now when left out).

    With `trial_days` the paid periods begin after them; `without_method` says what follows where
    there is no payment method then: activate, pause or fall_back (to `fallback_plan`).
    """

    customer: Text
    plan: Text
    start: str | None = None
    time_zone: str = "UTC"
    seats: int = 1
    trial_days: int | None = None
    without_method: TrialPolicy = TrialPolicy.ACTIVATE
    fallback_plan: Text | None = None


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose subscription to cancel, and when."""

    customer: Text
    at_period_end: bool = True
    credit: bool = False


@post("/v1/events", status_code=202, opt=needs(Scope.USAGE_WRITE), sync_to_thread=False)
def count_events(data: JSONBody[list[Event]]) -> None:
    """Count CloudEvents, single or batch; served by the hot path, listed here for the document."""
    raise Unavailable("this route is served before the framework")


@post("/v1/authorize", opt=needs(Scope.QUOTA_WRITE), sync_to_thread=False)
def authorize(data: JSONBody[AskBody]) -> None:
    """Reserve quota; served by the hot path, listed here for the document."""
    raise Unavailable("this route is served before the framework")


@get(
    "/v1/usage",
    opt=needs(Scope.USAGE_READ),
    operation_class=tables.CsvToo,
    sync_to_thread=True,
)
def usage(
    request: Anyone,
    meter: FromQuery[str],
    by: FromQuery[str] = "month",
    customer: FromQuery[str | None] = None,
    since: Annotated[str | None, QueryParameter(name="from")] = None,
    until: Annotated[str | None, QueryParameter(name="to")] = None,
    time_zone: FromQuery[str] = "UTC",
    by_group: FromQuery[bool] = False,  # noqa: FBT002 - a parameter of the query, always named
    after: FromQuery[str | None] = None,
    limit: FromQuery[UsagePage] = metering.PAGE_SIZE_MAX,
    form: FromQuery[tables.Format] = None,
) -> Response[Any]:
    """Return metered usage in buckets of local time, right to the last committed event.

    `by_group` splits each bucket by what the meter groups by. A page has `limit` rows at most; send
    `next` back as `after` for the following one. As JSON, or as CSV with `format=csv` or
    `Accept: text/csv`.
    """
    product, principal = product_of(request), principal_of(request)
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
            by_group=by_group,
            after=_bucket(after) if after else None,
            size=limit,
        )
        gone = boundary(tx).gone_before
    rows = [_usage(row, by_group=by_group) for row in found]
    if tables.wants_csv(request, form):
        columns = ("start", *(("group",) if by_group else ()), "quantity", "events")
        return tables.as_csv(columns, rows, name="usage")
    following = None
    if len(found) == limit:
        following = f"{instant_text(found[-1].start)}|{found[-1].dimensions}"
    answer: dict[str, Any] = {"meter": meter, "by": by, "time_zone": time_zone, "usage": rows}
    answer["next"] = following
    if gone > EPOCH:
        answer["events_kept_from"] = instant_text(gone)
    return Response(answer)


@post("/v1/customers", opt=needs(Scope.CUSTOMERS_WRITE), sync_to_thread=True)
def create_customer(request: Anyone, data: JSONBody[CustomerBody]) -> dict[str, Any]:
    """Make a customer."""
    product = product_of(request)
    unbound(principal_of(request))
    with product.database.transaction() as tx:
        found = customers.create(
            tx, product.keyring, now=product.clock.now(), **msgspec.structs.asdict(data)
        )
    return _customer(found)


@get("/v1/customers/{customer:str}", opt=needs(Scope.CUSTOMERS_READ), sync_to_thread=True)
def show_customer(request: Anyone, customer: FromPath[str]) -> dict[str, Any]:
    """Return a customer with their personal fields."""
    product = product_of(request)
    with product.database.transaction() as tx:
        found = customers.find(tx, customer)
        own(principal_of(request), found.customer_id)
        personal = customers.personal(tx, product.keyring, found.customer_id)
    return _customer(found) | {
        "name": personal.name,
        "email": personal.email,
        "address": personal.address,
        "tax_id": personal.tax_id,
    }


@post("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS_WRITE), sync_to_thread=True)
def subscribe(request: Anyone, data: JSONBody[SubscriptionBody]) -> dict[str, Any]:
    """Put a customer on a plan at the prices that it sells today."""
    product = product_of(request)
    now = product.clock.now()
    start = parse_instant(data.start, field="start") if data.start else now
    trial = None
    if data.trial_days is not None:
        trial = Trial(data.trial_days, data.without_method, data.fallback_plan)
    with product.database.transaction() as tx:
        customer_id = customers.find(tx, data.customer).customer_id
        own(principal_of(request), customer_id)
        created = subscriptions.create(
            tx,
            customer_id=customer_id,
            plan_key=data.plan,
            start=start,
            now=now,
            time_zone=data.time_zone,
            seats=data.seats,
            trial=trial,
        )
    return changes.value(created)


@post(
    "/v1/subscriptions/cancel",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
def cancel(request: Anyone, data: JSONBody[CancelBody]) -> dict[str, Any]:
    """Cancel a customer's live subscription, now or at the end of its period."""
    product = product_of(request)
    with product.database.transaction() as tx:
        customer_id = customers.find(tx, data.customer).customer_id
        own(principal_of(request), customer_id)
        canceled = subscriptions.cancel(
            tx,
            customer_id=customer_id,
            at_period_end=data.at_period_end,
            credit=data.credit,
            now=product.clock.now(),
        )
    return changes.value(canceled)


@get("/v1/invoices", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_invoices(
    request: Anyone,
    customer: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of invoices; send `next` back as `after` for the following page."""
    product, principal = product_of(request), principal_of(request)
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


@get("/v1/invoices/{number:str}", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def show_invoice(request: Anyone, number: FromPath[str]) -> dict[str, Any]:
    """Return an invoice and its lines, by number."""
    product, principal = product_of(request), principal_of(request)
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


@get("/v1/invoices/{number:str}/pdf", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def invoice_pdf(request: Anyone, number: FromPath[str]) -> Response[bytes]:
    """Return an invoice as PDF."""
    product, principal = product_of(request), principal_of(request)
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
    found = migrate.revision(product_of(request).database)
    if found != migrate.NEWEST:
        raise Unavailable("the database is not at the newest schema; run `convergio migrate`")
    return {"status": "ready"}


ROUTES: Final = (
    count_events,
    authorize,
    usage,
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


def _numbered(tx: Tx, principal: Principal, number: str) -> Invoice:
    found = billing.find_numbered(tx, number)
    if principal.customer_id not in {None, found.customer_id}:
        raise unknown_invoice()
    return found


def _bucket(text: str) -> tuple[datetime, str]:
    start, _, dimensions = text.partition("|")
    return parse_instant(start, field="after"), dimensions


def _usage(row: Usage, *, by_group: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"start": instant_text(row.start)}
    if by_group:
        found["group"] = f"[{row.dimensions}]"
    return found | {"quantity": quantity_text(row.quantity), "events": row.events}


def _position(text: str) -> tuple[UUID, UUID]:
    customer, _, invoice = text.partition(".")
    return ids.parse_typeid("cus", customer), ids.parse_typeid("inv", invoice)


def _customer(found: Customer) -> dict[str, Any]:
    return {
        "id": ids.typeid("cus", found.customer_id),
        "key": found.customer_key,
        "currency": found.currency,
        "country": found.country,
        "locale": found.locale,
        "created_at": instant_text(found.created_at),
    }


def _invoice(found: Invoice) -> dict[str, Any]:
    return {
        "number": found.number_text,
        "customer": ids.typeid("cus", found.customer_id),
        "status": found.status,
        "currency": found.currency,
        "total": Money(found.total, found.currency).text(),
        "paid": Money(found.paid, found.currency).text(),
        "credited": Money(found.credited, found.currency).text(),
        "from_balance": Money(found.from_balance, found.currency).text(),
        "due": found.due.text(),
        "issued_on": found.issued_on.isoformat(),
        "due_on": found.due_on.isoformat(),
    }
