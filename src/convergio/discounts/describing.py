"""Coupons and redemptions as JSON shows them, the same over HTTP and on the command line."""

from decimal import Decimal
from typing import Any, Final

from convergio.discounts.model import Coupon, Redemption
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import quantity_text

COUPON: Final = "coupon"
REDEMPTION: Final = "redemption"


def coupon_value(coupon: Coupon) -> dict[str, Any]:
    """Return a coupon as JSON takes it."""
    terms = coupon.terms
    return {
        "id": typeid(COUPON, coupon.coupon_id),
        "code": terms.code,
        "name": terms.name,
        **_off(terms.percent, terms.amount, terms.currency),
        "duration": terms.duration.value,
        "periods": terms.periods,
        "plans": list(terms.plans),
        "prices": list(terms.prices),
        "redeem_by": None if terms.redeem_by is None else instant_text(terms.redeem_by),
        "limit_in_all": terms.limit_in_all,
        "limit_customer": terms.limit_customer,
        "redeemed": coupon.redeemed,
        "archived": coupon.archived_at is not None,
    }


def redemption_value(one: Redemption) -> dict[str, Any]:
    """Return a redemption as JSON takes it; `last_period` is null for one that goes on."""
    return {
        "id": typeid(REDEMPTION, one.redemption_id),
        "customer": typeid("cus", one.customer_id),
        "code": one.code,
        "name": one.name,
        **_off(one.percent, one.amount, one.currency),
        "interval": one.span.interval.value,
        "first_period": one.span.first,
        "last_period": one.span.last,
        "prices": None if one.price_keys is None else sorted(one.price_keys),
        "redeemed_at": instant_text(one.redeemed_at),
    }


def _off(percent: Decimal | None, amount: int | None, currency: str | None) -> dict[str, Any]:
    money = Money(amount, currency).text() if amount is not None and currency else None
    return {
        "percent": None if percent is None else quantity_text(percent),
        "amount": money,
        "currency": currency,
    }
