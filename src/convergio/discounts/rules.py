"""What a coupon may be, which lines it counts for, and how much it and credit take off each.

Coupons come first, in the order of their redemption, each on what the earlier ones left; then
promotional credit by priority, expiry and creation. Each is rounded once and shared over its lines
by largest remainder, so the parts add up to the whole, and no line falls below zero.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final
from uuid import UUID

from convergio.discounts import errors
from convergio.discounts.model import (
    Coupon,
    Discountable,
    Draw,
    Duration,
    Grant,
    OverdrawnRow,
    Redemption,
    Span,
    Terms,
)
from convergio.entitlements.model import Category, CreditGrant
from convergio.kernel.errors import Difference
from convergio.kernel.money import AMOUNT_MAX, Amount, Money, allocate, exponent
from convergio.kernel.periods import Calendar, Interval
from convergio.kernel.text import check_words

_CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9_-]{2,39}", re.ASCII)
_PERIODS_MAX: Final = 1200
_PERCENT_MAX: Final = 100
_DECIMALS_MAX: Final = 6
_LIMIT_MAX: Final = 2**31 - 1
Drawn = MutableMapping[tuple[UUID, int], int]


def is_code(text: str) -> bool:
    """Say whether text can be a coupon's code at all."""
    return _CODE.fullmatch(text) is not None


def check_terms(terms: Terms) -> None:
    """Refuse a coupon that makes no sense. Raises: Invalid naming the field."""
    if not is_code(terms.code):
        raise errors.bad_code()
    check_words(terms.name, field="name")
    if (terms.percent is None) == (terms.amount is None) or (
        (terms.amount is None) != (terms.currency is None)
    ):
        raise errors.percent_or_amount()
    if terms.percent is not None and not _is_percent(terms.percent):
        raise errors.percent_or_amount()
    if terms.amount is not None and not 0 < terms.amount <= AMOUNT_MAX:
        raise errors.percent_or_amount("amount")
    if terms.currency is not None:
        exponent(terms.currency)
    if (terms.duration == Duration.REPEATING) != (terms.periods is not None) or (
        terms.periods is not None and not 1 <= terms.periods <= _PERIODS_MAX
    ):
        raise errors.bad_periods()
    if terms.limit_in_all is not None and not 1 <= terms.limit_in_all <= _LIMIT_MAX:
        raise errors.bad_limit("limit_in_all")
    if not 1 <= terms.limit_customer <= _LIMIT_MAX:
        raise errors.bad_limit("limit_customer")


def _is_percent(percent: Decimal) -> bool:
    places = percent.as_tuple().exponent
    fine = isinstance(places, int) and -places <= _DECIMALS_MAX
    return fine and 0 < percent <= _PERCENT_MAX


def is_on_offer(
    coupon: Coupon, *, currency: str, plan_key: str, sold: frozenset[str], now: datetime
) -> bool:
    """Say whether a customer of a currency, on a plan that sells these prices, may redeem it."""
    terms = coupon.terms
    if coupon.archived_at is not None or (terms.redeem_by is not None and terms.redeem_by < now):
        return False
    if terms.currency not in {None, currency}:
        return False
    if terms.plans and plan_key not in terms.plans:
        return False
    return not terms.prices or not sold.isdisjoint(terms.prices)


def span_of(terms: Terms, calendar: Calendar, *, first: int) -> Span:
    """Return the periods that a redemption counts for, from a number of a calendar on."""
    count = {Duration.ONCE: 1, Duration.FOREVER: None}.get(terms.duration, terms.periods)
    last = None if count is None else first + count - 1
    return Span(calendar.anchor, calendar.time_zone, calendar.interval, first, last)


@lru_cache(maxsize=1024)
def _calendar(anchor_at: datetime, time_zone: str, interval: Interval) -> Calendar:
    return Calendar(anchor_at, time_zone, interval)


def number_of(redemption: Redemption, line: Discountable) -> int | None:
    """Return the period number under which a redemption counts for a line; None if it does not."""
    keys = redemption.price_keys
    if keys is not None and line.price_key not in keys:
        return None
    span = redemption.span
    number = _calendar(span.anchor_at, span.time_zone, span.interval).number_at(line.period_start)
    if number < span.first or (span.last is not None and number > span.last):
        return None
    return number


