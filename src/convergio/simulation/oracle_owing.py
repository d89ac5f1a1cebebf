"""The oracle's idea of what is owed: every fee and every stretch of usage, from the first day.

RULES 1, 3, 5, 7, 8 and DESIGN 6: fees when their period begins, usage when it ends or when the
subscription does; proration counts seconds; the prices that follow each other in a period share
one allowance. Every answer is computed anew from the life and the events that were told.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from convergio.kernel.money import exponent
from convergio.simulation import oracle_prices as prices
from convergio.simulation.oracle_calendar import Span, span_at, spans
from convergio.simulation.oracle_holds import Agreement, Hold, Price, interval
from convergio.simulation.oracle_life import Life

_NONE = Fraction(0)
_MOMENT = timedelta(seconds=1)
"""What an invoice shows as the period of a charge that is asked once."""


class Key(NamedTuple):
    """One thing that is owed: a hold of an agreement, in a period, as a fee or as usage.

    `group` is the value of a dimension that has a charge of its own.
    """

    agreement: int
    hold: int
    start: datetime
    kind: str
    group: str = ""


class Part(NamedTuple):
    """Which events of a meter a charge is for: with one value of a dimension, or with no other."""

    by: str
    value: str = ""
    others: frozenset[str] = frozenset()

    def holds(self, data: Mapping[str, str]) -> bool:
        """Say whether an event is one of them."""
        found = data.get(self.by, "")
        return found == self.value if self.value else found not in self.others


ALL = Part("")


@dataclass(frozen=True, slots=True)
class Owed:
    """What a key comes to in minor units, from when, and since which fact anyone could know."""

    key: Key
    name: str
    span: Span
    zone: str
    due: datetime
    amount: int
    quantity: Fraction
    shown: Span
    price: Price
    cut: datetime | None = None
    why: str = ""

    @property
    def is_empty(self) -> bool:
        """Say whether it ended at the very instant at which it began."""
        return self.cut is not None and self.cut <= self.due


class Usage:
    """The events of one customer, as corrected so far.

    `drawn` is what prepaid units pay of them, by hold and beginning of its period.
    """

    def __init__(self, meters: Mapping[str, Mapping[str, str]]) -> None:
        """Begin with nothing; `meters` is the catalog file's, by key."""
        self._meters = meters
        self._events: dict[str, tuple[datetime, Mapping[str, str]]] = {}
        self._amended: dict[str, tuple[datetime, str, Mapping[str, str]]] = {}
        self._voided: set[str] = set()
        self.drawn: dict[tuple[int, datetime], Fraction] = {}

    def told(self, verb: str, words: Mapping[str, str], at: datetime) -> None:
        """Hear of an event or of a correction; which comes first makes no difference."""
        name = words["id"]
        data = {key: value for key, value in words.items() if key not in {"id", "time", "fix"}}
        if verb == "void":
            self._voided.add(name)
        elif verb == "amend":
            before = self._amended.get(name)
            if before is None or (at, words["fix"]) > before[:2]:
                self._amended[name] = (at, words["fix"], data)
        else:
            self._events.setdefault(name, (datetime.fromisoformat(words["time"]), data))

    def used(self, meter: str, start: datetime, end: datetime, part: Part = ALL) -> Fraction:
        """Return what a meter comes to in `[start, end)`, in all or of a part of its events."""
        counted = [
            self._amended.get(name, (0, 0, data))[2]
            for name, (at, data) in self._events.items()
            if start <= at < end and name not in self._voided
        ]
        every = (self._value(meter, data) for data in counted if part.holds(data))
        found = [value for value in every if value is not None]
        if self.aggregation(meter) == "max":
            return Fraction(max(found, default=Decimal(0)))
        return Fraction(sum(found, Decimal(0)))

    def aggregation(self, meter: str) -> str:
        """Return how a meter adds up."""
        return self._meters[meter]["aggregation"]

    def _value(self, meter: str, data: Mapping[str, str]) -> Decimal | None:
        rule = self._meters[meter]
        text = data.get(rule["value"], rule.get("default"))
        return None if text is None else Decimal(text)


