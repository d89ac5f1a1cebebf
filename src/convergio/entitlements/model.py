"""Reservations, leases, decisions and what a quota looks like from outside."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from convergio.kernel.errors import Rejected
from convergio.kernel.money import Money


class Access(StrEnum):
    """What a customer may do, derived from the subscription's status."""

    FULL = "full"
    GRACE = "grace"
    SUSPENDED = "suspended"
    NONE = "none"


# `past_due` keeps working while dunning runs; the rest is as its name says (DESIGN 6).
ACCESS: Final = {
    "trialing": Access.FULL,
    "active": Access.FULL,
    "past_due": Access.GRACE,
    "incomplete": Access.SUSPENDED,
    "unpaid": Access.SUSPENDED,
    "paused": Access.SUSPENDED,
}


class Reason(StrEnum):
    """Why a request was denied."""

    LIMIT_REACHED = "limit_reached"
    SUSPENDED = "suspended"
    NO_SUBSCRIPTION = "no_subscription"
    SPEND_CAP = "spend_cap"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNKNOWN_METER = "unknown_meter"


@dataclass(frozen=True, slots=True)
class Ask:
    """A caller wants to use so much of a meter now.

    With a `reservation_id` of the caller's own it may be asked again when no answer came: one id
    of a customer is one reservation.
    """

    customer_key: str
    meter_key: str
    quantity: Decimal
    reservation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """Yes, and it is held until `expires_at`."""

    customer_id: UUID
    reservation_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Denied:
    """No, and why; the two instants say when the window ends and when asking again makes sense."""

    reason: Reason
    resets_at: datetime | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Neither: the ask itself is wrong, and the error says how."""

    error: Rejected


Decision = Allowed | Denied | Refused


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was promised, and what became of it.

    One that `adds` is part of what its window holds in reserve; of a level nothing is held.
    """

    customer_id: UUID
    reservation_id: UUID
    meter_id: int
    start_at: datetime
    quantity: Decimal
    state: str
    made_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    settled: Decimal | None
    adds: bool = True

    def holds_at(self, now: datetime) -> bool:
        """Say whether it still holds anything."""
        return self.state == "open" and now < self.expires_at


LEASE_SECONDS_MAX: Final = 60
LEASE_LIFE: Final = timedelta(seconds=LEASE_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class Lease:
    """A slice of one window's quota that a node decides on alone until `expires_at`.

    `granted` and `used` are sums since it was made; `used` is what was reported with the report
    numbered `sequence`, and is counted as usage already. `open` until its node settles it, an
    operator declares it lost, or its window ends (`lapsed`).
    """

    customer_id: UUID
    lease_id: UUID
    meter_id: int
    start_at: datetime
    end_at: datetime
    granted: Decimal
    used: Decimal
    sequence: int
    state: str
    made_at: datetime
    expires_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease as it stands after a request; `reason` says why nothing more was granted."""

    lease: Lease
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class SpendCap:
    """What a customer's overage of the current windows may come to."""

    customer_id: UUID
    amount: int
    currency: str
    updated_at: datetime

    @property
    def money(self) -> Money:
        """The cap as money."""
        return Money(self.amount, self.currency)


@dataclass(frozen=True, slots=True)
class QuotaState:
    """A quota now: `limit` None means that nothing is refused, `included` what costs no extra.

    `spend` is what the overage of the customer's current windows comes to, of all meters, where
    there is a `spend_cap`. `credit` is what prepaid grants have left for this window; it is part
    of limit and remaining where there is a limit. `reason` says why the next unit is denied, or is
    None.
    """

    limit: Decimal | None
    included: Decimal | None
    used: Decimal
    reserved: Decimal
    remaining: Decimal | None
    overage: Decimal | None
    resets_at: datetime
    access: Access
    reason: Reason | None
    spend_cap: Money | None
    spend: Money | None
    credit: Decimal


class Category(StrEnum):
    """Whether credit was given away or sold: what is promotional lowers the price, before tax."""

    PROMOTIONAL = "promotional"
    PURCHASED = "purchased"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What is granted, as it was asked for: units of a meter, or an amount of money.

    `key` is the seller's own name of it, once a customer. `starts_at` None: from now on;
    `expires_at` None: never. A lower `priority` is drawn first.
    """

    key: str
    category: Category
    meter_key: str | None = None
    quantity: Decimal | None = None
    amount: str | None = None
    priority: int = 100
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """A stored grant; `amount` is in minor units of `currency`."""

    customer_id: UUID
    grant_id: UUID
    key: str
    meter_id: int | None
    currency: str | None
    category: str
    quantity: Decimal | None
    amount: int | None
    priority: int
    starts_at: datetime
    expires_at: datetime | None
    created_at: datetime
    voided_at: datetime | None
    note: str

    @property
    def ends_at(self) -> datetime | None:
        """From when on usage draws it no more: its expiry, or its void where that was earlier."""
        ends = [one for one in (self.expires_at, self.voided_at) if one is not None]
        return max(self.starts_at, min(ends)) if ends else None


@dataclass(frozen=True, slots=True)
class GrantState:
    """A grant and what is drawn of it; `remaining` is what usage may still draw, now or later."""

    grant: CreditGrant
    meter_key: str | None
    drawn: Decimal
    remaining: Decimal
    state: str
