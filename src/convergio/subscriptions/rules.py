"""What a subscription may do and which periods it has: decisions without a database."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

import msgspec

from convergio.catalog.model import Plan, Price
from convergio.kernel.errors import require
from convergio.kernel.periods import Calendar, Interval
from convergio.metering.model import DEFAULT_SEGMENT, Limit, Segment
from convergio.rating.model import Flat, Seat
from convergio.subscriptions import errors
from convergio.subscriptions.model import (
    TRANSITIONS,
    Agreement,
    BillingView,
    Item,
    Status,
    StoredPeriod,
    Subscription,
)

EARLIEST_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
SEATS_MAX: Final = 1_000_000
_ONE: Final = Decimal(1)
_SUBSCRIPTION: Final = attrgetter("subscription_id")
_INTERVAL: Final = attrgetter("interval")


def check_start(start: datetime, *, now: datetime) -> None:
    """Refuse a start in the future or in another century. Raises: Invalid."""
    if start > now:
        raise errors.bad_start("a subscription starts now or in the past; write an earlier time")
    if start < EARLIEST_START:
        raise errors.bad_start("a subscription starts in 2000 or later; write a later time")


def check_seats(prices: Sequence[Price], seats: int) -> None:
    """Refuse seats that the plan has no price for. Raises: Invalid."""
    if not 1 <= seats <= SEATS_MAX:
        raise errors.bad_seats(f"write a number of seats from 1 to {SEATS_MAX}")
    if seats > 1 and not any(isinstance(price.charge, Seat) for price in prices):
        raise errors.bad_seats("this plan has no price per seat; leave the seats out")


def check_prices(prices: Sequence[Price], *, currency: str) -> None:
    """Refuse a plan that cannot be billed as one agreement. Raises: Invalid.

    A meter has one usage window at a time, so no two prices of a plan read the same meter.
    """
    others = sorted({price.currency for price in prices} - {currency})
    if others:
        raise errors.bad_plan(f"it is priced in {others[0]} and the customer pays in {currency}")
    meters = [price.meter_key for price in prices if price.meter_key is not None]
    if len(set(meters)) < len(meters):
        raise errors.bad_plan("two of its prices read the same meter; keep one")


def quantity_of(price: Price, seats: int) -> Decimal:
    """Return how many of a price an item stands for: the seats of a seat price, else one."""
    return Decimal(seats) if isinstance(price.charge, Seat) else _ONE


def intervals_of(prices: Sequence[Price]) -> list[Interval]:
    """Return the intervals that need stored periods, in a fixed order."""
    return sorted({price.interval for price in prices}, key=list(Interval).index)


def segment_of(prices: Sequence[Price], *, start: datetime, time_zone: str) -> Segment:
    """Return the usage windows and limits that a plan sets from its start.

    Each meter's windows are the periods of its own price, so they reset together (RULES 3).
    """
    return Segment(
        anchor=start,
        time_zone=time_zone,
        interval=Interval.MONTH,
        starts_at=start,
        limits={price.meter_key: _limit(price) for price in prices if price.meter_key is not None},
    )


def segment_after(end: datetime) -> Segment:
    """Return what follows an agreement: calendar months of UTC without limits."""
    return msgspec.structs.replace(DEFAULT_SEGMENT, starts_at=end)


def _limit(price: Price) -> Limit:
    included = None if isinstance(price.charge, Flat) else Decimal(price.charge.included)
    quota = price.quota
    return Limit(
        limit=quota.limit if quota is not None and quota.hard else None,
        included=included,
        interval=price.interval,
    )


def first_period(subscription: Subscription, interval: Interval) -> StoredPeriod:
    """Return period 0 of an interval."""
    period = Calendar(subscription.anchor_at, subscription.time_zone, interval).period(0)
    return StoredPeriod(
        subscription.customer_id,
        subscription.subscription_id,
        interval,
        0,
        period.start,
        period.end,
    )


def boundaries_after(
    calendar: Calendar, number: int, *, until: datetime, cancel_at: datetime | None
) -> Iterator[tuple[int, datetime, datetime]]:
    """Yield (number, start, end) of the periods after `number` that begin by `until`.

    A period that would begin at or after the agreed end never begins.
    """
    start = calendar.boundary(number + 1)
    while start <= until and (cancel_at is None or start < cancel_at):
        number += 1
        end = calendar.boundary(number + 1)
        yield number, start, end
        start = end


def views(
    subscriptions: Iterable[Subscription],
    items: Iterable[Item],
    periods: Iterable[StoredPeriod],
    delays: Mapping[UUID, str],
) -> list[BillingView]:
    """Put rows, each list in the order of customer and subscription, together by customer."""
    items_of = {key: tuple(rows) for key, rows in groupby(items, _SUBSCRIPTION)}
    periods_of = {
        key: {interval: tuple(some) for interval, some in groupby(rows, _INTERVAL)}
        for key, rows in groupby(periods, _SUBSCRIPTION)
    }
    agreements = (
        Agreement(one, items_of.get(key, ()), periods_of.get(key, {}))
        for one in subscriptions
        for key in (one.subscription_id,)
    )
    return [
        BillingView(customer_id, tuple(rows), delays.get(customer_id))
        for customer_id, rows in groupby(agreements, attrgetter("subscription.customer_id"))
    ]


def move(subscription: Subscription, target: Status) -> Subscription:
    """Return the subscription in another status. Raises: Conflict when the table has no such step.

    Ending has its own verb, because it also ends the items.
    """
    if target == Status.CANCELED or target not in TRANSITIONS[subscription.status]:
        raise errors.cannot_become(subscription.status, target)
    return replace(subscription, status=target)


def end(subscription: Subscription, at: datetime) -> Subscription:
    """Return the subscription as canceled at an instant. Raises: Conflict when it is already."""
    if Status.CANCELED not in TRANSITIONS[subscription.status]:
        raise errors.cannot_become(subscription.status, Status.CANCELED)
    require(at >= subscription.started_at, "a subscription does not end before it starts")
    return replace(subscription, status=Status.CANCELED, cancel_at=None, canceled_at=at)


def schedule_end(subscription: Subscription, at: datetime) -> Subscription:
    """Return the subscription with an end to come. Raises: Conflict when one is on record."""
    if subscription.cancel_at is not None:
        raise errors.already_ending(subscription.cancel_at)
    return replace(subscription, cancel_at=at)


def new_subscription(
    customer_id: UUID, subscription_id: UUID, plan: Plan, *, start: datetime, now: datetime,
    time_zone: str, currency: str,
) -> Subscription:  # fmt: skip
    """Return an active subscription anchored at its start."""
    return Subscription(
        customer_id=customer_id,
        subscription_id=subscription_id,
        plan_key=plan.key,
        status=Status.ACTIVE,
        currency=currency,
        time_zone=time_zone,
        anchor_at=start,
        started_at=start,
        cancel_at=None,
        canceled_at=None,
        created_at=now,
    )
