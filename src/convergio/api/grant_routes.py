"""Prepaid credit over HTTP: grant units or money, list what is left, void the rest.

Granting and voiding is the seller's alone; a customer's own key may read what it has left.
"""

from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api import paging
from convergio.api.once import once
from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.customers import actions as customers
from convergio.discounts import actions as discounts
from convergio.entitlements import grants
from convergio.entitlements.describing import grant_value
from convergio.entitlements.model import Category, GrantTerms
from convergio.identity.model import Scope
from convergio.infra import ids
from convergio.infra.db import Tx
from convergio.kernel.periods import parse_instant
from convergio.kernel.quantity import parse_quantity


class GrantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units of a `meter`, or an `amount` in major units of the customer's currency.

    `key` is the seller's own name of the grant: sent again it is the same grant. It counts from
    `starts_at` (now when left out) until `expires_at` (never when left out); a lower `priority` is
    drawn first.
    """

    key: Text
    category: Category
    meter: Text | None = None
    quantity: str | None = None
    amount: str | None = None
    priority: int = 100
    starts_at: str | None = None
    expires_at: str | None = None
    note: str = ""


@post("/v1/customers/{customer:str}/credit-grants", opt=needs(Scope.ADMIN), sync_to_thread=True)
@once
def create_grant(
    tx: Tx, request: Anyone, customer: FromPath[str], data: JSONBody[GrantBody]
) -> dict[str, Any]:
    """Grant prepaid credit; usage beyond what is included draws it from the next request on."""
    unbound(principal_of(request))
    now = product_of(request).clock.now()
    terms = GrantTerms(
        key=data.key,
        category=data.category,
        meter_key=data.meter,
        quantity=None if data.quantity is None else parse_quantity(data.quantity),
        amount=data.amount,
        priority=data.priority,
        starts_at=parse_instant(data.starts_at, field="starts_at") if data.starts_at else None,
        expires_at=parse_instant(data.expires_at, field="expires_at") if data.expires_at else None,
        note=data.note,
    )
    grant = grants.create(tx, customer, terms, now=now)
    drawn = discounts.drawn_of_grants(tx, [grant.customer_id])
    return grant_value(grants.state_of(tx, grant, now=now, money_drawn=drawn))


@get("/v1/customers/{customer:str}/credit-grants", opt=needs(Scope.QUOTA_READ), sync_to_thread=True)
def list_grants(
    request: Anyone,
    customer: FromPath[str],
    *,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a customer's grants in the order of their creation, and what is left of each."""
    product = product_of(request)
    with product.database.snapshot() as tx:
        who: UUID = customers.find(tx, customer).customer_id
        own(principal_of(request), who)
        found = grants.page(
            tx,
            who,
            now=product.clock.now(),
            after=paging.one(after),
            size=limit,
            money_drawn=discounts.drawn_of_grants(tx, [who]),
        )
    key = paging.following(found, limit, lambda last: last.grant.grant_id)
    return {"grants": [grant_value(one) for one in found], "next": key}


@post(
    "/v1/customers/{customer:str}/credit-grants/{grant:str}/void",
    status_code=200,
    opt=needs(Scope.ADMIN),
    sync_to_thread=True,
)
@once
def void_grant(
    tx: Tx, request: Anyone, customer: FromPath[str], grant: FromPath[str]
) -> dict[str, Any]:
    """Take back what usage has not drawn so far; usage of before now still draws it."""
    unbound(principal_of(request))
    now = product_of(request).clock.now()
    voided = grants.void(tx, customer, ids.parse_typeid("crg", grant), now=now)
    drawn = discounts.drawn_of_grants(tx, [voided.customer_id])
    return grant_value(grants.state_of(tx, voided, now=now, money_drawn=drawn))


GRANT_ROUTES: Final = (create_grant, list_grants, void_grant)
