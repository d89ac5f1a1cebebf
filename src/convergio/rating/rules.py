"""Turn a charge and a quantity into money: exact whole numbers all the way, then one rounding.

A charge is lowered to *parts*, one a line. Every part is a whole number over the one denominator
of that charge, so nothing is rounded before the sum is. The sum is rounded once, half away from
zero, because owed is rounded once per charge key (RULES 1); the lines then share that total by
largest remainder, so they add up to it and none is a whole minor unit away from its exact value.

Zero quantity: a flat fee, the fixed fee of a percentage, the flat fee of the first tier and a
minimum are for the period and are billed; unit prices, seats and packages come to 0.
Proration (RULES 7) scales those fees, seats, minimum and maximum, and the included quantity,
which is rounded up to a whole unit (RULES 8) but never above itself. Included seats stay whole: the
seat fee is already scaled, and only so do the parts of a period add up to it. Unit, package and
percentage prices are never scaled, but nothing can be used in an empty period: it bills 0.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple, assert_never

import msgspec

from convergio.kernel.errors import Invalid, require
from convergio.kernel.money import Amount, Money, exponent
from convergio.kernel.periods import Period
from convergio.kernel.quantity import DECIMALS, multiply, quantity_text
from convergio.rating.model import (
    ONE,
    Charge,
    Flat,
    Graduated,
    GraduatedPercentage,
    Package,
    Percentage,
    PercentTier,
    Rated,
    RatedLine,
    Seat,
    Tier,
    Unit,
    Volume,
)

_PRICE_DECIMALS: Final = 15
_WHOLE: Final = 10**DECIMALS  # quantities below are whole numbers of 10^-9
_CENT: Final = 10**_PRICE_DECIMALS  # prices below are whole numbers of 10^-15 major units
_FULL: Final = Fraction(1)


class _Part(NamedTuple):
    """One exact line: `exact` is the numerator over the charge's denominator, in major units.

    `share` scales it; one with a `bound` brings the sum so far to that bound, scaled by the share.
    """

    description: str
    quantity: int
    unit: Decimal | None
    exact: int
    per: Decimal = ONE
    share: Fraction = _FULL
    bound: Decimal | None = None


class _Band(NamedTuple):
    """What both kinds of tiers say: where it ends, its fee, its price and how they are shown."""

    label: str
    flat_label: str
    end: int | None
    flat: int
    price: int
    flat_shown: Decimal
    price_shown: Decimal


class _Scale(NamedTuple):
    """The common denominator of a charge's parts, and how a fee and a usage reach it.

    A fee is price/10^15 x share; usage is quantity/per x price/10^15. Over
    `per x 10^15 x share's denominator` both are whole.
    """

    per: int
    per_shown: Decimal
    share: Fraction

    @property
    def denominator(self) -> int:
        return self.per * _CENT * self.share.denominator

    @property
    def note(self) -> str:
        """Say how much of the period was served, where it is not all of it."""
        return "" if self.share == 1 else _note(self.share)

    def fee(self, price: int) -> int:
        """Return a fee of the period, scaled by the share of it that was served."""
        return price * self.per * self.share.numerator

    def usage(self, quantity: int, price: int) -> int:
        """Return a quantity at an unscaled price; in an empty period there is none."""
        return quantity * price * self.share.denominator if self.share else 0

    def seats(self, quantity: int, price: int) -> int:
        """Return a quantity whose price is a fee of the period."""
        return quantity * price * self.share.numerator


def rate(
    charge: Charge, quantity: Decimal, *, currency: str, proration: Fraction | None = None
) -> Rated:
    """Return what the charge comes to for a quantity, with the lines that explain it.

    Rounds: once, half away from zero. Raises: Invalid for a quantity that is negative, not finite
    or finer than 9 decimals, and for an unknown currency.
    """
    parts, denominator = _lowered(charge, quantity, proration)
    exact = sum([part.exact for part in parts])
    total = Amount(Fraction(exact, denominator), currency).round()
    shares = _shared(total, [part.exact for part in parts], denominator)
    return Rated(total, tuple(map(_line, parts, shares)))


def owed(
    charge: Charge, quantity: Decimal, *, currency: str, proration: Fraction | None = None
) -> Amount:
    """Return the exact amount before its rounding; a segment costs end less begin (RULES 8).

    Raises: Invalid, as `rate` does.
    """
    exponent(currency)
    parts, denominator = _lowered(charge, quantity, proration)
    return Amount(Fraction(sum(part.exact for part in parts), denominator), currency)


def allowance(parts: Sequence[tuple[Decimal, Period]], full: Period) -> Decimal:
    """Return what is included in a period: the sum of quantity x time, rounded up (RULES 8).

    It is never more than the largest of the quantities. Raises: Invalid for a part that leaves it.
    """
    if not parts:
        return Decimal(0)
    exact = sum(
        (Fraction(quantity) * proration(full, part) for quantity, part in parts), Fraction(0)
    )
    return min(Decimal(math.ceil(exact)), max(quantity for quantity, _ in parts))


def included_per_seat(charge: Charge) -> bool:
    """Say whether what the charge includes is for each seat."""
    return not isinstance(charge, Flat) and bool(charge.included_per_seat)


def included_for(charge: Charge, seats: Decimal) -> Decimal:
    """Return what a charge includes for so many seats; a flat fee includes nothing."""
    if isinstance(charge, Flat):
        return Decimal(0)
    included = Decimal(charge.included)
    return multiply(included, seats) if charge.included_per_seat else included


def for_seats(charge: Charge, seats: Decimal) -> Charge:
    """Return the charge with what it includes for so many seats."""
    if isinstance(charge, Flat) or not charge.included_per_seat:
        return charge
    included = quantity_text(included_for(charge, seats))
    return msgspec.structs.replace(charge, included=included, included_per_seat=None)


class Segment(NamedTuple):
    """A stretch of a usage period: the meter before and at its end, and over all of the period.

    `share` is the part of the period that the stretch covers, `allowance` what is free of the
    period in all, whichever stretch uses it (RULES 8). Quantities are cumulative.
    """

    before: Decimal
    upto: Decimal
    total: Decimal
    allowance: Decimal
    share: Fraction


def rate_segment(charge: Charge, segment: Segment, *, currency: str) -> Rated:
    """Return what a stretch of a usage period costs: f(end) less f(begin) beyond the allowance.

    What the charge asks of an empty period (its first fee) is scaled by the share, and so are the
    bounds; what usage adds is a difference of the same function, so the stretches of one price
    add up to the whole period. For volume the period's total picks the tier. Rounds: once.
    Raises: Invalid, as `rate` does.
    """
    require(0 <= segment.share <= 1, "a share is between 0 and 1")
    scale = _scale(charge, segment.share)
    parts = list(_segment_parts(charge, segment, scale))
    if charge.minimum is not None or charge.maximum is not None:
        parts = _bounded(parts, charge, scale)
    exact = sum(part.exact for part in parts)
    total = Amount(Fraction(exact, scale.denominator), currency).round()
    shares = _shared(total, [part.exact for part in parts], scale.denominator)
    return Rated(total, tuple(map(_line, parts, shares)))


def _segment_parts(charge: Charge, segment: Segment, scale: _Scale) -> Iterator[_Part]:
    """Yield the parts of a segment: what is included, the scaled fees, and what usage adds."""
    used = (_units(segment.before), _units(segment.upto))
    free = _units(segment.allowance)
    included = min(used[1], free) - min(used[0], free)
    if included:
        yield _Part("Included", included, _shown("0"), 0)
    begin, end, whole = (max(0, units - free) for units in (*used, _units(segment.total)))
    of = _beyond(charge, whole)
    full = scale._replace(share=_FULL)
    empty = {part.description: part for part in _parts(of, 0, full)}
    before = {part.description: part for part in _parts(of, begin, full)}
    several = scale.share.denominator
    for part in _parts(of, end, full):
        fee = empty.get(part.description)
        known = before.get(part.description)
        quantity = part.quantity - (known.quantity if known else 0)
        exact = (part.exact - (known.exact if known else 0)) * several
        if fee is not None and fee.exact:
            label = fee.description + scale.note
            scaled = fee.exact * scale.share.numerator
            yield fee._replace(description=label, exact=scaled, share=scale.share)
        if exact or (quantity and (fee is None or not fee.exact)) or part.exact == 0:
            yield part._replace(quantity=quantity, exact=exact)


def _beyond(charge: Charge, whole: int) -> Charge:
    """Return the charge without included quantity; of volume, the tier of the whole alone."""
    if isinstance(charge, Flat):
        return charge
    if isinstance(charge, Volume):
        tier = next(
            one for one in charge.tiers if one.up_to is None or whole <= _quantity(one.up_to)
        )
        only = msgspec.structs.replace(tier, up_to=None)
        return msgspec.structs.replace(charge, included="0", tiers=(only,))
    return msgspec.structs.replace(charge, included="0")


def proration(full: Period, service: Period) -> Fraction:
    """Return the share of the full period that was served, in UTC time (RULES 7).

    Raises: Invalid for an empty full period or a service that leaves it.
    """
    if full.start == full.end:
        detail = "the full period is empty; write one that ends after it starts"
        raise Invalid(detail, code="bad_period", field="full")
    if service.start < full.start or service.end > full.end:
        detail = "the service leaves the full period; write one within it"
        raise Invalid(detail, code="bad_period", field="service")
    tick = timedelta(microseconds=1)
    return Fraction((service.end - service.start) // tick, (full.end - full.start) // tick)


def _lowered(
    charge: Charge, quantity: Decimal, proration: Fraction | None
) -> tuple[list[_Part], int]:
    """Return the charge's parts within its bounds, and their denominator."""
    share = _FULL if proration is None else proration
    require(0 <= share <= 1, "a proration is between 0 and 1")
    scale = _scale(charge, share)
    parts = list(_parts(charge, _units(quantity), scale))
    if charge.minimum is not None or charge.maximum is not None:
        parts = _bounded(parts, charge, scale)
    return parts, scale.denominator


