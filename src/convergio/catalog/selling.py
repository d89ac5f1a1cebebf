"""Read what a plan of the catalog file sells: its prices, in each currency, by dimension, or once.

A price that is written in several currencies becomes one price each, because a subscription pins
exactly one. The plan must then sell the same things in every currency, so that no customer gets a
plan that lacks a part.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from convergio.catalog.model import (
    DESCRIPTION_SIZE_MAX,
    MeterTerms,
    PlanLine,
    PlanTerms,
    PriceLine,
    PriceTerms,
    Quota,
    QuotaLine,
)
from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent
from convergio.kernel.quantity import parse_quantity
from convergio.kernel.text import check_text
from convergio.rating.model import PER_SEAT_BOUND, Charge, Flat, Seat
from convergio.rating.rules import included_per_seat

Read = TypeVar("Read")
_ADDED_UP: Final = frozenset({"sum", "count"})


def plan_terms(
    line: PlanLine, path: str, meters: Mapping[str, MeterTerms], currency: str | None
) -> PlanTerms:
    """Check a plan's references and numbers. Raises: Invalid naming the field."""
    placed = [
        (where, price)
        for place, one in enumerate(line.prices)
        for where, price in _prices(one, f"{path}.prices[{place}]", meters, currency)
    ]
    prices = [price for _, price in placed]
    for at, (where, price) in enumerate(placed):
        if any(price.meter_key and price.same_meter(other) for other in prices[:at]):
            detail = f"the plan prices meter '{price.meter_key}' twice; put both in one charge"
            raise Invalid(detail, code="meter_priced_twice", field=f"{where}.meter")
        if line.add_on and price.meter_key is not None:
            detail = "an add-on is a fee; sell usage in a plan, or grant prepaid units"
            raise Invalid(detail, code="add_on_with_meter", field=f"{where}.meter")
    _complete(path, prices)
    description = line.description.strip()  # a block of text ends with a line feed
    if description:
        check_text(
            description, field=f"{path}.description", size_max=DESCRIPTION_SIZE_MAX, lines=True
        )
    return PlanTerms(
        key=line.key,
        name=check_text(line.name, field=f"{path}.name"),
        description=description,
        prices=tuple(prices),
        add_on=line.add_on,
        paths=tuple(where.removeprefix(f"{path}.") for where, _ in placed),
    )


def _complete(path: str, prices: Sequence[PriceTerms]) -> None:
    """Refuse a plan that sells something in one of its currencies and not in another."""
    sold = {one.currency: Counter[tuple[object, ...]]() for one in prices}
    for one in prices:
        sold[one.currency][one.meter_key, one.interval, one.once] += 1
    for currency, some in sold.items():
        for other, rest in sold.items():
            lacking = next(iter((some - rest).elements()), None)
            if lacking is not None:
                what = f"a price of meter '{lacking[0]}'" if lacking[0] else "a fee"
                detail = f"it sells {what} in {currency} and not in {other}; add the price"
                raise Invalid(detail, code="currency_incomplete", field=f"{path}.prices")


def _prices(
    line: PriceLine, path: str, meters: Mapping[str, MeterTerms], fallback: str | None
) -> Iterator[tuple[str, PriceTerms]]:
    """Yield a line's price, and one more for each further currency, with their places."""
    price = _price(line, path, meters, fallback)
    yield path, price
    for currency, charge in line.currencies.items():
        where = f"{path}.currencies.{currency}"
        read(exponent, currency, where)
        if currency == price.currency:
            detail = f"{currency} is what `charge` is in; leave it out here"
            raise Invalid(detail, code="currency_twice", field=where)
        if type(charge) is not type(price.charge):
            detail = "use the same model in every currency, or write a price for each"
            raise Invalid(detail, code="mixed_models", field=f"{where}.model")
        yield where, replace(price, key=f"{price.key}_{currency}", currency=currency, charge=charge)