def owed(life: Life, usage: Usage, *, closed: datetime, currency: str) -> Iterator[Owed]:
    """Yield everything that is due by an instant; nothing is left out for being zero."""
    places = exponent(currency)
    for agreement in life.agreements:
        numbers = {id(hold): number for number, hold in enumerate(agreement.holds)}
        for hold in agreement.holds:
            if hold.is_once:
                yield from _asked(agreement, hold, numbers[id(hold)], closed, places)
            elif "meter" not in hold.price:
                yield from _fees(agreement, hold, numbers[id(hold)], closed, places)
        parts = [(h, value) for h in agreement.holds if "meter" in h.price for value in _values(h)]
        found: list[Owed] = []
        for group in dict.fromkeys(_group(*part) for part in parts):
            same = [hold for hold, value in parts if _group(hold, value) == group]
            value = group[2]
            found += _stretches(
                agreement, same, value, numbers, usage, closed=closed, places=places
            )
        yield from sorted(found, key=lambda one: one.key.hold)  # and as the values are written


def _values(hold: Hold) -> list[str]:
    """Return the values of its dimension that a price charges apart, and "" for all others."""
    return ["", *hold.price.get("charges", {})]


def _group(hold: Hold, value: str) -> tuple[str, str, str]:
    return str(hold.price["meter"]), interval(hold.price), value


def _charge_of(price: Price, value: str) -> prices.Charge:
    charge: prices.Charge = price["charges"][value] if value else price["charge"]
    return charge


def _part_of(price: Price, value: str) -> Part:
    return Part(price["by"], value, frozenset(price["charges"])) if "by" in price else ALL


def _asked(
    agreement: Agreement, hold: Hold, number: int, closed: datetime, places: int
) -> Iterator[Owed]:
    """Yield what is asked once, in whole, at its instant; nothing where it was taken back."""
    if hold.since > closed or hold.until is not None:
        return
    moment = hold.since, hold.since + _MOMENT
    yield Owed(
        key=Key(agreement.number, number, hold.since, "fixed"),
        name=hold.price["name"],
        span=moment,
        zone=agreement.zone,
        due=hold.since,
        amount=prices.rounded(prices.fee(hold.price["charge"], hold.count, Fraction(1)), places),
        quantity=Fraction(hold.count),
        shown=moment,
        price=hold.price,
    )


def _fees(
    agreement: Agreement, hold: Hold, number: int, closed: datetime, places: int
) -> Iterator[Owed]:
    until = hold.until
    for span in spans(agreement.anchor, agreement.zone, interval(hold.price), closed):
        start, end = span
        due = max(start, hold.since)
        past = until is not None and until <= start and hold.since < start
        if hold.since >= end or past or due > closed:
            continue
        never = until is not None and until <= hold.since
        cut = until if never or (until is not None and until < end and hold.credited) else None
        share = _share(due, end if cut is None else cut, span)
        yield Owed(
            key=Key(agreement.number, number, start, "fixed"),
            name=hold.price["name"],
            span=span,
            zone=agreement.zone,
            due=due,
            amount=prices.rounded(prices.fee(hold.price["charge"], hold.count, share), places),
            quantity=Fraction(hold.count),
            shown=(start, end if cut is None else cut),
            price=hold.price,
            cut=cut,
            why=hold.why,
        )


