"""Coupons over HTTP: offer, list and archive them, redeem a code for a customer.

Whoever redeems hears the same answer for every code that does not work, and the limit of requests
of a key bounds how many can be tried.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api import paging
from convergio.api.once import once
from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.billing import redeeming
from convergio.customers import actions as customers
from convergio.discounts import actions, describing
from convergio.discounts.model import Duration, Terms
from convergio.identity.model import Scope
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money, parse_rate
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments


class CouponBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A percentage off lines, or an amount in a currency off each period, before tax."""

    code: Text
    name: Text | None = None
    percent: Text | None = None
    amount: Text | None = None
    currency: Text | None = None
    duration: Duration = Duration.ONCE
    periods: int | None = None
    plans: tuple[Text, ...] = ()
    prices: tuple[Text, ...] = ()
    redeem_by: Text | None = None
    limit_in_all: int | None = None
    limit_customer: int = 1


class RedeemBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who redeems which code."""

    customer: Text
    code: Text


@post("/v1/coupons", opt=needs(Scope.CATALOG_WRITE), sync_to_thread=True)
@once
def create_coupon(tx: Tx, request: Anyone, data: JSONBody[CouponBody]) -> dict[str, Any]:
    """Offer a coupon."""
    unbound(principal_of(request))
    coupon = actions.create(tx, _terms(data), now=product_of(request).clock.now())
    return describing.coupon_value(coupon)


@get("/v1/coupons", opt=needs(Scope.CATALOG_READ), sync_to_thread=True)
def list_coupons(
    request: Anyone, *, after: FromQuery[str | None] = None, limit: PageSize = 50
) -> dict[str, Any]:
    """Return the coupons in the order of their making, and how often each was redeemed."""
    unbound(principal_of(request))
    with product_of(request).database.transaction() as tx:
        found = actions.page(tx, after=paging.one(after), limit=limit)
    key = paging.following(found, limit, lambda last: last.coupon_id)
    return {"coupons": [describing.coupon_value(one) for one in found], "next": key}


@post(
    "/v1/coupons/{code:str}/archive",
    status_code=200,
    opt=needs(Scope.CATALOG_WRITE),
    sync_to_thread=True,
)
@once
def archive_coupon(tx: Tx, request: Anyone, code: FromPath[str]) -> dict[str, Any]:
    """Take a coupon off offer; what was redeemed goes on."""
    unbound(principal_of(request))
    return describing.coupon_value(actions.archive(tx, code, now=product_of(request).clock.now()))


@post("/v1/coupon-redemptions", opt=needs(Scope.SUBSCRIPTIONS_WRITE), sync_to_thread=True)
@once
def redeem_coupon(tx: Tx, request: Anyone, data: JSONBody[RedeemBody]) -> dict[str, Any]:
    """Redeem a code for a customer, from now on, or from the next period if this one is billed."""
    customer_id = customers.find(tx, data.customer).customer_id
    own(principal_of(request), customer_id)
    now: datetime = product_of(request).clock.now()
    found = redeeming.redeem(
        tx, customer_id=customer_id, code=data.code, now=now, can_pay=payments.payable
    )
    return describing.redemption_value(found)


@get("/v1/coupon-redemptions", opt=needs(Scope.SUBSCRIPTIONS_READ), sync_to_thread=True)
def list_redemptions(request: Anyone, customer: FromQuery[str]) -> dict[str, Any]:
    """Return what a customer redeemed, and for which of its periods it counts."""
    with product_of(request).database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        own(principal_of(request), customer_id)
        found = actions.redemptions(tx, customer_id)
    return {"redemptions": [describing.redemption_value(one) for one in found]}


def _terms(data: CouponBody) -> Terms:
    money = None
    if (data.amount is None) != (data.currency is None):
        detail = "write an amount together with its currency"
        raise Invalid(detail, code="percent_or_amount", field="currency")
    if data.amount is not None and data.currency is not None:
        money = Money.parse(data.amount, data.currency)
    return Terms(
        code=data.code,
        name=data.name or data.code,
        percent=None if data.percent is None else parse_rate(data.percent, field="percent"),
        amount=None if money is None else money.minor,
        currency=None if money is None else money.currency,
        duration=data.duration,
        periods=data.periods,
        plans=data.plans,
        prices=data.prices,
        redeem_by=None
        if data.redeem_by is None
        else parse_instant(data.redeem_by, field="redeem_by"),
        limit_in_all=data.limit_in_all,
        limit_customer=data.limit_customer,
    )


COUPON_ROUTES: Final = (
    create_coupon,
    list_coupons,
    archive_coupon,
    redeem_coupon,
    list_redemptions,
)
