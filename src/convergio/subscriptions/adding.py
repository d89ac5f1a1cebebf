"""What a customer takes beside the plan: add-ons, and charges that are asked once.

Both are items of the live subscription, so invoices, credit and explanations follow from what is
owed like everything else. Adding one splits no other item (RULES 3).
"""

from datetime import datetime
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Price, PriceTerms
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Conflict
from convergio.kernel.money import AMOUNT_MAX, Money
from convergio.kernel.periods import Interval
from convergio.kernel.quantity import quantity_text
from convergio.kernel.text import check_words
from convergio.rating.model import Flat
from convergio.subscriptions import changes, errors, parts, rules, steps, store
from convergio.subscriptions.model import Item, Subscription, When


def set_add_on(
    tx: Tx,
    *,
    customer_id: UUID,
    key: str,
    quantity: int = 1,
    when: When = When.NOW,
    now: datetime,
    can_pay: steps.CanPay | None = None,
) -> Subscription:
    """Take so many of an add-on; none takes it away, and credits what is left of it.

    At the period's end only what takes it away can wait: then nothing is credited. Who takes it
    again before that swaps it like any other number. What it asks once is never asked again.
    Locks: the subscription. Emits: subscription.updated. Raises: NotFound, Invalid, Conflict when
    there is nothing to change.
    """
    live = changes.up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    rules.check_changeable(live)
    plan = catalog.current(tx).plans.get(key)
    if plan is None:
        raise errors.unknown_add_on(key)
    prices = plan.in_currency(live.currency)
    parts.check_add_on(plan, prices, quantity, currency=live.currency)
    at = max(now, live.anchor_at)
    items = steps.items_of(tx, live)
    had, there = parts.beside(items, key), parts.lasting(items, key, at=at)
    is_ending = bool(there) and not had
    if parts.quantity_in(had) == quantity and not (is_ending and when == When.NOW):
        raise errors.same_number(quantity)
    if when == When.PERIOD_END:
        if quantity:
            raise errors.bad_quantity("more takes effect now; only taking it away can wait: 0")
        at = steps.paid_until(tx, live, now=now) or at
    reason = f"{plan.name} changed to {quantity}" if quantity else f"{plan.name} removed"
    ending = [one.item_id for one in there]
    if not quantity:
        ending += parts.not_to_come(items, ending, [], at=at, add_on_key=key)
    store.end_items(tx, live, ends_at=at, credited=True, reason=reason, item_ids=ending)
    if quantity:
        _begin(tx, live, steps.unasked(tx, live, prices), quantity, key, at=at, now=now)
    store.save_state(tx, live)
    steps.tell(tx, "subscription.updated", [live], now=now)
    return live


def charge_once(
    tx: Tx,
    *,
    customer_id: UUID,
    description: str,
    amount: Money,
    tax_category: str = "standard",
    when: When = When.PERIOD_END,
    now: datetime,
    can_pay: steps.CanPay | None = None,
) -> tuple[Price, datetime]:
    """Ask a customer for an amount once: on the next invoice, or on one of its own now.

    It is owed also by who leaves before. Returns the price that stands for it, and when it is
    asked. Locks: the subscription. Emits: charge.created. Raises: NotFound without a live
    subscription, Invalid, Conflict for another currency or a paused one.
    """
    live = changes.up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    rules.check_changeable(live)
    if amount.currency != live.currency:
        detail = f"the customer pays in {live.currency}; write the amount in it"
        raise Conflict(detail, code="other_currency", field="amount")
    if not 0 < amount.minor <= AMOUNT_MAX:
        raise errors.bad_amount()
    terms = PriceTerms(
        key="one-off",
        version=1,
        name=check_words(description, field="description"),
        meter_key=None,
        interval=Interval.MONTH,
        currency=amount.currency,
        charge=Flat(amount=amount.text()),
        quota=None,
        tax_category=tax_category,
        once=True,
    )
    price = catalog.negotiate(tx, terms, customer_id, now=now)
    at = now
    if when == When.PERIOD_END:
        at = steps.next_boundary(tx, live, now=now) or now
    _begin(tx, live, [price], 1, parts.ONE_OFF, at=at, now=now)
    store.save_state(tx, live)
    data = {"amount": amount.text(), "currency": amount.currency}
    outbox.emit(
        tx, "charge.created", customer_id=customer_id, subject=price.price_id, data=data, now=now
    )
    return price, at


def add_ons(tx: Tx, live: Subscription) -> dict[str, str]:
    """Return how many of each add-on a subscription has, by key."""
    found = parts.beside(steps.items_of(tx, live))
    return {one.add_on_key: quantity_text(one.quantity) for one in found if one.add_on_key}


def _begin(
    tx: Tx,
    live: Subscription,
    prices: list[Price],
    quantity: int,
    key: str,
    *,
    at: datetime,
    now: datetime,
) -> None:
    """Begin the items of an add-on, and store the periods that they need."""
    store.copy_items(
        tx,
        [
            Item(
                live.customer_id, live.subscription_id, new_id(now), price.price_id,
                rules.quantity_of(price, quantity), at, parts.ends_at(price, at), add_on_key=key,
            )
            for price in prices
        ],
    )  # fmt: skip
    steps.complete_periods(tx, live, [], rules.intervals_of(prices), until=at)
