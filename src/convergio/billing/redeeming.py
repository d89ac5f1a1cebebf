"""Redeem a coupon: from which of a customer's periods it counts is what is billed already."""

from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.billing import errors, store
from convergio.catalog import actions as catalog
from convergio.discounts import actions as discounts
from convergio.discounts.model import Redemption
from convergio.infra.db import Tx
from convergio.kernel.periods import Calendar, Interval
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status, Subscription

_ENDED: Final = Status.CANCELED


def redeem(tx: Tx, *, customer_id: UUID, code: str, now: datetime) -> Redemption:
    """Redeem a code for a customer, from the first period whose fee is not billed yet.

    Periods are numbered by the interval of the plan's fee, from the subscription's own anchor.
    Locks: the subscription, then the coupon. Emits: coupon.redeemed. Raises: Conflict without a
    subscription, and, always the same, for a code that does not work.
    """
    subscriptions.open_periods(tx, [customer_id], until=now)
    every = subscriptions.history(tx, customer_id)
    live = next((one for one in every if one.status != _ENDED), None)
    if live is None:
        raise errors.no_subscription()
    calendar = Calendar(live.anchor_at, live.time_zone, _interval(tx, live))
    first = max(0, calendar.number_at(now))
    if store.has_fees_from(tx, customer_id, calendar.boundary(first)):
        first += 1
    return discounts.redeem(
        tx,
        customer_id=customer_id,
        code=code,
        currency=live.currency,
        plan_key=live.plan_key,
        calendar=calendar,
        first=first,
        now=now,
    )


def _interval(tx: Tx, live: Subscription) -> Interval:
    """Return the interval of the plan's first fee; of its first price where it has no fee."""
    found = catalog.current(tx)
    plan = found.plans.get(live.plan_key) or found.archived.get(live.plan_key)
    prices = () if plan is None else plan.prices
    fees = [price.interval for price in prices if price.meter_key is None]
    return next(iter([*fees, *(price.interval for price in prices)]), Interval.MONTH)
