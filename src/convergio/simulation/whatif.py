"""What every customer would have owed under another catalog: real history, other prices.

Each stretch of time that someone spent on a plan is laid out again with the prices that the other
catalog has under that plan's key, on the same anchor, zone, periods and usage; `billing.owing`
then computes both, so what is compared differs in the prices alone. Nothing is written: it reads
one snapshot.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Final
from uuid import UUID, uuid5

from convergio.billing import owing, settling
from convergio.billing.owing import Prices
from convergio.catalog import actions as catalog
from convergio.catalog.model import Catalog, Definition, PlanTerms, Price, PriceTerms
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.rating.model import Seat
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Agreement, BillingView, Item, StoredPeriod

_PAGE: Final = 500
_SPACE: Final = UUID("6f1d2a3c-5a0e-4c8e-9d55-7a4f4f0f1b6e")
_ONE: Final = Decimal(1)
_SUMMED: Final = frozenset({"sum", "count"})
_FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Compared:
    """One customer: what is owed at the prices they have, and at the other ones."""

    customer: str
    now: Money
    then: Money

    @property
    def difference(self) -> Money:
        """What the other catalog would bring more; below zero what it would bring less."""
        return self.then - self.now


@dataclass(frozen=True, slots=True)
class _Stay:
    """A stretch of time on one plan, and how many seats from when until when."""

    plan_key: str
    items: tuple[Item, ...]


class Other:
    """The other catalog, ready to be laid over a subscription."""

    def __init__(self, live: Catalog, wanted: Definition) -> None:
        """Keep its plans; `live` says which meters there is usage of, and which plan sold what."""
        self._plans = wanted.plans
        self._meters = live.meters
        every = [*live.plans.values(), *live.archived.values()]
        self._sold = {price.key: plan.key for plan in every for price in plan.prices}
        self._live = live.prices_by_id
        self.prices: dict[UUID, Price] = {}

    def plan_of(self, item: Item, fallback: str) -> str:
        """Return the plan that an item came with; a price's key says so, whatever its version."""
        return item.add_on_key or self._sold.get(self._live[item.price_id].key, fallback)

    def is_seat(self, item: Item) -> bool:
        """Say whether an item counts seats."""
        return isinstance(self._live[item.price_id].charge, Seat)

    def terms(self, plan_key: str, currency: str) -> Sequence[Price]:
        """Return what the other catalog has under a plan's key. Raises: Invalid naming the plan."""
        plan = self._plans.get(plan_key)
        if plan is None:
            detail = f"the other catalog has no plan '{plan_key}', which customers are or were on"
            raise Invalid(f"{detail}; add it to the file", code="unknown_plan", field="plans")
        found = [terms for terms in plan.prices if terms.currency == currency]
        if plan.prices and not found:
            detail = f"plan '{plan_key}' has no price in {currency}; add one to the file"
            raise Invalid(detail, code="wrong_currency", field="plans")
        return [self._kept(plan, terms) for terms in found]

    def _kept(self, plan: PlanTerms, terms: PriceTerms) -> Price:
        if terms.meter_key is not None and terms.meter_key not in self._meters:
            detail = (
                f"plan '{plan.key}' prices meter '{terms.meter_key}', of which there is no usage"
            )
            raise Invalid(f"{detail}; price a meter of today", code="unknown_meter", field="plans")
        price_id = uuid5(_SPACE, terms.label)
        if price_id not in self.prices:
            values = {one.name: getattr(terms, one.name) for one in fields(PriceTerms)}
            self.prices[price_id] = Price(price_id=price_id, **values)
        return self.prices[price_id]


def compared(
    tx: Tx, source: bytes, *, during: Period, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Compared]:
    """Yield every customer with what falls due in `during`, at today's prices and at the other's.

    `source` is the other catalog's file. Writes nothing. Raises: Invalid naming what the other
    catalog lacks, or what is wrong in its file.
    """
    live = catalog.current(tx)
    other, after = Other(live, catalog.read_file(source)), None
    while True:
        views = subscriptions.as_stored(tx, after=after, limit=_PAGE, until=during.end)
        if not views:
            return
        after = views[-1].customer_id
        yield from _page(tx, views, other, live, during)
        progress(len(views))


