"""What an agreement lets its windows use: limits, included quantities, what is free of credit.

Seats scale what is promised per seat. Where a change cut a period, its windows share what all
stretches of it come to (RULES 8); metering subtracts what the earlier ones used.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.catalog.model import Price
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.kernel.quantity import multiply
from convergio.metering.model import ALERTS, DEFAULT_SEGMENT, Limit, Segment, Share
from convergio.rating.model import Flat, Seat
from convergio.rating.rules import allowance, included_for, included_per_seat, rate
from convergio.subscriptions.model import Item

_ZERO: Final = Decimal(0)
_MUCH: Final = Decimal(10**12)


def is_per_seat(price: Price) -> bool:
    """Say whether seats change what a price asks, or what it promises of its meter."""
    return (
        isinstance(price.charge, Seat)
        or (price.quota is not None and price.quota.per_seat)
        or included_per_seat(price.charge)
    )


class Line(NamedTuple):
    """A price that an agreement pins, for how many seats, and since when."""

    price: Price
    seats: Decimal
    begins: datetime


def segment_of(
    lines: Sequence[Line],
    *,
    start: datetime,
    time_zone: str,
    anchor: datetime,
    since: datetime,
    unsummed: AbstractSet[str] = frozenset(),
    is_trial: bool = False,
) -> Segment:
    """Return the usage windows and limits that an agreement of `since` sets from a start on.

    Each meter's windows are the periods of its own price, so they reset together (RULES 3). Those
    of a trial are cut out of the periods before the anchor; `unsummed` meters are never added up.
    """
    return Segment(
        anchor=anchor,
        time_zone=time_zone,
        interval=Interval.MONTH,
        starts_at=start,
        limits={
            line.price.meter_key: _limit(line, unsummed, is_trial=is_trial)
            for line in lines
            if line.price.meter_key is not None
        },
        since=since,
    )


def segment_after(end: datetime) -> Segment:
    """Return what follows an agreement: calendar months of UTC without limits."""
    return msgspec.structs.replace(DEFAULT_SEGMENT, starts_at=end)


def _limit(line: Line, unsummed: AbstractSet[str], *, is_trial: bool) -> Limit:
    found = line.price.quota
    return Limit(
        limit=_hard(line),
        included=_included(line),
        interval=line.price.interval,
        alerts=ALERTS if found is None else found.alerts,
        free=_free(line, is_trial=is_trial),
        price=line.price.price_id,
        begins=line.begins,
        summed=line.price.meter_key not in unsummed,
    )


def _included(line: Line) -> Decimal | None:
    charge = line.price.charge
    return None if isinstance(charge, Flat) else included_for(charge, line.seats)


def quota(line: Line) -> Decimal:
    """Return what a price promises of a period: its quota, or what it includes."""
    found = line.price.quota
    if found is None:
        return _included(line) or _ZERO
    return multiply(found.limit, line.seats) if found.per_seat else found.limit


def _hard(line: Line) -> Decimal | None:
    return quota(line) if line.price.quota is not None and line.price.quota.hard else None


def _free(line: Line, *, is_trial: bool) -> Decimal | None:
    """Return beyond what usage of a period draws prepaid credit; None: never.

    What is included, where more of it is charged; else, as in a trial, the hard limit. A limit
    below what is included counts, for nothing beyond it can be used without credit. Where values
    of a dimension have charges of their own, no unit stands for another, and none is drawn.
    """
    price, hard, included = line.price, _hard(line), _included(line)
    if price.by is not None:
        return None
    if is_trial or not rate(price.charge, _MUCH, currency=price.currency).total.minor:
        return hard
    if included is None or hard is None:
        return hard if included is None else included
    return min(included, hard)


def shares(
    items: Sequence[Item], prices: Mapping[UUID, Price], calendar: Mapping[Interval, Calendar],
    at: datetime, *, unsummed: AbstractSet[str] = frozenset(),
) -> list[Share]:  # fmt: skip
    """Return what the windows of each meter's period around `at` come to, where a change cut it.

    The allowance of a period is that of all stretches of it, to the second (RULES 8). What is
    never summed has a share for each stretch alone.
    """
    found: list[Share] = []
    periods = _stretches(items, prices, calendar, at)
    kinds = Counter(meter_key for meter_key, _ in periods)
    for (meter_key, full), parts in periods.items():
        groups = [[part] for part in parts] if meter_key in unsummed else [parts]
        whole = meter_key not in unsummed and kinds[meter_key] == 1
        found += [
            _share(meter_key, full, some, whole=whole) for some in groups if some[0][1] != full
        ]
    return found


_Part = tuple[Line, Period]


class Stretch(NamedTuple):
    """A part of a usage period, and the terms that it is on."""

    line: Line
    period: Period
    full: Period


def stretches_at(
    items: Sequence[Item], prices: Mapping[UUID, Price], calendar: Mapping[Interval, Calendar],
    at: datetime,
) -> dict[str, list[Stretch]]:  # fmt: skip
    """Return by meter the stretches of its period around an instant, in order of time.

    Of two, where its price went from weeks to months, it is the one that is in force.
    """
    found: dict[str, list[Stretch]] = {}
    for (meter_key, full), parts in _stretches(items, prices, calendar, at).items():
        some = [Stretch(line, part, full) for line, part in parts]
        known = found.get(meter_key)
        if known is None or known[-1].period.start < some[-1].period.start:
            found[meter_key] = some
    return found


def _stretches(
    items: Sequence[Item], prices: Mapping[UUID, Price], calendar: Mapping[Interval, Calendar],
    at: datetime,
) -> dict[tuple[str, Period], list[_Part]]:  # fmt: skip
    """Return by meter and period around `at` the stretches of it in order of time.

    A meter has two periods where its price went from weeks to months. An item that ended without
    credit keeps its part to the period's end, as billing has it.
    """
    found: dict[tuple[str, Period], list[_Part]] = {}
    for item in sorted(items, key=attrgetter("active_from")):
        price = prices[item.price_id]
        if price.meter_key is None:
            continue
        months = calendar[price.interval]
        full = months.period(months.number_at(at))
        ended = item.active_until if item.credited else None
        until = full.end if ended is None else min(ended, full.end)
        start = max(full.start, item.active_from)
        gone = item.active_until is not None and item.active_until <= full.start
        if start < until and not gone:
            line = Line(price, item.quantity, item.active_from)
            found.setdefault((price.meter_key, full), []).append((line, Period(start, until)))
    return found


def _share(meter_key: str, full: Period, parts: Sequence[_Part], *, whole: bool) -> Share:
    def sum_of(promised: Callable[[Line], Decimal]) -> Decimal:
        return allowance([(promised(line), part) for line, part in parts], full)

    return Share(
        meter_key=meter_key,
        period=full if whole else Period(parts[0][1].start, parts[-1][1].end),
        limit=sum_of(quota),
        included=sum_of(lambda line: _included(line) or _ZERO),
        free=sum_of(_free_or_quota),
    )


def free_at(
    items: Sequence[Item], prices: Mapping[UUID, Price], calendar: Mapping[Interval, Calendar],
    at: datetime, meter_key: str,
) -> Decimal | None:  # fmt: skip
    """Return beyond what of a summed meter's period around an instant usage draws prepaid credit.

    None: never. As windows have it that are laid for these items.
    """
    for share in shares(items, prices, calendar, at):
        if share.meter_key == meter_key:
            return share.free
    for item in items:
        price = prices[item.price_id]
        begun = item.active_from <= at and (item.active_until is None or at < item.active_until)
        if begun and price.meter_key == meter_key:
            return _free(Line(price, item.quantity, item.active_from), is_trial=False)
    return None


def _free_or_quota(line: Line) -> Decimal:
    found = _free(line, is_trial=False)
    return quota(line) if found is None else found