def coupons_off(
    lines: Sequence[Discountable],
    redemptions: Iterable[Redemption],
    drawn: Drawn,
    *,
    currency: str,
) -> list[list[Draw]]:
    """Return what redemptions, in their order, take off each line.

    `drawn` is what was already taken of amounts by redemption and period number; it grows. Rounds:
    a percentage once over all its lines, half away from zero.
    """
    left = [line.amount for line in lines]
    draws: list[list[Draw]] = [[] for _ in lines]
    for one in redemptions:
        places: dict[int, list[int]] = {}
        for place, line in enumerate(lines):
            number = number_of(one, line) if left[place] > 0 else None
            if number is not None:
                places.setdefault(number, []).append(place)
        if one.percent is not None:
            every = [(number, place) for number, some in places.items() for place in some]
            every.sort(key=lambda pair: pair[1])  # of equal remainders the earlier line is first
            whole = _share(sum(left[place] for _, place in every), one.percent, currency)
            _take(Money(whole, currency), every, left, draws, one.redemption_id)
        elif one.amount is not None and one.currency == currency:
            for number, some in sorted(places.items()):
                key = one.redemption_id, number
                rest = one.amount - drawn.get(key, 0)
                part = max(0, min(rest, sum(left[place] for place in some)))
                drawn[key] = drawn.get(key, 0) + part
                pairs = [(number, place) for place in some]
                _take(Money(part, currency), pairs, left, draws, one.redemption_id)
    return draws


def _share(minor: int, percent: Decimal, currency: str) -> int:
    major = Fraction(minor, 10 ** exponent(currency)) * Fraction(percent) / _PERCENT_MAX
    return Amount(major, currency).round().minor


def _take(
    part: Money,
    places: Sequence[tuple[int, int]],
    left: list[int],
    draws: list[list[Draw]],
    source_id: UUID,
) -> None:
    """Share an amount over lines by what is left of each."""
    if not part.minor:
        return
    shares = allocate(part, [left[place] for _, place in places])
    for (number, place), share in zip(places, shares, strict=True):
        if share.minor:
            draws[place].append(Draw(source_id, number, share.minor))
            left[place] -= share.minor


def grants_off(
    lines: Sequence[Discountable],
    grants: Sequence[Grant],
    room: Mapping[object, int],
    *,
    currency: str,
) -> tuple[list[list[Draw]], list[Grant]]:
    """Return what credit takes off each line, and the grants with what is then left of them.

    `lines` hold what coupons left of them; `room` is what a tax group may still lose, which is
    less than its lines where something else on the invoice takes back from it.
    """
    left = [line.amount for line in lines]
    draws: list[list[Draw]] = [[] for _ in lines]
    space = dict(room)
    after: list[Grant] = []
    for grant in grants:
        groups: dict[object, list[int]] = {}
        for place, line in enumerate(lines):
            if left[place] > 0 and space.get(line.group, 0) > 0 and _in_time(grant, line):
                groups.setdefault(line.group, []).append(place)
        caps = [
            min(space[group], sum(left[place] for place in some)) for group, some in groups.items()
        ]
        part = max(0, min(grant.left, sum(caps)))  # a void may leave less than nothing
        after.append(grant._replace(left=grant.left - part))
        if not part:
            continue
        shares = allocate(Money(part, currency), caps)
        for (group, some), share in zip(groups.items(), shares, strict=True):
            space[group] -= share.minor
            parts = [] if not share.minor else allocate(share, [left[place] for place in some])
            for place, taken in zip(some, parts, strict=bool(parts)):
                if taken.minor:
                    draws[place].append(Draw(grant.grant_id, None, taken.minor))
                    left[place] -= taken.minor
    return draws, after


def drawable(credit: Iterable[CreditGrant], spent: Mapping[UUID, int]) -> list[Grant]:
    """Return the promotional credit that invoices may draw, in the order given.

    What was paid for is money and no discount; of what was taken back nothing more is drawn. One
    that is used up stays, for a correction may return a part of it.
    """
    return [
        Grant(one.grant_id, one.starts_at, one.expires_at, left)
        for one in credit
        for left in ((one.amount or 0) - spent.get(one.grant_id, 0),)
        if one.category == Category.PROMOTIONAL and one.voided_at is None
    ]


def _in_time(grant: Grant, line: Discountable) -> bool:
    """Say whether credit covers a line: the time that it is for decides, not that of billing."""
    begins = grant.starts_at < line.period_end
    return begins and (grant.expires_at is None or line.period_start < grant.expires_at)


def allowed_prices(terms: Terms, plans: Mapping[str, Iterable[str]]) -> frozenset[str] | None:
    """Return the keys of the prices that a coupon counts for; None for every price."""
    if not terms.plans and not terms.prices:
        return None
    of_plans = {key for plan in terms.plans for key in plans.get(plan, ())}
    if not terms.prices:
        return frozenset(of_plans)
    return frozenset(terms.prices) & of_plans if terms.plans else frozenset(terms.prices)


def check_names(
    terms: Terms, *, has_plan: Callable[[str], bool], has_price: Callable[[str], bool]
) -> None:
    """Refuse plans and prices that the catalog does not have. Raises: Invalid."""
    for plan in terms.plans:
        if not has_plan(plan):
            raise errors.unknown_name("plan", plan)
    for price in terms.prices:
        if not has_price(price):
            raise errors.unknown_name("price", price)


def overdrawn(row: OverdrawnRow) -> Difference:
    """Tell of a coupon or grant of which more was drawn than there is."""
    where = f"{row.what} {row.source_id} of customer {row.customer_id}"
    return Difference(where, f"at most {row.allowed} drawn", str(row.drawn))
