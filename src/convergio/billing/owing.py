"""What is owed: a pure function of stored periods, pinned prices and usage (RULES 1, 7, 8).

Fees are owed in advance, from the moment that their item begins; usage in arrears, at the end of
its period. An item that began or ended within a period owes its share of the fee, to the second;
one that was canceled without credit owes the period whole, and keeps its allowance for it. Where
several prices of a meter follow each other in a period, they share one allowance and one
cumulative usage, so that a change can neither give nor take a free unit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.billing.model import Charge, ChargeKey, Kind
from convergio.catalog.model import Price
from convergio.kernel.errors import ConvergioError, require
from convergio.kernel.money import Money
from convergio.kernel.periods import Period
from convergio.kernel.quantity import add_up, quantity_text
from convergio.rating.model import Flat, Rated
from convergio.rating.rules import Segment, allowance, proration, rate, rate_segment
from convergio.subscriptions.model import Agreement, BillingView, Item, Subscription

Usage = Mapping[tuple[UUID, str, datetime], Decimal]
UsageRequest = tuple[UUID, str, Period]

_ZERO: Final = Decimal(0)
_WHOLE: Final = Fraction(1)
_MEMO_MAX: Final = 100_000


class Prices:
    """Pinned prices, which never change, and what each quantity of them came to."""

    __slots__ = ("_by_id", "_rated", "unsummed")

    def __init__(self, prices: Mapping[UUID, Price] | None = None) -> None:
        """Begin with the prices that are at hand; `unsummed` meters are never added up."""
        self.unsummed: frozenset[str] = frozenset()
        self._by_id: dict[UUID, Price] = dict(prices or {})
        self._rated: dict[tuple[UUID, Decimal, Fraction], tuple[Money, str]] = {}

    def missing(self, views: Iterable[BillingView]) -> list[UUID]:
        """Return the ids of prices that these customers pin and that are still to be read."""
        pinned = {item.price_id for v in views for one in v.agreements for item in one.items}
        return sorted(pinned - self._by_id.keys())

    def add(self, prices: Mapping[UUID, Price]) -> None:
        """Keep more prices."""
        self._by_id |= prices

    def get(self, price_id: UUID) -> Price:
        """Return a pinned price. Raises: Fault when it is not there."""
        require(price_id in self._by_id, f"price {price_id} is pinned and not in the catalog")
        return self._by_id[price_id]

    def rate(self, price: Price, quantity: Decimal, share: Fraction = _WHOLE) -> tuple[Money, str]:
        """Return what a quantity comes to and its steps as JSON, rated once for all customers."""
        known = self._rated.get((price.price_id, quantity, share))
        if known is None:
            rated = rate(price.charge, quantity, currency=price.currency, proration=share)
            known = rated.total, steps_text(rated)
            if len(self._rated) >= _MEMO_MAX:
                self._rated.clear()
            self._rated[price.price_id, quantity, share] = known
        return known


def steps_text(rated: Rated) -> str:
    """Return the steps of the arithmetic as a JSON array, numbers as text."""
    steps = [
        {
            "description": line.description,
            "quantity": quantity_text(line.quantity),
            "unit": format(line.unit, "f"),
            "per": quantity_text(line.per),
            "amount": line.amount.text(),
        }
        for line in rated.lines
    ]
    return msgspec.json.encode(steps).decode()


class _Stretch(NamedTuple):
    """The time of a stored period in which an item was active: `[start, end)`.

    `served` is how long its fee and allowance last: to the period's end where an end gave nothing
    back.
    """

    subscription: Subscription
    item: Item
    price: Price
    period: Period
    start: datetime
    end: datetime
    served: datetime

    @property
    def is_whole(self) -> bool:
        """Say whether the fee and the allowance are those of the whole period."""
        return self.start == self.period.start and self.served == self.period.end

    @property
    def share(self) -> Fraction:
        """The part of the period that is paid for."""
        return proration(self.period, Period(self.start, self.served))

    @property
    def due_at(self) -> datetime:
        """A fee is due when it begins; usage when its period ends, or its subscription does."""
        if self.price.meter_key is None:
            return self.start
        ended = self.subscription.canceled_at
        return self.period.end if ended is None else max(self.end, min(self.period.end, ended))


def _stretches(view: BillingView, prices: Prices) -> Iterator[_Stretch]:
    """Yield every stretch of every item; time in which an item was not active owes nothing."""
    for agreement in view.agreements:
        for item in agreement.items:
            yield from _stretches_of(agreement, item, prices.get(item.price_id))


def _stretches_of(agreement: Agreement, item: Item, price: Price) -> Iterator[_Stretch]:
    until = item.active_until
    for period in agreement.periods.get(price.interval, ()):
        start = max(period.start_at, item.active_from)
        end = period.end_at if until is None else min(period.end_at, until)
        if start < end:
            served = end if item.credited else period.end_at
            whole = Period(period.start_at, period.end_at)
            yield _Stretch(agreement.subscription, item, price, whole, start, end, served)


def usage_requests(view: BillingView, prices: Prices, *, closed: datetime) -> list[UsageRequest]:
    """Return the usage that decides what is owed at boundaries up to `closed`.

    Nothing is asked for a customer whose prices cannot be read: `bill` tells why.
    """
    try:
        return [
            (view.customer_id, part.price.meter_key, Period(part.start, part.end))
            for part in _stretches(view, prices)
            if part.price.meter_key is not None and part.due_at <= closed
        ]
    except ConvergioError:
        return []


def owed(
    view: BillingView, prices: Prices, usage: Usage, *, closed: datetime
) -> dict[ChargeKey, Charge]:
    """Return what a customer owes for every boundary up to `closed`, charges of zero included.

    Rounds: once a key, in rating.
    """
    charges: dict[ChargeKey, Charge] = {}
    metered: dict[tuple[UUID, str, Period], list[_Stretch]] = {}
    for part in _stretches(view, prices):
        if part.due_at > closed:
            continue
        meter_key = part.price.meter_key
        if meter_key is None:
            share = _WHOLE if part.is_whole else part.share
            rated = prices.rate(part.price, part.item.quantity, share)
            charge = _charge(part, Kind.FIXED, part.item.quantity, rated)
            charges[charge.key] = charge
        else:
            group = part.subscription.subscription_id, meter_key, part.period
            metered.setdefault(group, []).append(part)
    for (_, meter_key, _), parts in metered.items():
        amounts = [usage.get((view.customer_id, meter_key, one.start), _ZERO) for one in parts]
        for charge in _metered(parts, amounts, prices):
            charges[charge.key] = charge
    return charges


def _metered(parts: list[_Stretch], amounts: Sequence[Decimal], prices: Prices) -> Iterator[Charge]:
    """Yield what the stretches of one meter's period owe, one allowance for all (RULES 8).

    A maximum, a last value or a number of distinct ones is taken for each stretch, against its
    share of the allowance, and never summed.
    """
    if len(parts) == 1 and parts[0].is_whole:
        rated = prices.rate(parts[0].price, amounts[0])
        yield _charge(parts[0], Kind.USAGE, amounts[0], rated)
        return
    if parts[0].price.meter_key in prices.unsummed:
        for part, quantity in zip(parts, amounts, strict=True):
            rated = prices.rate(part.price, quantity, part.share)
            yield _charge(part, Kind.USAGE, quantity, rated)
        return
    pairs = sorted(zip(parts, amounts, strict=True), key=lambda pair: pair[0].start)
    free = allowance(
        [(_included(one.price), Period(one.start, one.served)) for one, _ in pairs],
        pairs[0][0].period,
    )
    total, before = add_up(amounts), _ZERO
    for part, quantity in pairs:
        upto = add_up((before, quantity))
        segment = Segment(before, upto, total, free, part.share)
        result = rate_segment(part.price.charge, segment, currency=part.price.currency)
        yield _charge(part, Kind.USAGE, quantity, (result.total, steps_text(result)))
        before = upto


def _included(price: Price) -> Decimal:
    return _ZERO if isinstance(price.charge, Flat) else Decimal(price.charge.included)


def _charge(part: _Stretch, kind: Kind, quantity: Decimal, rated: tuple[Money, str]) -> Charge:
    """Return the charge of a stretch, and when and why an end within its period cut it."""
    item, cut = part.item, part.served < part.period.end
    return Charge(
        key=ChargeKey(item.item_id, part.period.start, kind, ""),
        subscription_id=part.subscription.subscription_id,
        price_id=part.price.price_id,
        period_end=part.end if kind == Kind.USAGE else part.served,
        due_at=part.due_at,
        quantity=quantity,
        amount=rated[0],
        name=part.price.name,
        time_zone=part.subscription.time_zone,
        steps=rated[1],
        amended_at=item.active_until if cut else None,
        why=item.end_reason if cut else None,
    )


def nothing(
    view: BillingView, prices: Prices, key: ChargeKey, *, period_end: datetime
) -> Charge | None:
    """Return a charge of zero for a billed key that an end took away; None for a stray key."""
    for agreement in view.agreements:
        for item in agreement.items:
            if item.item_id == key.item_id and item.active_until is not None:
                price = prices.get(item.price_id)
                return Charge(
                    key, agreement.subscription.subscription_id, item.price_id, period_end,
                    key.period_start, _ZERO, Money.zero(price.currency), price.name,
                    agreement.subscription.time_zone, "[]", item.active_until, item.end_reason,
                )  # fmt: skip
    return None
