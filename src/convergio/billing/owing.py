"""What is owed: a pure function of stored periods, pinned prices and usage (RULES 1, 7, 8).

Fees are owed in advance, from the moment that their item begins; usage in arrears, at the end of
its period. An item that began or ended within a period owes its share of the fee, to the second;
one that was canceled without credit owes the period whole, and keeps its allowance for it. Where
several prices of a meter follow each other in a period, they share one allowance and one
cumulative usage, so that a change can neither give nor take a free unit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.billing.errors import sliced_credit
from convergio.billing.model import Charge, ChargeKey, Kind
from convergio.catalog.model import Catalog, Price
from convergio.kernel.errors import ConvergioError, require
from convergio.kernel.money import Money
from convergio.kernel.periods import Interval, Period
from convergio.kernel.quantity import add_up, quantity_text, subtract
from convergio.metering.model import Slice, UsageKey, slice_of
from convergio.rating.model import Charge as AnyCharge
from convergio.rating.model import Rated
from convergio.rating.rules import (
    Segment,
    allowance,
    for_seats,
    included_for,
    proration,
    rate,
    rate_segment,
)
from convergio.subscriptions.model import (
    Agreement,
    BillingView,
    Item,
    Status,
    StoredPeriod,
    Subscription,
)
from convergio.subscriptions.parts import ONE_OFF

Usage = Mapping[UsageKey, Decimal]
UsageRequest = tuple[UUID, str | Slice, Period]

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
NOTHING: Final[Usage] = {}
_MOMENT: Final = timedelta(seconds=1)
_WHOLE: Final = Fraction(1)
_MEMO_MAX: Final = 100_000
_PRICES_MAX: Final = 10_000


_Wholes = Mapping[Interval, Sequence[tuple[StoredPeriod, Period]]]


class Prices:
    """Pinned prices, which never change, and what each quantity of them came to."""

    __slots__ = ("_by_id", "_given", "_parts", "_rated", "catalog", "minimums", "unsummed")

    def __init__(self, prices: Mapping[UUID, Price] | None = None) -> None:
        """Begin with the prices that are at hand; `unsummed` meters are never added up.

        What comes to less than the currency's one of `minimums` waits for the next invoice.
        """
        self.unsummed: frozenset[str] = frozenset()
        self.minimums: Mapping[str, Money] = {}
        self.catalog: Catalog | None = None
        self._given: Mapping[UUID, Price] = prices or {}
        self._by_id: dict[UUID, Price] = dict(self._given)
        self._rated: dict[
            tuple[UUID, Decimal, Fraction | None, Decimal, str], tuple[Money, str]
        ] = {}
        self._parts: dict[UUID, tuple[BillingView, datetime, list[Stretch]]] = {}

    def missing(self, views: Iterable[BillingView]) -> list[UUID]:
        """Return the ids of prices that these customers pin and that are still to be read.

        Called once a page, before anything of it is rated. Prices agreed with single customers
        would pile up, so beyond a number all that were read are forgotten first.
        """
        if len(self._by_id) > len(self._given) + _PRICES_MAX:
            self._by_id = dict(self._given)
        pinned = {item.price_id for v in views for one in v.agreements for item in one.items}
        return sorted(pinned - self._by_id.keys())

    def add(self, prices: Mapping[UUID, Price]) -> None:
        """Keep more prices."""
        self._by_id |= prices

    def parts_of(self, view: BillingView, closed: datetime) -> "Sequence[Stretch]":
        """Return a customer's stretches that are due, worked out once for each page."""
        known = self._parts.get(view.customer_id)
        if known is None or known[0] is not view or known[1] != closed:
            known = view, closed, list(_stretches(view, self, closed))
            self._parts[view.customer_id] = known
        return known[2]

    def turn_page(self, catalog: Catalog) -> None:
        """Forget the customers of the page before, and take what the catalog says now."""
        self._parts.clear()
        self.catalog = catalog
        self.minimums = catalog.minimums
        self.unsummed = frozenset(
            meter.key
            for meter in catalog.meters.values()
            if meter.aggregation not in {"sum", "count"}
        )

    def get(self, price_id: UUID) -> Price:
        """Return a pinned price. Raises: Fault when it is not there."""
        require(price_id in self._by_id, f"price {price_id} is pinned and not in the catalog")
        return self._by_id[price_id]

    def rate(
        self,
        price: Price,
        quantity: Decimal,
        share: Fraction = _WHOLE,
        seats: Decimal = _ONE,
        value: str = "",
    ) -> tuple[Money, str]:
        """Return what a quantity comes to and its steps as JSON, rated once for all customers.

        `seats` scale what a price of usage includes per seat; a `value` is one of its dimension.
        """
        part = None if share is _WHOLE else share  # a fraction is slow to hash
        key = price.price_id, quantity, part, seats, value
        known = self._rated.get(key)
        if known is None:
            charge = price.charges[value] if value else price.charge
            charge = charge if seats == 1 else for_seats(charge, seats)
            rated = rate(charge, quantity, currency=price.currency, proration=share)
            known = rated.total, steps_text(rated)
            if len(self._rated) >= _MEMO_MAX:
                self._rated.clear()
            self._rated[key] = known
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
        | ({} if line.share is None else {"share": str(line.share)})
        | ({} if line.bound is None else {"bound": format(line.bound, "f")})
        for line in rated.lines
    ]
    return msgspec.json.encode(steps).decode()


