"""The steps that the verbs of a subscription share: open periods, swap items, cut windows, end.

None of them decides whether a thing may be done; that is done before, in `rules`. Each writes what
follows from a decision in all places at once: the items, metering's windows and the outbox.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.kernel.quantity import add_up
from convergio.metering import actions as metering
from convergio.subscriptions import errors, rules, store
from convergio.subscriptions.model import (
    Change,
    ChangeState,
    Item,
    Status,
    StoredPeriod,
    Subscription,
    Trial,
    TrialPolicy,
)

_ZERO: Final = Decimal(0)


def insert(
    tx: Tx,
    customers: Mapping[UUID, str],
    prices: Sequence[Price],
    *,
    plan_key: str,
    seats: int,
    start: datetime,
    now: datetime,
    time_zone: str,
    trial: Trial | None = None,
) -> list[Subscription]:
    """Begin one subscription for each customer (with their currency) at these prices.

    Raises: Conflict for the first customer who has a live one; then nothing is kept.
    """
    created = [
        rules.new_subscription(
            customer_id, new_id(now), plan_key, start=start, now=now, time_zone=time_zone,
            currency=currency, trial=trial,
        )
        for customer_id, currency in customers.items()
    ]  # fmt: skip
    inserted = store.insert_subscriptions(tx, created)
    for one in created:
        if one.customer_id not in inserted:
            raise errors.already_subscribed(one.customer_id)
    for one in created[:1]:
        intervals = rules.intervals_of(prices)
        segment = rules.segment_of(
            prices, start=one.started_at, time_zone=time_zone, anchor=one.anchor_at
        )
        store.copy_items(
            tx, (i for c in created for i in _items(c, prices, seats, c.anchor_at, now=now))
        )
        store.copy_periods(tx, (rules.first_period(c, each) for c in created for each in intervals))
        metering.set_schedules(tx, {c.customer_id: segment for c in created}, now=now)
    tell(tx, "subscription.created", created, now=now)
    return created


def _items(
    one: Subscription, prices: Iterable[Price], seats: int, start: datetime, *, now: datetime
) -> Iterable[Item]:
    return (
        Item(
            one.customer_id, one.subscription_id, new_id(now), price.price_id,
            rules.quantity_of(price, seats), start, None,
        )
        for price in prices
    )  # fmt: skip


def open_until(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> int:
    """Store the periods of live subscriptions that begin by `until`; return how many."""
    calendar = lru_cache(Calendar)
    opened = [
        StoredPeriod(there.customer_id, there.subscription_id, there.interval, number, start, end)
        for there in store.list_frontiers(tx, customer_ids, until=until)
        for number, start, end in rules.boundaries_after(
            calendar(there.anchor_at, there.time_zone, there.interval),
            there.number,
            until=until,
            cancel_at=there.cancel_at,
        )
    ]
    store.copy_periods(tx, opened)
    return len(opened)


def items_of(tx: Tx, subscription: Subscription) -> list[Item]:
    """Return the items of one subscription."""
    every = store.list_items(tx, [subscription.customer_id])
    return [item for item in every if item.subscription_id == subscription.subscription_id]


def prices_of(tx: Tx, items: Iterable[Item]) -> dict[UUID, Price]:
    """Return the pinned prices of items."""
    return dict(catalog.prices(tx, sorted({item.price_id for item in items})))


def end(
    tx: Tx,
    subscription: Subscription,
    *,
    at: datetime,
    now: datetime,
    credited: bool = False,
    reason: str = "canceled",
) -> Subscription:
    """End a subscription, its items and its windows at an instant."""
    ended = rules.end(subscription, at)
    store.save_state(tx, ended)
    store.end_items(tx, ended, ends_at=at, credited=credited, reason=reason)
    store.settle_pending(tx, ended, ChangeState.DROPPED)
    metering.set_schedule(tx, ended.customer_id, rules.segment_after(at), now=now)
    tell(tx, "subscription.canceled", [ended], now=now)
    return ended


def go_to(
    tx: Tx, subscription: Subscription, target: Change, *, at: datetime, now: datetime
) -> Subscription:
    """Put a subscription on other prices or seats from an instant on.

    Where the change opens new periods (`rules.opens_a_period`), the subscription ends and another
    begins. Emits: subscription.updated, or subscription.canceled and subscription.created.
    """
    items = items_of(tx, subscription)
    book = prices_of(tx, items) | dict(catalog.prices(tx, list(target.price_ids)))
    new = [book[price_id] for price_id in target.price_ids]
    current = [item for item in items if item.active_until is None]
    old = [book[item.price_id] for item in current]
    seats = (rules.seats_of(current, book), target.seats)
    reason = _reason(subscription, target)
    at = max(at, subscription.anchor_at)
    opens = bool(old) and rules.opens_a_period(old, new, seats=seats)
    if opens and at > subscription.anchor_at:
        end(tx, subscription, at=at, now=now, credited=True, reason=reason)
        (begun,) = insert(
            tx, {subscription.customer_id: subscription.currency}, new, plan_key=target.plan_key,
            seats=target.seats, start=at, now=now, time_zone=subscription.time_zone,
        )  # fmt: skip
        return begun
    ending, beginning = rules.swapped(current, new, target.seats)
    store.end_items(tx, subscription, ends_at=at, credited=True, reason=reason, item_ids=ending)
    store.copy_items(tx, _items(subscription, beginning, target.seats, at, now=now))
    _complete_periods(tx, subscription, rules.intervals_of(old), rules.intervals_of(new), until=at)
    moved = rules.on_plan(subscription, target.plan_key)
    store.save_state(tx, moved)
    if any(book[i.price_id].meter_key for i in current if i.item_id in ending) or any(
        price.meter_key for price in beginning
    ):
        cut_windows(tx, moved, new, at=at, now=now)
    tell(tx, "subscription.updated", [moved], now=now)
    return moved


def _reason(subscription: Subscription, target: Change) -> str:
    """Say on the invoice why an item ended."""
    if subscription.plan_key != target.plan_key:
        return f"plan changed to {target.plan_key}"
    return f"seats changed to {target.seats}"


def _complete_periods(
    tx: Tx,
    subscription: Subscription,
    old: Sequence[Interval],
    new: Sequence[Interval],
    *,
    until: datetime,
) -> None:
    """Store, from the first one on, the periods of intervals that the subscription lacks."""
    lacking = [each for each in new if each not in old]
    known = store.list_periods(tx, [subscription.customer_id], until=until)
    stored = {p.interval for p in known if p.subscription_id == subscription.subscription_id}
    for interval in set(lacking) - stored:
        first = rules.first_period(subscription, interval)
        store.copy_periods(tx, [first])
    open_until(tx, [subscription.customer_id], until=until)


def cut_windows(
    tx: Tx, subscription: Subscription, prices: Sequence[Price], *, at: datetime, now: datetime
) -> None:
    """Let metering's windows follow a change: a cut at `at`, and what is left of each quota."""
    items = items_of(tx, subscription)
    book = prices_of(tx, items)
    anchor, zone = subscription.anchor_at, subscription.time_zone
    calendar = {each: Calendar(anchor, zone, each) for each in Interval}
    stretches = rules.quota_requests(items, book, calendar, at)
    requests = [
        (subscription.customer_id, meter, Period(part.start, part.end))
        for meter, parts in stretches.items()
        for _, part in parts
        if part.end <= at
    ]
    start = max(subscription.started_at, min(at, now)) if at <= anchor else at
    whole = rules.segment_of(prices, start=start, time_zone=zone, anchor=anchor)
    metering.set_schedule(tx, subscription.customer_id, whole, now=now)
    if at <= anchor:
        return
    found = metering.usage_in(tx, requests)  # the cut is made, so it is known what came before
    used = {
        meter: add_up(found.get((c, m, p.start), _ZERO) for c, m, p in requests if m == meter)
        for meter in stretches
    }
    for segment in rules.cut_segments(prices, stretches, used, calendar, at=at, time_zone=zone):
        metering.set_schedule(tx, subscription.customer_id, segment, now=now)