def _price(
    line: PriceLine, path: str, meters: Mapping[str, MeterTerms], fallback: str | None
) -> PriceTerms:
    currency = line.currency or fallback
    if currency is None:
        detail = "no currency is given; add currency: usd here or at the top of the file"
        raise Invalid(detail, code="missing_currency", field=f"{path}.currency")
    read(exponent, currency, f"{path}.currency" if line.currency else "currency")
    if line.meter is not None and line.meter not in meters:
        detail = f"there is no meter '{line.meter}'; list it under meters or correct the name"
        raise Invalid(detail, code="unknown_meter", field=f"{path}.meter")
    if line.meter is not None and isinstance(line.charge, Seat):
        detail = "a seat charge counts seats, not usage; remove the meter or charge by unit"
        raise Invalid(detail, code="seat_with_meter", field=f"{path}.meter")
    if line.meter is None and line.quota is not None:
        detail = "a quota limits a meter; name the price's meter or remove the quota"
        raise Invalid(detail, code="quota_without_meter", field=f"{path}.quota")
    if line.meter is not None and line.quota is not None and line.quota.hard:
        check_hard(meters[line.meter], field=f"{path}.quota.hard")
    check_included(line.meter, line.charge, field=f"{path}.charge.included_per_seat")
    if line.once and line.meter is not None:
        detail = "what is charged once is a fee; remove the meter, or remove once"
        raise Invalid(detail, code="once_with_meter", field=f"{path}.once")
    _check_dimension(line, path, meters)
    return PriceTerms(
        key=line.key,
        version=line.version,
        name=check_text(line.name, field=f"{path}.name"),
        meter_key=line.meter,
        interval=line.interval,
        currency=currency,
        charge=line.charge,
        quota=_quota(line.quota, f"{path}.quota"),
        tax_category=line.tax_category,
        tax_inclusive=line.tax_inclusive,
        once=line.once,
        by=line.by,
        charges=dict(line.charges),
    )


def check_included(meter_key: str | None, charge: Charge, *, field: str) -> None:
    """Refuse a fee that includes so much for each seat: it includes nothing. Raises: Invalid."""
    if meter_key is None and included_per_seat(charge):
        detail = "only usage has an included quantity per seat; name a meter or remove it"
        raise Invalid(detail, code="seats_without_meter", field=field)


def check_values(charges: Mapping[str, Charge], *, field: str) -> None:
    """Refuse a fee as the charge of a dimension's value. Raises: Invalid."""
    for value, charge in charges.items():
        if isinstance(charge, Seat | Flat):
            detail = "usage of one value is charged by quantity; use unit or another model"
            raise Invalid(detail, code="mixed_models", field=f"{field}.{value}.model")


def check_hard(meter: MeterTerms, *, field: str) -> None:
    """Refuse a hard limit that nobody could keep: an ask has no value to tell whether it is new.

    Raises: Invalid.
    """
    if meter.aggregation == "unique_count":
        detail = f"meter '{meter.key}' counts distinct values, so no ask can be held to a limit"
        mend = "write hard: false, which alerts"
        raise Invalid(f"{detail}; {mend}", code="unenforceable_quota", field=field)


def _check_dimension(line: PriceLine, path: str, meters: Mapping[str, MeterTerms]) -> None:
    """Refuse prices by a dimension that usage is not grouped by."""
    if line.by is None:
        if line.charges:
            detail = "name the dimension that these are for, such as by: model"
            raise Invalid(detail, code="missing_dimension", field=f"{path}.by")
        return
    meter = None if line.meter is None else meters[line.meter]
    if meter is None or line.by not in meter.group_by:
        mend = "remove it" if meter is None else f"add it to group_by of meter '{meter.key}'"
        detail = f"usage is not grouped by '{line.by}'; {mend}"
        raise Invalid(detail, code="unknown_dimension", field=f"{path}.by")
    if meter.aggregation not in _ADDED_UP:
        detail = f"the groups of a {meter.aggregation} do not add up; price it without by"
        raise Invalid(detail, code="unpriced_dimension", field=f"{path}.by")
    if not line.charges:
        detail = f"write a charge for at least one value of '{line.by}'"
        raise Invalid(detail, code="missing_charges", field=f"{path}.charges")
    if line.currencies:
        detail = "a price by dimension is in one currency; write one price a currency"
        raise Invalid(detail, code="mixed_currency", field=f"{path}.currencies")
    check_values(line.charges, field=f"{path}.charges")


def _quota(line: QuotaLine | None, path: str) -> Quota | None:
    if line is None:
        return None
    limit = read(parse_quantity, line.limit, f"{path}.limit")
    if line.per_seat and limit >= PER_SEAT_BOUND:
        detail = "each seat has less than 10 to the power 18; write less"
        raise Invalid(detail, code="bad_quantity", field=f"{path}.limit")
    return Quota(limit, line.hard, tuple(sorted(set(line.alerts))), line.per_seat)


def read(reader: Callable[[str], Read], text: str, path: str) -> Read:
    """Read a text, and name its place where it cannot be read. Raises: Invalid."""
    try:
        return reader(text)
    except Invalid as error:
        raise Invalid(error.detail, code=error.code, field=path) from None
