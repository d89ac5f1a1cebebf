"""Quotas over HTTP: what is left and why not more, reservations, leases and spend caps.

A denial is a problem document with its `reason`: 429 for `limit_reached`, 402 for `spend_cap`, 403
for `suspended` and `no_subscription`, 404 for what does not exist. Where waiting helps it says
`resets_at` and Retry-After.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api.hot import denial
from convergio.api.once import once
from convergio.api.requests import (
    Anyone,
    PageSize,
    Text,
    needs,
    own_key,
    principal_of,
    product_of,
    quantity_or_none,
)
from convergio.api.security import own
from convergio.customers import actions as customers
from convergio.entitlements import leases, rules, spending
from convergio.entitlements.model import Denied, Leased, Reservation
from convergio.identity.model import Scope
from convergio.infra import ids
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import parse_quantity, quantity_text
from convergio.metering.rules import QUANTITY_MAX

Sequence = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class SettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose reservation to settle; `actual` is what was really used, all of it when left out."""

    customer: Text
    actual: str | None = None


class LeaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node wants so much in hand; with a `lease` id of its own it may ask again unanswered."""

    customer: Text
    meter: Text
    wanted: str
    lease: str | None = None


class RenewBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Report number `sequence`: used since the lease began, and what the node wants in hand."""

    customer: Text
    used: str
    sequence: Sequence
    wanted: str = "0"


class LeaseSettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The final sum of what was used; the rest is given back."""

    customer: Text
    used: str


class LostBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose lease an operator gives up as lost."""

    customer: Text


class CapBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What overage may come to in the current windows, in major units; null for no cap."""

    amount: str | None


@get("/v1/quota", opt=needs(Scope.QUOTA_READ), sync_to_thread=True)
def quota(request: Anyone, customer: FromQuery[str], meter: FromQuery[str]) -> dict[str, Any]:
    """Return a quota: limit, used, reserved, remaining, when it resets, and why not more."""
    product = product_of(request)
    own_key(product, principal_of(request), customer)
    found = product.gate.quota(customer, meter, now=product.clock.now())
    return {
        "customer": customer,
        "meter": meter,
        "limit": quantity_or_none(found.limit),
        "included": quantity_or_none(found.included),
        "used": quantity_text(found.used),
        "reserved": quantity_text(found.reserved),
        "remaining": quantity_or_none(found.remaining),
        "overage": quantity_or_none(found.overage),
        "credit": quantity_text(found.credit),
        "resets_at": instant_text(found.resets_at),
        "access": found.access,
        "reason": found.reason,
        "spend_cap": _money(found.spend_cap),
        "spend": _money(found.spend),
    }


@post(
    "/v1/reservations/{reservation:str}/commit",
    status_code=200,
    opt=needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def commit(
    request: Anyone, reservation: FromPath[str], data: JSONBody[SettleBody]
) -> dict[str, Any]:
    """Count what was really used and give back what was held."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
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
    opt=needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def release(
    request: Anyone, reservation: FromPath[str], data: JSONBody[SettleBody]
) -> dict[str, Any]:
    """Give back what was held."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
    settled = product.gate.release(
        data.customer, ids.parse_typeid("rsv", reservation), now=product.clock.now()
    )
    return _reservation(settled)


@post("/v1/leases", opt=needs(Scope.QUOTA_WRITE), sync_to_thread=True)
def acquire(request: Anyone, data: JSONBody[LeaseBody]) -> Response[Any]:
    """Hand a slice of a quota to a node, which decides alone within it for at most a minute."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
    now = product.clock.now()
    found = product.gate.leases.acquire(
        data.customer,
        data.meter,
        _wanted(data.wanted, least=True),
        lease_id=ids.parse_typeid("lea", data.lease) if data.lease is not None else None,
        now=now,
    )
    if isinstance(found, Denied):
        status, media, body, headers = denial(found, now=now)
        return Response(body, status_code=status, media_type=media.decode(), headers=headers)
    return Response(_leased(found, now=now), status_code=201)