class Stretch(NamedTuple):
    """The time of a stored period in which an item was active: `[start, end)`.

    `served` is how long its fee and allowance last: to the period's end where an end gave nothing
    back. `value` is the value of the price's dimension that it is of.
    """

    subscription: Subscription
    item: Item
    price: Price
    period: Period
    start: datetime
    end: datetime
    served: datetime
    due_at: datetime
    value: str = ""

    @property
    def used_of(self) -> str | Slice:
        """What of the usage it asks for: all of the meter's, or a part by dimension."""
        meter_key, by = self.price.meter_key or "", self.price.by
        if by is None:
            return meter_key
        return slice_of(meter_key, by, self.price.charges, self.value)

    @property
    def charge(self) -> AnyCharge:
        """What is asked for it."""
        return self.price.charges[self.value] if self.value else self.price.charge

    @property
    def active(self) -> Period:
        """The time itself."""
        period = self.period
        if self.start == period.start and self.end == period.end:
            return period
        return Period(self.start, self.end)

    @property
    def is_whole(self) -> bool:
        """Say whether the fee and the allowance are those of the whole period."""
        return self.start == self.period.start and self.served == self.period.end

    @property
    def share(self) -> Fraction:
        """The part of the period that is paid for."""
        return proration(self.period, Period(self.start, self.served))


def _stretches(view: BillingView, prices: Prices, closed: datetime) -> Iterator[Stretch]:
    """Yield every stretch of every item that is due; where an item was not active owes nothing.

    A fee is due when it begins; usage when its period ends, or its subscription does.
    """
    for agreement in view.agreements:
        wholes = {
            interval: [(one, Period(one.start_at, one.end_at)) for one in periods]
            for interval, periods in agreement.periods.items()
        }
        for item in agreement.items:
            price = prices.get(item.price_id)
            if price.once:
                floor = view.floors.get(agreement.subscription.subscription_id)
                yield from _moment_of(agreement, item, price, floor, closed)
            else:
                for part in _stretches_of(agreement, item, price, wholes, closed):
                    yield part
                    for value in price.charges:
                        yield part._replace(value=value)


def _moment_of(
    agreement: Agreement, item: Item, price: Price, floor: datetime | None, closed: datetime
) -> Iterator[Stretch]:
    """Yield the moment at which an item is asked once, unless it was taken back before.

    What a plan asks once of a trial is asked when somebody has decided that it goes on.
    """
    start, one = item.active_from, agreement.subscription
    if one.status == Status.TRIALING and start >= one.anchor_at and item.add_on_key != ONE_OFF:
        return
    if item.end_reason is None and (floor is None or start >= floor):
        moment = Period(start, start + _MOMENT)
        due_at = start if price.meter_key is None else moment.end
        if due_at <= closed:
            yield Stretch(one, item, price, moment, start, moment.end, moment.end, due_at)


def _stretches_of(
    agreement: Agreement, item: Item, price: Price, wholes: _Wholes, closed: datetime
) -> Iterator[Stretch]:
    subscription, until, is_fee = agreement.subscription, item.active_until, price.meter_key is None
    ended = subscription.canceled_at
    for period, whole in wholes.get(price.interval, ()):
        start, end = max(period.start_at, item.active_from), period.end_at
        if is_fee:
            due_at = start
        elif ended is None:
            due_at = end
        else:
            cut = end if until is None else min(end, until)
            due_at = max(cut, min(end, ended))
        if due_at > closed:
            continue
        if until is not None:
            end = min(end, until)
        if start < end:
            served = end if item.credited else period.end_at
            yield Stretch(subscription, item, price, whole, start, end, served, due_at)


def usage_requests(view: BillingView, prices: Prices, *, closed: datetime) -> list[UsageRequest]:
    """Return the usage that decides what is owed at boundaries up to `closed`.

    Nothing is asked for a customer whose prices cannot be read: `bill` tells why.
    """
    try:
        return [
            (view.customer_id, part.used_of, part.active)
            for part in prices.parts_of(view, closed)
            if part.price.meter_key is not None
        ]
    except ConvergioError:
        return []


