"""A subscription pins prices and stores its periods; nothing about it is computed twice.

An item is one pinned price and its quantity, active from one instant until another (or still).
A period is stored once, from the ORIGINAL anchor, and never changes: cancelling ends items, not
periods. The transition table below is the whole life cycle; what is not in it cannot happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
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
RESTING: Final = frozenset({Status.PAUSED, Status.CANCELED})


class TrialPolicy(StrEnum):
    """What follows a trial whose customer has no payment method."""

    ACTIVATE = "activate"
    PAUSE = "pause"
    FALL_BACK = "fall_back"


class ChangeState(StrEnum):
    """What became of a change: a pending one waits for its instant, as does each step of a ramp."""

    PENDING = "pending"
    QUEUED = "queued"
    DONE = "done"
    DROPPED = "dropped"


class When(StrEnum):
    """When a change takes effect: at once, or when what is paid for ends."""

    NOW = "now"
    PERIOD_END = "period_end"


@dataclass(frozen=True, slots=True)
class Trial:
    """A free time before the first paid period, and what follows it without a payment method."""

    days: int
    policy: TrialPolicy = TrialPolicy.ACTIVATE
    fallback_plan_key: str | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One agreement with one customer; `cancel_at` is an end that is still to come.

    Every period's boundaries follow from `anchor_at`. It lies after `started_at` where a trial
    came first. Where the periods are the calendar's own (`by_calendar`) it may lie before: then
    the first one is a part.
    """

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
    trial_policy: TrialPolicy | None = None
    fallback_plan_key: str | None = None
    by_calendar: bool = False

    @property
    def begins_at(self) -> datetime:
        """When it begins to be paid."""
        return max(self.anchor_at, self.started_at)

    @property
    def trial_ends_at(self) -> datetime | None:
        """When the trial ends or ended; None where there was none."""
        return None if self.trial_policy is None else self.anchor_at


class Item(NamedTuple):
    """A pinned price, how many of it, and when it counts: `[active_from, active_until)`.

    A credited one gives back what is left of its fee and allowance when it ends within a period;
    `end_reason` says why on the invoice. One that is not credited keeps both to the period's end.
    One that is asked once begins and ends in one instant. `add_on_key` is None for the plan's own.
    """

    customer_id: UUID
    subscription_id: UUID
    item_id: UUID
    price_id: UUID
    quantity: Decimal
    active_from: datetime
    active_until: datetime | None
    credited: bool = False
    end_reason: str | None = None
    add_on_key: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Where a subscription is to go, or went: a plan at pinned prices, and a number of seats."""

    customer_id: UUID
    subscription_id: UUID
    change_id: UUID
    effective_at: datetime
    plan_key: str
    price_ids: tuple[UUID, ...]
    seats: int
    state: ChangeState
    made_at: datetime


class StoredPeriod(NamedTuple):
    """Period `number` of an interval, `[start_at, end_at)`."""

    customer_id: UUID
    subscription_id: UUID
    interval: Interval
    number: int
    start_at: datetime
    end_at: datetime


class Mark(NamedTuple):
    """Periods that begin before `until` are billed; `mark` is the usage that they were billed at.

    As long as the mark of that usage is the same, a run need not look at them again.
    """

    customer_id: UUID
    subscription_id: UUID
    until: datetime
    mark: Decimal


@dataclass(frozen=True, slots=True)
class Agreement:
    """A subscription with its items and its stored periods by interval, in order."""

    subscription: Subscription
    items: tuple[Item, ...]
    periods: Mapping[Interval, tuple[StoredPeriod, ...]]


@dataclass(frozen=True, slots=True)
class BillingView:
    """All that billing needs of one customer's subscriptions, the canceled ones too.

    `delay` says why an end that is reached could not be carried out yet. `floors` are the instants
    before which the periods of a subscription are left out, `marks` what to close it at next.
    """

    customer_id: UUID
    agreements: tuple[Agreement, ...]
    delay: str | None = None
    floors: Mapping[UUID, datetime] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()

    @property
    def is_live(self) -> bool:
        """Say whether boundaries are still to come; a paused subscription has none."""
        return any(one.subscription.status not in RESTING for one in self.agreements)