def _scale(charge: Charge, share: Fraction) -> _Scale:
    """Return what the charge's prices are for: `per` units, 100 of an amount, or one."""
    match charge:
        case Unit() | Graduated() | Volume():
            return _Scale(_quantity(charge.per), _shown(charge.per), share)
        case Percentage() | GraduatedPercentage():
            return _Scale(100 * _WHOLE, ONE, share)
        case _:
            return _Scale(_WHOLE, ONE, share)


def _parts(charge: Charge, quantity: int, scale: _Scale) -> Iterator[_Part]:
    """Yield the parts of a charge, before its bounds."""
    if isinstance(charge, Flat):
        price = _price(charge.amount)
        shown = _shown(charge.amount)
        fee = scale.fee(price)
        yield _Part("Flat fee" + scale.note, _WHOLE, shown, fee, share=scale.share)
        return
    included = _included(charge, scale)
    if included and quantity:
        yield _Part("Included", min(included, quantity), _shown("0"), 0)
    billable = max(0, quantity - included)
    match charge:
        case Unit():
            shown = _shown(charge.unit)
            exact = scale.usage(billable, _price(charge.unit))
            yield _Part("Usage", billable, shown, exact, scale.per_shown)
        case Seat():
            exact = scale.seats(billable, _price(charge.unit))
            shown = _shown(charge.unit)
            yield _Part("Seats" + scale.note, billable, shown, exact, share=scale.share)
        case Package():
            count = -(-billable // _quantity(charge.package_size)) * _WHOLE
            exact = scale.usage(count, _price(charge.package_price))
            label = f"Packages of {charge.package_size}"
            yield _Part(label, count, _shown(charge.package_price), exact)
        case Percentage():
            yield from _entered(_percentage(charge), billable, scale)
        case Graduated() | GraduatedPercentage():
            yield from _graduated(charge.tiers, billable, scale)
        case Volume():
            yield from _volume(charge.tiers, billable, scale)
        case _:
            assert_never(charge)


def _graduated(
    tiers: Sequence[Tier | PercentTier], quantity: int, scale: _Scale
) -> Iterator[_Part]:
    """Yield each tier entered; the first one is entered by any quantity, also by none."""
    begin, after = 0, None
    for number, tier in enumerate(tiers, 1):
        band = _band(number, tier, after)
        end = quantity if band.end is None else min(quantity, band.end)
        yield from _entered(band, end - begin, scale)
        if end == quantity:
            return
        begin, after = end, tier.up_to


def _volume(tiers: Sequence[Tier], quantity: int, scale: _Scale) -> Iterator[_Part]:
    """Yield the whole quantity at the tier it lands in."""
    after = None
    for number, tier in enumerate(tiers, 1):
        band = _band(number, tier, after)
        if band.end is None or quantity <= band.end:
            yield from _entered(band, quantity, scale)
            return
        after = tier.up_to


def _entered(band: _Band, quantity: int, scale: _Scale) -> Iterator[_Part]:
    """Yield the fee for entering a tier, where it has one, and the quantity in it."""
    if band.flat:
        fee = scale.fee(band.flat)
        label = band.flat_label + scale.note
        yield _Part(label, _WHOLE, band.flat_shown, fee, share=scale.share)
    if quantity or not band.flat:
        exact = scale.usage(quantity, band.price)
        yield _Part(band.label, quantity, band.price_shown, exact, scale.per_shown)


def _included(charge: Charge, scale: _Scale) -> int:
    """Return the included quantity for the share served, rounded up to a whole unit.

    A flat fee has none, and seats are not consumed: their fee alone is scaled.
    """
    if isinstance(charge, Flat):
        return 0
    included = _quantity(charge.included)
    if isinstance(charge, Seat) or scale.share == 1:
        return included
    served = included * scale.share.numerator
    whole = -(-served // (scale.share.denominator * _WHOLE)) * _WHOLE
    return min(included, whole)


def _bounded(parts: list[_Part], charge: Charge, scale: _Scale) -> list[_Part]:
    """Add the true-up to the minimum, or cut the lines that cross the maximum, in their order."""
    exact = sum(part.exact for part in parts)
    if charge.minimum is not None:
        missing = scale.fee(_price(charge.minimum)) - exact
        if missing > 0:
            least = _shown(charge.minimum)
            label = "Minimum" + scale.note
            parts.append(_Part(label, _WHOLE, None, missing, share=scale.share, bound=least))
    if charge.maximum is not None:
        left = scale.fee(_price(charge.maximum))
        for place, part in enumerate(parts):
            if part.exact > left:
                cut = f"{part.description}, up to the maximum{scale.note}"
                most = _shown(charge.maximum)
                parts[place] = part._replace(
                    description=cut, exact=left, share=scale.share, bound=most
                )
            left -= parts[place].exact
    return parts


def _shared(total: Money, exacts: list[int], denominator: int) -> list[Money]:
    """Share the rounded total over the lines by largest remainder; the earlier line wins a tie."""
    size = 10 ** exponent(total.currency)
    if len(exacts) == 1:
        return [total]
    splits = [divmod(exact * size, denominator) for exact in exacts]
    minors = [whole for whole, _ in splits]
    left = total.minor - sum(minors)
    if left:
        places = range(len(splits))
        for place in sorted(places, key=lambda place: -splits[place][1])[:left]:
            minors[place] += 1
    return [Money(minor, total.currency) for minor in minors]


def _line(part: _Part, amount: Money) -> RatedLine:
    """Return the line of a part; a true-up has no price but its own amount."""
    unit = Decimal(amount.text()) if part.unit is None else part.unit
    quantity = _decimal(part.quantity, DECIMALS)
    share = None if part.share == 1 else part.share
    return RatedLine(part.description, quantity, unit, amount, part.per, share, part.bound)


@lru_cache(maxsize=4096)
def _band(number: int, tier: Tier | PercentTier, after: str | None) -> _Band:
    """Return a tier as numbers, named as an invoice names it; it begins `after` another."""
    reach = f"above {after or 0}" if tier.up_to is None else f"up to {tier.up_to}"
    end = None if tier.up_to is None else _quantity(tier.up_to)
    flat, flat_shown = _price(tier.flat), _shown(tier.flat)
    if isinstance(tier, Tier):
        label, price, shown = f"Tier {number} ({reach})", _price(tier.unit), _shown(tier.unit)
    else:
        label = f"Tier {number} ({reach}, {tier.percent}%)"
        price, shown = _price(tier.percent), _hundredth(tier.percent)
    return _Band(label, f"{label}, flat fee", end, flat, price, flat_shown, shown)


@lru_cache(maxsize=4096)
def _percentage(charge: Percentage) -> _Band:
    """Return a percentage as its one endless tier."""
    price, shown = _price(charge.percent), _hundredth(charge.percent)
    fixed, fixed_shown = _price(charge.fixed), _shown(charge.fixed)
    return _Band(f"{charge.percent}%", "Fixed fee", None, fixed, price, fixed_shown, shown)


@lru_cache(maxsize=4096)
def _note(share: Fraction) -> str:
    """Return how much of the period was served, to a hundredth of a percent, for reading only."""
    whole, part = divmod((share.numerator * 20_000 // share.denominator + 1) // 2, 100)
    return f" ({whole}.{part:02d}% of the period)"


def _units(quantity: Decimal) -> int:
    """Return a quantity in 10^-9. Raises: Invalid where that would lose or mean nothing."""
    if quantity.is_finite() and quantity >= 0:
        numerator, denominator = quantity.as_integer_ratio()
        units, rest = divmod(numerator * _WHOLE, denominator)
        if not rest:
            return units
    detail = "write a number that is not negative, with at most 9 decimals"
    raise Invalid(detail, code="bad_quantity", field="quantity")


@lru_cache(maxsize=4096)
def _price(text: str) -> int:
    """Return a price in 10^-15; the charge has checked its text."""
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(_PRICE_DECIMALS, "0"))


@lru_cache(maxsize=4096)
def _quantity(text: str) -> int:
    """Return a quantity of the charge in 10^-9."""
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(DECIMALS, "0"))


@lru_cache(maxsize=4096)
def _shown(text: str) -> Decimal:
    return Decimal(text)


def _hundredth(percent: str) -> Decimal:
    """Return a percentage as what every 1 pays, exactly."""
    return _decimal(_price(percent), _PRICE_DECIMALS + 2)


def _decimal(units: int, places: int) -> Decimal:
    """Return units of 10^-places as a Decimal; made from text, which no context can round."""
    whole, part = divmod(units, 10**places)
    return Decimal(f"{whole}.{part:0{places}d}".rstrip("0")) if part else Decimal(whole)
