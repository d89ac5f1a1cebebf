"""Reservations, leases, decisions and what a quota looks like from outside."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

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
    """A caller wants to use so much of a meter now."""

    customer_key: str
    meter_key: str
    quantity: Decimal


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


Decision = Allowed | Denied


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was promised, and what became of it."""

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
    there is a `spend_cap`. `reason` says why the next unit is denied, or is None.
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
