"""Usage, readiness, and the twins of the hot routes.

A handler reads its parameters, opens one transaction, calls one action and renders. Handlers are
plain functions and run in a thread; the key's scope is declared beside each.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from litestar import Response, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter

from convergio.api import tables
from convergio.api.hot import AskBody
from convergio.api.requests import Anyone, needs, principal_of, product_of
from convergio.api.security import PUBLIC, own
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra import migrate
from convergio.kernel.errors import Unavailable
from convergio.kernel.periods import instant_text, parse_instant
from convergio.kernel.quantity import quantity_text
from convergio.metering import actions as metering
from convergio.metering.model import EPOCH, Event, Usage
from convergio.metering.retention import boundary

UsagePage = Annotated[int, QueryParameter(ge=1, le=metering.PAGE_SIZE_MAX)]


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
            now=product.clock.now(),
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
    ready,
)


def _bucket(text: str) -> tuple[datetime, str]:
    start, _, dimensions = text.partition("|")
    return parse_instant(start, field="after"), dimensions


def _usage(row: Usage, *, by_group: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"start": instant_text(row.start)}
    if by_group:
        found["group"] = f"[{row.dimensions}]"
    return found | {"quantity": quantity_text(row.quantity), "events": row.events}
