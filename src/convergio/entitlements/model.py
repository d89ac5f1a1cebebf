"""Reservations, decisions and what a quota looks like from outside."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID


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
    """No, and why."""

    reason: Reason


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


@dataclass(frozen=True, slots=True)
class QuotaState:
    """A quota now: `limit` None means that nothing is refused, `included` what costs no extra."""

    limit: Decimal | None
    included: Decimal | None
    used: Decimal
    reserved: Decimal
    remaining: Decimal | None
    resets_at: datetime
    access: Access
