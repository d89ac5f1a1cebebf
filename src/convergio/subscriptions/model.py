"""A subscription pins prices and stores its periods; nothing about it is computed twice.

An item is one pinned price and its quantity, active from one instant until another (or still).
A period is stored once, from the ORIGINAL anchor, and never changes: cancelling ends items, not
periods. The transition table below is the whole life cycle; what is not in it cannot happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from convergio.kernel.periods import Interval


class Status(StrEnum):
    """Where in its life a subscription stands."""

    INCOMPLETE = "incomplete"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    UNPAID = "unpaid"
    PAUSED = "paused"
    CANCELED = "canceled"


TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Status.INCOMPLETE: frozenset({Status.TRIALING, Status.ACTIVE, Status.CANCELED}),
        Status.TRIALING: frozenset(
            {Status.ACTIVE, Status.PAST_DUE, Status.PAUSED, Status.CANCELED}
        ),
        Status.ACTIVE: frozenset({Status.PAST_DUE, Status.UNPAID, Status.PAUSED, Status.CANCELED}),
        Status.PAST_DUE: frozenset({Status.ACTIVE, Status.UNPAID, Status.PAUSED, Status.CANCELED}),
        Status.UNPAID: frozenset({Status.ACTIVE, Status.CANCELED}),
        Status.PAUSED: frozenset({Status.ACTIVE, Status.CANCELED}),
        Status.CANCELED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One agreement with one customer; `cancel_at` is an end that is still to come."""

    customer_id: UUID
    subscription_id: UUID
    plan_key: str
    status: Status
    currency: str
    time_zone: str
    anchor_at: datetime
    started_at: datetime
    cancel_at: datetime | None
    canceled_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Item:
    """A pinned price, how many of it, and when it counts: `[active_from, active_until)`."""

    customer_id: UUID
    subscription_id: UUID
    item_id: UUID
    price_id: UUID
    quantity: Decimal
    active_from: datetime
    active_until: datetime | None


@dataclass(frozen=True, slots=True)
class StoredPeriod:
    """Period `number` of an interval, `[start_at, end_at)`."""

    customer_id: UUID
    subscription_id: UUID
    interval: Interval
    number: int
    start_at: datetime
    end_at: datetime


@dataclass(frozen=True, slots=True)
class Agreement:
    """A subscription with its items and its stored periods by interval, in order."""

    subscription: Subscription
    items: tuple[Item, ...]
    periods: Mapping[Interval, tuple[StoredPeriod, ...]]


@dataclass(frozen=True, slots=True)
class BillingView:
    """All that billing needs of one customer's subscriptions, the canceled ones too.

    `delay` says why an end that is reached could not be carried out yet.
    """

    customer_id: UUID
    agreements: tuple[Agreement, ...]
    delay: str | None = None

    @property
    def is_live(self) -> bool:
        """Say whether boundaries are still to come."""
        return any(one.subscription.status != Status.CANCELED for one in self.agreements)