def _stretches(
    agreement: Agreement,
    holds: Sequence[Hold],
    value: str,
    numbers: Mapping[int, int],
    usage: Usage,
    *,
    closed: datetime,
    places: int,
) -> Iterator[Owed]:
    """Yield the usage of one meter, period by period and stretch by stretch."""
    every = interval(holds[0].price)
    for span in spans(agreement.anchor, agreement.zone, every, closed):
        start, end = span
        due = end
        if agreement.ended_at is not None and agreement.ended_at < end:
            due = max(agreement.ended_at, start)
        here = [
            h for h in holds
            if h.since < end and (h.until is None or (h.until > start and h.until > h.since))
        ]  # fmt: skip
        if due > closed or not here:
            continue
        for hold in here:
            cost, quantity = _stretch(hold, here, value, usage, span)
            yield Owed(
                key=Key(agreement.number, numbers[id(hold)], start, "usage", value),
                name=hold.price["name"] + (f" ({value})" if value else ""),
                span=span,
                zone=agreement.zone,
                due=due,
                amount=prices.rounded(cost, places),
                quantity=quantity,
                shown=(start, min(hold.until or end, end)),
                price=hold.price,
            )


def _stretch(
    hold: Hold, every: Sequence[Hold], value: str, usage: Usage, span: Span
) -> tuple[Fraction, Fraction]:
    """Return what one price costs for its own stretch of a period, and the units in it."""
    start, end = span
    meter, charge = hold.price["meter"], _charge_of(hold.price, value)
    since, until = max(hold.since, start), min(hold.until or end, end)
    share = _paid_share(hold, span)
    if usage.aggregation(meter) == "max":
        top = usage.used(meter, since, until)
        beyond = max(_NONE, top - allowed([hold], span, value))
        return prices.usage(charge, _NONE, beyond, reach=beyond, share=share), top
    allowance = allowed(every, span, value)
    used = [(h.since, _units(h, value, usage, span)) for h in every]
    before = sum((units for at, units in used if at < hold.since), _NONE)
    here = _units(hold, value, usage, span)
    shown = usage.used(meter, since, until, _part_of(hold.price, value))
    total = sum((units for _, units in used), _NONE)
    first, last, reach = (max(_NONE, units - allowance) for units in (before, before + here, total))
    return prices.usage(charge, first, last, reach=reach, share=share), shown


def _units(hold: Hold, value: str, usage: Usage, span: Span) -> Fraction:
    """Return what a price is asked for in its stretch of a period: what no prepaid units pay."""
    start, end = span
    since, until = max(hold.since, start), min(hold.until or end, end)
    used = usage.used(hold.price["meter"], since, until, _part_of(hold.price, value))
    return used - usage.drawn.get((id(hold), start), _NONE)


def allowed(every: Sequence[Hold], span: Span, value: str = "") -> Fraction:
    """Return the allowance of a period: each price's part of it, added up and rounded up."""
    exact = sum(
        (prices.included(_charge_of(h.price, value)) * _paid_share(h, span) for h in every), _NONE
    )
    whole = all(_paid_share(h, span) in {0, 1} for h in every)
    return exact if whole else Fraction(ceil(exact))


def limit_now(life: Life, usage: Usage, meter: str, at: datetime) -> Fraction | None:
    """Return a hard quota's allowance less what earlier stretches of the period used."""
    live = life.live
    if live is None or live.state != "active":
        return None
    holds = [h for h in live.holds if h.price.get("meter") == meter]
    hold = next((h for h in holds if h.until is None), None)
    if hold is None or "quota" not in hold.price:
        return None
    span = span_at(live.anchor, live.zone, interval(hold.price), at)
    if span is None:
        return None
    start, end = span
    holds = [h for h in holds if interval(h.price) == interval(hold.price)]
    here = [
        h for h in holds if h.since < end and (h.until is None or h.until > max(h.since, start))
    ]
    earlier = sum((usage.used(meter, max(h.since, start), h.until) for h in here if h.until), _NONE)
    return max(_NONE, allowed(here, span) - earlier)


def _paid_share(hold: Hold, span: Span) -> Fraction:
    """Return which part of a period is paid for: to its end, where nothing was given back."""
    start, end = span
    cut = hold.until is not None and hold.until < end and hold.credited
    return _share(max(hold.since, start), hold.until if cut and hold.until else end, span)


def _share(since: datetime, until: datetime, span: Span) -> Fraction:
    start, end = span
    seconds = max(0, int((until - since).total_seconds()))
    return Fraction(seconds, int((end - start).total_seconds()))
