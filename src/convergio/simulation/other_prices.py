"""Lay another catalog's prices over what a customer really had: the same time, other terms.

What counts is how the file differs from what is sold today. A price that both have, with other
terms, takes the place of every version of it that was pinned; one that the file adds to a plan is
had for all time on that plan, one that it drops never was. What the file leaves as it is changes
nothing for anybody, also not for who still has an older version of it. Agreed prices stay as long
as the file sells what they took the place of; charges that were asked once stay.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from convergio.catalog.model import Catalog, Definition, Plan, PlanTerms, Price, PriceTerms
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Calendar, Interval
from convergio.subscriptions.limits import is_per_seat
from convergio.subscriptions.model import Agreement, BillingView, Item, StoredPeriod
from convergio.subscriptions.parts import ONE_OFF

_SPACE: Final = UUID("6f1d2a3c-5a0e-4c8e-9d55-7a4f4f0f1b6e")
_ONE: Final = Decimal(1)
_FAR: Final = datetime(9999, 1, 1, tzinfo=UTC)
_TERMS: Final = tuple(one.name for one in fields(PriceTerms))


class _Stay(NamedTuple):
    """A stretch of time on one plan or add-on, with the items that were had in it."""

    plan_key: str
    items: tuple[Item, ...]


class OtherPrices:
    """A file's prices, ready to be laid over what customers have.

    `agreed` are the prices that the customers at hand have alone.
    """

    def __init__(self, live: Catalog, wanted: Definition) -> None:
        """Find what the file changes. Raises: Invalid where it prices what was never counted."""
        self._live, self._wanted = live, wanted
        every = [*live.plans.values(), *live.archived.values()]
        self._sellers: dict[str, list[str]] = {}
        for plan in every:
            for price in plan.prices:
                self._sellers.setdefault(price.key, []).append(plan.key)
        self.prices: dict[UUID, Price] = {}
        self.agreed: Mapping[UUID, Price] = {}
        self._changed: dict[tuple[str, str], Price | None] = {}
        self._added: dict[str, list[Price]] = {}
        for key, plan in live.plans.items():
            if key in wanted.plans:
                self._compare(plan, wanted.plans[key])

    @property
    def changes_nothing(self) -> bool:
        """Say whether the file sells what is sold today."""
        return not self._changed and not self._added

    def check(self, pinned: Iterable[tuple[UUID, str | None, str]]) -> None:
        """Refuse a file that lacks plans which customers are or were on. Raises: Invalid."""
        had = {self._plan_of(price_id, add_on, plan) for price_id, add_on, plan in pinned}
        lacking = sorted(key for key in had if key in self._live.plans.keys() - self._wanted.plans)
        if lacking:
            names = ", ".join(f"'{key}'" for key in lacking)
            what = "plan" if len(lacking) == 1 else "plans"
            detail = f"the other catalog has no {what} {names}, which customers are or were on"
            raise Invalid(f"{detail}; add it to the file", code="unknown_plan", field="plans")

    def _compare(self, plan: Plan, terms: PlanTerms) -> None:
        sold = {price.key: price for price in plan.prices}
        asked = {price.key: price for price in terms.prices}
        currencies = {price.currency for price in terms.prices}
        for lacking in sorted({price.currency for price in plan.prices} - currencies):
            if terms.prices:
                detail = f"plan '{plan.key}' has no price in {lacking}; add one to the file"
                raise Invalid(detail, code="wrong_currency", field="plans")
        for key, new in asked.items():
            old = sold.get(key)
            if old is None:
                self._added.setdefault(plan.key, []).append(self._kept(plan.key, new))
            elif not _same(old, new):
                self._changed[plan.key, key] = self._kept(plan.key, new)
        for key in sold.keys() - asked.keys():
            self._changed[plan.key, key] = None

    def _kept(self, plan_key: str, terms: PriceTerms) -> Price:
        where = f"plan '{plan_key}' prices meter '{terms.meter_key}'"
        if terms.meter_key is not None and terms.meter_key not in self._live.meters:
            detail = f"{where}, of which there is no usage; price a meter of today"
            raise Invalid(detail, code="unknown_meter", field="plans")
        if (
            terms.by is not None
            and terms.by not in self._live.meters[terms.meter_key or ""].group_by
        ):
            detail = f"{where} by '{terms.by}', by which no usage is grouped; price it without by"
            raise Invalid(detail, code="unknown_dimension", field="plans")
        price_id = uuid5(_SPACE, f"{plan_key} {terms.label}")
        values = {name: getattr(terms, name) for name in _TERMS}
        self.prices[price_id] = Price(price_id=price_id, **values)
        return self.prices[price_id]

    def _plan_of(self, price_id: UUID, add_on_key: str | None, fallback: str) -> str:
        """Return the plan that an item came with; a price's key says so, whatever its version."""
        if add_on_key is not None:
            return add_on_key
        price = self._live.prices_by_id.get(price_id) or self.agreed.get(price_id)
        sellers = self._sellers.get(_key(price), ())
        return fallback if fallback in sellers or not sellers else sellers[0]

    def laid(self, view: BillingView, *, until: datetime) -> BillingView:
        """Return what a customer had at the other prices; the same view where nothing changes."""
        agreements = tuple(self._agreement(one, until) for one in view.agreements)
        if all(new is old for new, old in zip(agreements, view.agreements, strict=True)):
            return view
        return replace(view, agreements=agreements)

    def _agreement(self, one: Agreement, until: datetime) -> Agreement:
        numbers = count()
        items = [
            item
            for stay in self._stays(one)
            for item in self._items(stay, one.subscription.currency, numbers)
        ]
        items.sort(key=lambda item: item.item_id)
        if items == sorted(one.items, key=lambda item: item.item_id):
            return one
        used = {self._price(item).interval for item in items if not self._price(item).once}
        periods = dict(one.periods)
        for interval in used - {self._price(item).interval for item in one.items}:
            periods[interval] = _periods(one, interval, until)
        return replace(one, items=tuple(items), periods=periods)

    def price_of(self, price_id: UUID) -> Price:
        """Return a price of the file, or one that is pinned."""
        found = self.prices.get(price_id) or self._live.prices_by_id.get(price_id)
        return self.agreed[price_id] if found is None else found

    def _price(self, item: Item) -> Price:
        return self.price_of(item.price_id)

    def _stays(self, one: Agreement) -> Iterator[_Stay]:
        """Yield the stretches on a plan: items of it that meet or overlap are one stretch."""
        by_plan: dict[str, list[Item]] = {}
        for item in sorted(one.items, key=lambda item: item.active_from):
            key = self._plan_of(item.price_id, item.add_on_key, one.subscription.plan_key)
            by_plan.setdefault(key, []).append(item)
        for plan_key, items in by_plan.items():
            kept: list[Item] = []
            for item in items:
                if kept and not _meets(kept, item):
                    yield _Stay(plan_key, tuple(kept))
                    kept = []
                kept.append(item)
            yield _Stay(plan_key, tuple(kept))

    def _items(self, stay: _Stay, currency: str, numbers: Iterator[int]) -> Iterator[Item]:
        had: set[object] = set()
        for item in stay.items:
            price = self._price(item)
            new = self._changed.get((stay.plan_key, _key(price)), price)
            if new is None or stay.plan_key == ONE_OFF:
                new = price if stay.plan_key == ONE_OFF else None
            elif price.key != _key(price):
                new = price  # an agreed one
            if new is not None:
                had.add(new.meter_key or new.key)
                yield self._moved(item, price, new, stay)
        for new in self._added.get(stay.plan_key, ()):
            if new.currency == currency and (new.meter_key or new.key) not in had:
                yield from self._all_along(new, stay, numbers)

    def _moved(self, item: Item, old: Price, new: Price, stay: _Stay) -> Item:
        """Return an item at another price, for as many as that counts."""
        if new is old:
            return item
        quantity = item.quantity if is_per_seat(old) else self._seats(stay, item)
        moved = item._replace(
            price_id=new.price_id, quantity=quantity if is_per_seat(new) else _ONE
        )
        if new.once and not old.once:
            return moved._replace(active_until=item.active_from, credited=False, end_reason=None)
        return moved

    def _seats(self, stay: _Stay, at: Item) -> Decimal:
        """Return for how many seats a stretch counted when an item of it began."""
        return next(
            (
                item.quantity
                for item in stay.items
                if is_per_seat(self._price(item)) and _holds(item, at.active_from)
            ),
            _ONE,
        )

    def _all_along(self, new: Price, stay: _Stay, numbers: Iterator[int]) -> Iterator[Item]:
        """Yield a price that the file adds, for a stretch: seat by seat, or for all of it."""
        seats = [i for i in stay.items if is_per_seat(self._price(i)) and not self._price(i).once]
        first = min(stay.items, key=lambda item: item.active_from)
        if is_per_seat(new) and seats and not new.once:
            key = self._price(seats[0]).key
            for item in seats:
                if self._price(item).key == key:
                    yield item._replace(item_id=_item_id(item, numbers), price_id=new.price_id)
            return
        last = max(stay.items, key=lambda item: item.active_until or _FAR)
        added = last._replace(
            item_id=_item_id(first, numbers),
            price_id=new.price_id,
            quantity=self._seats(stay, first) if is_per_seat(new) else _ONE,
            active_from=first.active_from,
        )
        if new.once:
            added = added._replace(active_until=first.active_from, credited=False, end_reason=None)
        yield added


