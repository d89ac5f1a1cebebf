"""Prices, subscriptions and views by hand, for tests of pure rules."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from convergio.billing.model import Billed, ChargeKey, Draft
from convergio.billing.owing import Prices
from convergio.catalog.model import Price
from convergio.kernel.periods import Calendar, Interval
from convergio.rating.model import Charge, Flat, Unit
from convergio.subscriptions.model import (
    Agreement,
    BillingView,
    Item,
    Status,
    StoredPeriod,
    Subscription,
)

CUSTOMER = UUID(int=1)
FEE = Flat(amount="6.99")
QUESTIONS = Unit(unit="0.01", included="500")


def price(number: int, charge: Charge, *, meter: str | None = None, **other: str) -> Price:
    """Return a price whose id is its number."""
    return Price(
        price_id=UUID(int=number),
        key=f"price_{number}",
        version=1,
        name=f"Price {number}",
        meter_key=meter,
        interval=Interval(other.get("interval", "month")),
        currency=other.get("currency", "usd"),
        charge=charge,
        quota=None,
    )


def agreement(
    prices: list[Price], start: datetime, *, number: int = 1, periods: int = 3, zone: str = "UTC"
) -> Agreement:
    """Return an active subscription to prices, with its first periods stored."""
    subscription = Subscription(
        customer_id=CUSTOMER,
        subscription_id=UUID(int=100 + number),
        plan_key="plan",
        status=Status.ACTIVE,
        currency="usd",
        time_zone=zone,
        anchor_at=start,
        started_at=start,
        cancel_at=None,
        canceled_at=None,
        created_at=start,
    )
    key = subscription.subscription_id
    items = tuple(
        Item(CUSTOMER, key, UUID(int=1000 * number + one.price_id.int), one.price_id, Decimal(1),
             start, None)
        for one in prices
    )  # fmt: skip
    stored = {
        interval: tuple(
            StoredPeriod(CUSTOMER, key, interval, place, period.start, period.end)
            for place, period in enumerate(Calendar(start, zone, interval).periods(periods))
        )
        for interval in {one.interval for one in prices}
    }
    return Agreement(subscription, items, stored)


def ended(one: Agreement, at: datetime) -> Agreement:
    """Return the agreement as canceled at an instant."""
    return Agreement(
        replace(one.subscription, status=Status.CANCELED, canceled_at=at),
        tuple(item._replace(active_until=at) for item in one.items),
        one.periods,
    )


def view(*agreements: Agreement) -> BillingView:
    """Return what billing sees of the customer."""
    return BillingView(CUSTOMER, agreements)


def book(*prices: Price) -> Prices:
    """Return the pinned prices."""
    return Prices({one.price_id: one for one in prices})


def with_lines(billed: Mapping[ChargeKey, Billed], drafts: list[Draft]) -> dict[ChargeKey, Billed]:
    """Return what is billed once these invoices are issued."""
    sums = dict(billed)
    for draft in drafts:
        for line in draft.lines:
            known = sums.get(line.key, Billed(0, Decimal(0), line.period_end))
            sums[line.key] = Billed(
                known.amount + line.amount.minor,
                known.quantity + line.quantity,
                max(known.period_end, line.period_end),
            )
    return sums
