"""Redeem a coupon: from which of a customer's periods it counts is what is billed already."""

from datetime import datetime
from uuid import UUID

from convergio.billing import errors, store
from convergio.catalog import actions as catalog
from convergio.discounts import actions as discounts
from convergio.discounts.model import Redemption
from convergio.infra.db import Tx
from convergio.kernel.errors import NotFound
from convergio.kernel.periods import Calendar, Interval
from convergio.subscriptions import changes
from convergio.subscriptions.actions import CanPay
from convergio.subscriptions.model import Subscription


def redeem(
    tx: Tx, *, customer_id: UUID, code: str, now: datetime, can_pay: CanPay | None = None
) -> Redemption:
    """Redeem a code for a customer, from the present period, or the next where its fee is billed.

    Periods are numbered by the interval of the plan's fee, from the subscription's own anchor.
    What was due by now is carried out first, so that it is the plan of now; `can_pay` decides a
    trial that is over. Locks: the subscription, then the coupon. Emits: coupon.redeemed, and what
    is due. Raises: Conflict without a subscription, and, always the same, for a code that does not
    work.
    """
    try:
        live = changes.up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    except NotFound as error:
        raise errors.no_subscription() from error
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
    """Return the interval of the plan's first fee; of its first price where it has no fee.

    What is asked once is no fee of any period.
    """
    found = catalog.current(tx)
    plan = found.plans.get(live.plan_key) or found.archived.get(live.plan_key)
    prices = () if plan is None else plan.prices
    fees = [price.interval for price in prices if price.meter_key is None and not price.once]
    return next(iter([*fees, *(price.interval for price in prices)]), Interval.MONTH)
