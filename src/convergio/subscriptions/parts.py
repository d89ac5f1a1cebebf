"""What of a subscription is its plan, what is beside it, and what is asked once: pure decisions.

An item that is asked once begins and ends in one instant; it is owed unless its end has a reason.
Items of an add-on outlive a change of the plan.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from convergio.catalog.model import Plan, Price
from convergio.rating.model import Seat
from convergio.subscriptions import errors
from convergio.subscriptions.model import Item

QUANTITY_MAX = 1_000_000
ONE_OFF = "@once"  # stands where an add-on's key would; no key of a catalog looks so


def of_plan(items: Iterable[Item]) -> list[Item]:
    """Return the items of the plan that go on."""
    return [one for one in items if one.active_until is None and one.add_on_key is None]


def beside(items: Iterable[Item], add_on_key: str | None = None) -> list[Item]:
    """Return the items of add-ons, or of one, that go on."""
    return [
        one
        for one in items
        if one.add_on_key is not None
        and one.active_until is None
        and (add_on_key is None or one.add_on_key == add_on_key)
    ]


def lasting(items: Iterable[Item], add_on_key: str, *, at: datetime) -> list[Item]:
    """Return the items of an add-on that last beyond an instant, those with an end to come too."""
    return [
        one
        for one in items
        if one.add_on_key == add_on_key and (one.active_until is None or one.active_until > at)
    ]


def ends_at(price: Price, start: datetime) -> datetime | None:
    """Return when an item of a price ends that begins now: at once where it is asked once."""
    return start if price.once else None


def unasked(prices: Iterable[Price], items: Sequence[Item]) -> list[Price]:
    """Return the prices without those asked once that this subscription has been asked for."""
    asked = {one.price_id for one in items if one.end_reason is None}
    return [price for price in prices if not (price.once and price.price_id in asked)]


def not_to_come(
    items: Iterable[Item],
    kept: Collection[UUID],
    prices: Iterable[Price],
    *,
    at: datetime,
    add_on_key: str | None = None,
) -> list[UUID]:
    """Return the items that would be asked once from `at` on and are not any more.

    Those of the plan, or of an add-on.
    """
    wanted = {price.price_id for price in prices}
    return [
        one.item_id
        for one in items
        if one.active_until == one.active_from >= at
        and one.add_on_key == add_on_key
        and one.end_reason is None
        and one.item_id not in kept
        and one.price_id not in wanted
    ]


def moved(
    items: Iterable[Item], book: Mapping[UUID, Price], to: UUID, ids: Sequence[UUID], *,
    at: datetime,
) -> list[Item]:  # fmt: skip
    """Return the items of add-ons as those of the subscription that takes this one's place."""
    return [
        one._replace(
            subscription_id=to, item_id=new, active_from=at,
            active_until=ends_at(book[one.price_id], at), credited=False, end_reason=None,
        )
        for one, new in zip(items, ids, strict=True)
    ]  # fmt: skip


def check_add_on(plan: Plan, prices: Sequence[Price], quantity: int, *, currency: str) -> None:
    """Refuse what cannot be taken beside a plan, or not so often. Raises: Invalid."""
    if not plan.add_on:
        raise errors.not_an_add_on(plan.key)
    if any(price.currency != currency for price in prices):
        raise errors.bad_add_on(f"it is not sold in {currency}, in which the customer pays")
    if not 0 <= quantity <= QUANTITY_MAX:
        raise errors.bad_quantity(f"write a quantity from 0 to {QUANTITY_MAX}")
    if quantity > 1 and not any(isinstance(price.charge, Seat) for price in prices):
        raise errors.bad_quantity("this add-on has no price per unit (model: seat); write 1")


def quantity_in(items: Sequence[Item]) -> Decimal:
    """Return how many of an add-on these items stand for."""
    return max((one.quantity for one in items), default=Decimal(0))