def _same(old: Price, new: PriceTerms) -> bool:
    return all(getattr(old, name) == getattr(new, name) for name in _TERMS)


def _key(price: Price | None) -> str:
    """Return a price's key, of an agreed one that of what it took the place of."""
    return "" if price is None else price.listed_key


def _item_id(item: Item, numbers: Iterator[int]) -> UUID:
    return uuid5(_SPACE, f"{item.item_id}/{next(numbers)}")


def _holds(item: Item, at: datetime) -> bool:
    return item.active_from <= at and (item.active_until is None or at < item.active_until)


def _meets(kept: Sequence[Item], item: Item) -> bool:
    return any(one.active_until is None or one.active_until >= item.active_from for one in kept)


def _periods(one: Agreement, interval: Interval, until: datetime) -> tuple[StoredPeriod, ...]:
    """Lay out periods of an interval from the first one that was paid."""
    subscription = one.subscription
    calendar = Calendar(subscription.anchor_at, subscription.time_zone, interval)
    ends = min(subscription.canceled_at or until, until)
    found: list[StoredPeriod] = []
    for number in count(calendar.number_at(subscription.begins_at)):
        period = calendar.period(number)
        if period.start > ends:
            return tuple(found)
        found.append(
            StoredPeriod(
                subscription.customer_id, subscription.subscription_id, interval, number,
                period.start, period.end,
            )
        )  # fmt: skip
    return tuple(found)