def owed(
    view: BillingView,
    prices: Prices,
    usage: Usage,
    *,
    closed: datetime,
    drawn: Usage = NOTHING,
) -> dict[ChargeKey, Charge]:
    """Return what a customer owes for every boundary up to `closed`, charges of zero included.

    What of the usage was `drawn` from prepaid credit is not owed: it lies beyond what is included.
    Rounds: once a key, in rating.
    """
    charges: dict[ChargeKey, Charge] = {}
    metered: dict[tuple[UUID, str, datetime, datetime, str], list[Stretch]] = {}
    for part in prices.parts_of(view, closed):
        meter_key = part.price.meter_key
        if meter_key is None:
            share = _WHOLE if part.is_whole else part.share
            rated = prices.rate(part.price, part.item.quantity, share)
            charge = _charge(part, Kind.FIXED, part.item.quantity, rated)
            charges[charge.key] = charge
        else:
            # a week and a month may begin together: the end tells them apart
            whole = part.period
            group = part.subscription.subscription_id, meter_key, whole.start, whole.end, part.value
            metered.setdefault(group, []).append(part)
    for (_, meter_key, _, _, _), parts in metered.items():
        amounts = [usage.get((view.customer_id, one.used_of, one.start), _ZERO) for one in parts]
        if drawn:
            _refuse_sliced_credit(view.customer_id, parts, drawn)
            taken = [drawn.get((view.customer_id, meter_key, one.start), _ZERO) for one in parts]
            some = _beside_credit(parts, amounts, taken, prices)
        else:
            some = _metered(parts, amounts, prices)
        for charge in some:
            charges[charge.key] = charge
    return charges


def _refuse_sliced_credit(customer_id: UUID, parts: Iterable[Stretch], drawn: Usage) -> None:
    """Refuse prepaid units of a meter whose units have several prices. Raises: Conflict."""
    for part in parts:
        key = customer_id, part.price.meter_key or "", part.start
        if part.price.by is not None and drawn.get(key):
            raise sliced_credit(part.price.name, part.price.by)


def _beside_credit(
    parts: list[Stretch], amounts: Sequence[Decimal], taken: Sequence[Decimal], prices: Prices
) -> Iterator[Charge]:
    """Yield what is owed beside what prepaid credit paid, which the steps name."""
    of = {part.item.item_id: each for part, each in zip(parts, taken, strict=True)}
    rest = [subtract(amount, each) for amount, each in zip(amounts, taken, strict=True)]
    for charge in _metered(parts, rest, prices):
        paid = of[charge.key.item_id]
        if not paid:
            yield charge
            continue
        step = {
            "description": "Paid by prepaid credit", "quantity": quantity_text(paid),
            "unit": "0", "per": "1", "amount": Money.zero(charge.amount.currency).text(),
        }  # fmt: skip
        steps = msgspec.json.encode([step, *msgspec.json.decode(charge.steps)]).decode()
        yield charge._replace(quantity=add_up((charge.quantity, paid)), steps=steps)


def _metered(parts: list[Stretch], amounts: Sequence[Decimal], prices: Prices) -> Iterator[Charge]:
    """Yield what the stretches of one meter's period owe, one allowance for all (RULES 8).

    A maximum, a last value or a number of distinct ones is taken for each stretch, against its
    share of the allowance, and never summed.
    """
    if len(parts) == 1 and parts[0].is_whole:
        part = parts[0]
        rated = prices.rate(part.price, amounts[0], _WHOLE, part.item.quantity, part.value)
        yield _charge(parts[0], Kind.USAGE, amounts[0], rated)
        return
    if parts[0].price.meter_key in prices.unsummed:
        for part, quantity in zip(parts, amounts, strict=True):
            rated = prices.rate(part.price, quantity, part.share, part.item.quantity, part.value)
            yield _charge(part, Kind.USAGE, quantity, rated)
        return
    pairs = sorted(zip(parts, amounts, strict=True), key=lambda pair: pair[0].start)
    free = allowance(
        [
            (included_for(one.charge, one.item.quantity), Period(one.start, one.served))
            for one, _ in pairs
        ],
        pairs[0][0].period,
    )
    total, before = add_up(amounts), _ZERO
    for part, quantity in pairs:
        upto = add_up((before, quantity))
        segment = Segment(before, upto, total, free, part.share)
        result = rate_segment(part.charge, segment, currency=part.price.currency)
        yield _charge(part, Kind.USAGE, quantity, (result.total, steps_text(result)))
        before = upto


def _charge(part: Stretch, kind: Kind, quantity: Decimal, rated: tuple[Money, str]) -> Charge:
    """Return the charge of a stretch, and when and why an end within its period cut it."""
    item, cut = part.item, part.served < part.period.end
    return Charge(
        key=ChargeKey(item.item_id, part.period.start, kind, part.value),
        subscription_id=part.subscription.subscription_id,
        price_id=part.price.price_id,
        period_end=part.end if kind == Kind.USAGE else part.served,
        due_at=part.due_at,
        quantity=quantity,
        amount=rated[0],
        name=f"{part.price.name} ({part.value})" if part.value else part.price.name,
        time_zone=part.subscription.time_zone,
        steps=rated[1],
        amended_at=item.active_until if cut else None,
        why=item.end_reason if cut else None,
    )


def nothing(
    view: BillingView, prices: Prices, key: ChargeKey, *, period_end: datetime
) -> Charge | None:
    """Return a charge of zero for a billed key that is owed no more; None for a stray key."""
    for agreement in view.agreements:
        for item in agreement.items:
            if item.item_id == key.item_id:
                price = prices.get(item.price_id)
                return Charge(
                    key, agreement.subscription.subscription_id, item.price_id, period_end,
                    key.period_start, _ZERO, Money.zero(price.currency), price.name,
                    agreement.subscription.time_zone, "[]", item.active_until, item.end_reason,
                )  # fmt: skip
    return None