def _page(
    tx: Tx, views: Sequence[BillingView], other: Other, live: Catalog, during: Period
) -> Iterator[Compared]:
    open_views = [replace(view, floors={}, marks=()) for view in views]
    accounts = customers.get_many(tx, [view.customer_id for view in views])
    now = Prices()
    now.add(catalog.prices(tx, now.missing(open_views)))
    others = [_laid(view, other, until=during.end) for view in open_views]
    then = Prices(other.prices)
    unsummed = frozenset(m.key for m in live.meters.values() if m.aggregation not in _SUMMED)
    now.unsummed = then.unsummed = unsummed
    asked = {
        one
        for some, prices in ((open_views, now), (others, then))
        for view in some
        for one in owing.usage_requests(view, prices, closed=during.end)
    }
    used, _ = settling.used(tx, asked, live.meters)
    for view, changed in zip(open_views, others, strict=True):
        account = accounts[view.customer_id]
        sums = (
            _due(each, prices, used, during, account.currency)
            for each, prices in ((view, now), (changed, then))
        )
        yield Compared(account.customer_key, *sums)


def _due(
    view: BillingView, prices: Prices, used: owing.Usage, during: Period, currency: str
) -> Money:
    """Return what falls due within a period of time."""
    charges = owing.owed(view, prices, used, closed=during.end)
    found = [one.amount for one in charges.values() if during.contains(one.due_at)]
    return sum(found, start=Money.zero(currency))


def _laid(view: BillingView, other: Other, *, until: datetime) -> BillingView:
    """Return a customer's agreements with the other catalog's prices."""
    agreements = tuple(_agreement(one, other, until=until) for one in view.agreements)
    return replace(view, agreements=agreements)


def _agreement(one: Agreement, other: Other, *, until: datetime) -> Agreement:
    numbers = count()
    items: list[Item] = []
    intervals: set[Interval] = set(one.periods)
    for stay in _stays(one, other):
        for price in other.terms(stay.plan_key, one.subscription.currency):
            intervals.add(price.interval)
            items += _items(price, stay, other, numbers)
    periods = {each: one.periods.get(each) or _periods(one, each, until) for each in intervals}
    return replace(one, items=tuple(items), periods=periods)


def _stays(one: Agreement, other: Other) -> Iterator[_Stay]:
    """Yield the stretches on a plan: items of it that meet or overlap are one stretch."""
    by_plan: dict[str, list[Item]] = {}
    for item in sorted(one.items, key=lambda item: item.active_from):
        key = other.plan_of(item, one.subscription.plan_key)
        by_plan.setdefault(key, []).append(item)
    for plan_key, items in by_plan.items():
        kept: list[Item] = []
        for item in items:
            if kept and not _meets(kept, item):
                yield _Stay(plan_key, tuple(kept))
                kept = []
            kept.append(item)
        yield _Stay(plan_key, tuple(kept))


def _meets(kept: Sequence[Item], item: Item) -> bool:
    return any(one.active_until is None or one.active_until >= item.active_from for one in kept)


def _items(price: Price, stay: _Stay, other: Other, numbers: Iterator[int]) -> Iterator[Item]:
    """Yield a price of the other catalog for a stretch: seat by seat, or for all of it."""
    seats = [item for item in stay.items if other.is_seat(item)]
    if isinstance(price.charge, Seat) and seats:
        for item in seats:
            name = f"{item.item_id}/{next(numbers)}"
            yield item._replace(item_id=uuid5(_SPACE, name), price_id=price.price_id)
        return
    first = min(stay.items, key=lambda item: item.active_from)
    last = max(stay.items, key=lambda item: item.active_until or _FAR)
    yield last._replace(
        item_id=uuid5(_SPACE, f"{first.item_id}/{next(numbers)}"),
        price_id=price.price_id,
        quantity=_ONE,
        active_from=first.active_from,
    )


def _periods(one: Agreement, interval: Interval, until: datetime) -> tuple[StoredPeriod, ...]:
    """Lay out periods of an interval that the subscription never had."""
    subscription = one.subscription
    calendar = Calendar(subscription.anchor_at, subscription.time_zone, interval)
    ends = subscription.canceled_at or until
    found: list[StoredPeriod] = []
    for number in count():
        period = calendar.period(number)
        if period.start >= min(ends, until):
            return tuple(found)
        found.append(
            StoredPeriod(
                subscription.customer_id, subscription.subscription_id, interval, number,
                period.start, period.end,
            )
        )  # fmt: skip
    return tuple(found)