@post(
    "/v1/leases/{lease:str}/renew",
    status_code=200,
    opt=needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def renew(request: Anyone, lease: FromPath[str], data: JSONBody[RenewBody]) -> dict[str, Any]:
    """Count what a node used so far and grant more; the same report twice is one."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
    now = product.clock.now()
    found = product.gate.leases.renew(
        data.customer,
        ids.parse_typeid("lea", lease),
        used=parse_quantity(data.used, field="used"),
        sequence=data.sequence,
        wanted=_wanted(data.wanted, least=False),
        now=now,
    )
    return _leased(found, now=now)


@post(
    "/v1/leases/{lease:str}/settle",
    status_code=200,
    opt=needs(Scope.QUOTA_WRITE),
    sync_to_thread=True,
)
def settle(
    request: Anyone, lease: FromPath[str], data: JSONBody[LeaseSettleBody]
) -> dict[str, Any]:
    """Count what a node used in all and take the rest back; also after the lease expired."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
    now = product.clock.now()
    found = product.gate.leases.settle(
        data.customer,
        ids.parse_typeid("lea", lease),
        used=parse_quantity(data.used, field="used"),
        now=now,
    )
    return _leased(found, now=now)


@post(
    "/v1/leases/{lease:str}/declare-lost",
    status_code=200,
    opt=needs(Scope.ADMIN),
    sync_to_thread=True,
)
def declare_lost(request: Anyone, lease: FromPath[str], data: JSONBody[LostBody]) -> dict[str, Any]:
    """Give back what an expired lease holds, on an operator's word that its node is gone."""
    product = product_of(request)
    own_key(product, principal_of(request), data.customer)
    now = product.clock.now()
    lease_id = ids.parse_typeid("lea", lease)
    found = product.database.insist(
        lambda tx: leases.declare_lost(tx, data.customer, lease_id, now=now)
    )
    return _leased(Leased(found), now=now)


@get("/v1/customers/{customer:str}/leases", opt=needs(Scope.QUOTA_READ), sync_to_thread=True)
def list_leases(
    request: Anyone,
    customer: FromPath[str],
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
    expired: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
) -> dict[str, Any]:
    """Return a customer's open leases, or only those whose node is late."""
    product = product_of(request)
    own_key(product, principal_of(request), customer)
    now = product.clock.now()
    last = ids.parse_typeid("lea", after) if after else UUID(int=0)
    with product.database.transaction() as tx:
        who = customers.find(tx, customer).customer_id
        found = leases.page(
            tx,
            after=(who, last),
            size=limit,
            customer_id=who,
            expired_by=now if expired else None,
        )
    following = ids.typeid("lea", found[-1].lease_id) if len(found) == limit else None
    return {"leases": [_leased(Leased(one), now=now) for one in found], "next": following}


@put(
    "/v1/customers/{customer:str}/spend-cap", opt=needs(Scope.CUSTOMERS_WRITE), sync_to_thread=True
)
@once
def set_spend_cap(
    tx: Tx, request: Anyone, customer: FromPath[str], data: JSONBody[CapBody]
) -> dict[str, Any]:
    """Set what a customer's overage may come to; null takes the cap away."""
    product = product_of(request)
    own(principal_of(request), customers.find(tx, customer).customer_id)
    money = spending.set_cap(tx, customer, data.amount, now=product.clock.now())
    return {"customer": customer, "spend_cap": _money(money)}


QUOTA_ROUTES: Final = (
    quota,
    commit,
    release,
    acquire,
    renew,
    settle,
    declare_lost,
    list_leases,
    set_spend_cap,
)


def _wanted(text: str, *, least: bool) -> Decimal:
    """Read how much a node wants: for a new lease more than nothing. Raises: Invalid."""
    wanted = parse_quantity(text, field="wanted")
    if wanted >= QUANTITY_MAX or (least and not wanted):
        detail = "ask for more than 0 and less than 10^18"
        raise Invalid(detail, code="bad_quantity", field="wanted")
    return wanted


def _money(found: Money | None) -> dict[str, str] | None:
    return None if found is None else {"amount": found.text(), "currency": found.currency}


def _reservation(found: Reservation) -> dict[str, Any]:
    return {
        "reservation": ids.typeid("rsv", found.reservation_id),
        "state": found.state,
        "held": quantity_text(found.quantity),
        "settled": quantity_or_none(found.settled),
    }


def _leased(found: Leased, *, now: datetime) -> dict[str, Any]:
    """Render a lease; `expires_in_ms` spares the node a comparison of two clocks."""
    lease = found.lease
    left = max(0, (lease.expires_at - now) // timedelta(milliseconds=1))
    return {
        "lease": ids.typeid("lea", lease.lease_id),
        "state": lease.state,
        "granted": quantity_text(lease.granted),
        "used": quantity_text(lease.used),
        "remaining": quantity_text(rules.held(lease)),
        "sequence": lease.sequence,
        "expires_at": instant_text(lease.expires_at),
        "expires_in_ms": left if lease.state == "open" else 0,
        "reason": found.reason,
    }
