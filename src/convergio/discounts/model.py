"""A coupon is an offer; a redemption pins it to period numbers; a draw is what it took off a line.

A redemption carries the calendar that its period numbers are of, so a late line of period 3 gets
the discount of period 3 whenever it is billed, and whatever became of the subscription (RULES 6).
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from convergio.kernel.periods import Interval


class Duration(StrEnum):
    """For how many periods a coupon counts: one, some, or every one that follows."""

    ONCE = "once"
    REPEATING = "repeating"
    FOREVER = "forever"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a coupon takes off: a percentage of lines, or an amount of each period.

    Without `plans` and `prices` it is for all of them; `limit_in_all` and `limit_customer` bound
    how often it is redeemed.
    """

    code: str
    name: str
    percent: Decimal | None = None
    amount: int | None = None
    currency: str | None = None
    duration: Duration = Duration.ONCE
    periods: int | None = None
    plans: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    redeem_by: datetime | None = None
    limit_in_all: int | None = None
    limit_customer: int = 1


@dataclass(frozen=True, slots=True)
class Coupon:
    """A stored coupon, how often it was redeemed, and whether it is still on offer."""

    coupon_id: UUID
    terms: Terms
    redeemed: int
    created_at: datetime
    archived_at: datetime | None


class Span(NamedTuple):
    """The periods that a redemption counts for: numbers of one calendar, `last` included."""

    anchor_at: datetime
    time_zone: str
    interval: Interval
    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Redemption:
    """A coupon that a customer redeemed; without `price_keys` it counts for every price."""

    customer_id: UUID
    redemption_id: UUID
    coupon_id: UUID
    code: str
    name: str
    percent: Decimal | None
    amount: int | None
    currency: str | None
    redeemed_at: datetime
    span: Span
    price_keys: frozenset[str] | None


class Discountable(NamedTuple):
    """A line above zero as discounts see it; `group` is the tax group that it will be in."""

    amount: int
    price_key: str
    period_start: datetime
    period_end: datetime
    group: object


class Grant(NamedTuple):
    """Promotional credit in money, in the order of its use, and what is left of it."""

    grant_id: UUID
    starts_at: datetime
    expires_at: datetime | None
    left: int


LinePlace = tuple[UUID, int]  # an invoice, and the number of a line there


class Draw(NamedTuple):
    """What a redemption, for a period number, or a grant (no number) took off a line.

    Below zero on a line that takes back from another: what it returned.
    """

    source_id: UUID
    period_number: int | None
    amount: int


@dataclass(frozen=True, slots=True)
class DrawRow:
    """A draw as it is kept; `origin` is the line that a line below zero takes back from."""

    customer_id: UUID
    source_id: UUID
    invoice_id: UUID
    line_number: int
    period_number: int | None
    amount: int
    origin: LinePlace | None = None


@dataclass(frozen=True, slots=True)
class OverdrawnRow:
    """A coupon or grant of which more was drawn than there is."""

    customer_id: UUID
    source_id: UUID
    what: str
    allowed: int
    drawn: int