def carry_out(
    tx: Tx,
    subscription: Subscription,
    change: Change | None,
    *,
    until: datetime,
    now: datetime,
    payable: Collection[UUID],
) -> Subscription:
    """Bring a subscription up to `until`: its trial's end, the change that waits, its end."""
    one = subscription
    first_end = one.cancel_at if one.cancel_at is not None else None
    if first_end is not None and first_end <= until and first_end <= one.anchor_at:
        return end(tx, one, at=max(first_end, one.started_at), now=now)
    if one.status == Status.TRIALING and one.anchor_at <= until:
        one = _end_trial(tx, one, now=now, has_method=one.customer_id in payable)
    if change is not None and one.status not in {Status.PAUSED, Status.CANCELED}:
        store.settle_pending(tx, one, ChangeState.DONE)
        return go_to(tx, one, change, at=change.effective_at, now=now)
    if one.cancel_at is not None and one.cancel_at <= until:
        one = end(tx, one, at=one.cancel_at, now=now)
    return one


def _end_trial(tx: Tx, one: Subscription, *, now: datetime, has_method: bool) -> Subscription:
    """Begin the paid periods, or do what the subscription says of a trial without a method."""
    if has_method or one.trial_policy == TrialPolicy.ACTIVATE:
        active = rules.move(one, Status.ACTIVE)
        store.save_state(tx, active)
        tell(tx, "subscription.updated", [active], now=now)
        return active
    if one.trial_policy == TrialPolicy.PAUSE:
        return pause(tx, one, at=one.anchor_at, now=now)
    plan = catalog.current(tx).plans.get(one.fallback_plan_key or "")
    if plan is None:
        raise errors.unknown_plan(one.fallback_plan_key or "")
    active = rules.move(one, Status.ACTIVE)
    store.save_state(tx, active)
    target = change_to(
        active, plan.key, [p.price_id for p in plan.prices], 1, effective_at=one.anchor_at, now=now
    )
    return go_to(tx, active, target, at=one.anchor_at, now=now)


def pause(tx: Tx, subscription: Subscription, *, at: datetime, now: datetime) -> Subscription:
    """Stop a subscription: its items end and give back what is left of them."""
    paused = rules.move(subscription, Status.PAUSED)
    store.save_state(tx, paused)
    store.end_items(tx, paused, ends_at=at, credited=True, reason=rules.PAUSED)
    store.settle_pending(tx, paused, ChangeState.DROPPED)
    metering.set_schedule(tx, paused.customer_id, rules.segment_after(at), now=now)
    tell(tx, "subscription.paused", [paused], now=now)
    return paused


def change_to(
    subscription: Subscription,
    plan_key: str,
    price_ids: Iterable[UUID],
    seats: int,
    *,
    effective_at: datetime,
    now: datetime,
    state: ChangeState = ChangeState.DONE,
) -> Change:
    """Return a change of this subscription."""
    return Change(
        subscription.customer_id,
        subscription.subscription_id,
        new_id(now),
        effective_at,
        plan_key,
        tuple(price_ids),
        seats,
        state,
        now,
    )


def tell(tx: Tx, type_: str, subscriptions: Iterable[Subscription], *, now: datetime) -> None:
    """Write a fact about each subscription for other systems."""
    outbox.emit_many(
        tx,
        [
            outbox.Fact(
                type_,
                one.customer_id,
                one.subscription_id,
                {"plan": one.plan_key, "status": one.status},
            )
            for one in subscriptions
        ],
        now=now,
    )
