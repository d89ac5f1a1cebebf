"""The verbs that change a running subscription: plan, seats, pause, resume, and taking back an end.

A change at an instant ends the items that it touches and begins others; billing's owed - billed
makes the credit and the new fee of it, and metering's windows are cut there. What is asked for the
end of a period is kept as a pending change, at the prices of the day on which it was asked for,
and `renew` carries it out.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.periods import instant_text
from convergio.subscriptions import errors, parts, rules, steps, store
from convergio.subscriptions.model import (
    Change,
    ChangeState,
    Status,
    Subscription,
    When,
)

_DAY: Final = timedelta(days=1)


def change(
    tx: Tx,
    *,
    customer_id: UUID,
    plan_key: str | None = None,
    seats: int | None = None,
    when: When | None = None,
    now: datetime,
    can_pay: steps.CanPay | None = None,
) -> Subscription:
    """Put a customer on another plan or another number of seats, now or at the period's end.

    Without `when`, what costs more takes effect now and what costs less at the end (RULES 10).
    The new prices are those that the plan sells today. Locks: the subscription. Emits:
    subscription.updated; subscription.change_scheduled; subscription.canceled and
    subscription.created where new periods begin. Raises: NotFound, Invalid, Conflict,
    LimitExceeded for too many changes a day.
    """
    live = up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    rules.check_changeable(live)
    current = parts.of_plan(steps.items_of(tx, live))
    book = steps.prices_of(tx, current)
    old = [book[item.price_id] for item in current]
    had = rules.seats_of(current, book)
    new = old
    if plan_key is not None and plan_key != live.plan_key:
        plan = catalog.current(tx).plans.get(plan_key)
        if plan is None:
            raise errors.unknown_plan(plan_key)
        if plan.add_on:
            raise errors.only_beside_a_plan(plan.key)
        new = list(plan.in_currency(live.currency))
    rules.check_prices(new, currency=live.currency)
    wanted = rules.seats_for(new, had, seats)
    rules.check_seats(new, wanted)
    if {p.price_id for p in new} == {p.price_id for p in old} and wanted == had:
        raise errors.nothing_to_change()
    timing = rules.when_of(when, old, new, seats=(had, wanted))
    target = steps.change_to(
        live, plan_key or live.plan_key, [p.price_id for p in new], wanted,
        effective_at=now, now=now,
    )  # fmt: skip
    if timing == When.PERIOD_END:
        return _schedule(tx, live, target, now=now)
    return _change_now(tx, live, target, now=now)


def _change_now(tx: Tx, live: Subscription, target: Change, *, now: datetime) -> Subscription:
    rules.fits_day(store.count_changes(tx, live.customer_id, since=now - _DAY))
    if target.plan_key != live.plan_key:
        store.settle_pending(tx, live, ChangeState.DROPPED)
    else:
        store.save_pending_seats(tx, live, target.seats)
    store.insert_change(tx, target)
    return steps.go_to(tx, live, target, at=now, now=now)


def _schedule(tx: Tx, live: Subscription, target: Change, *, now: datetime) -> Subscription:
    if ramp(tx, live):
        raise errors.ramp_agreed()
    ends_at = steps.paid_until(tx, live, now=now)
    store.settle_pending(tx, live, ChangeState.DROPPED)
    pending = rules.pending(target, effective_at=ends_at or max(now, live.anchor_at))
    store.insert_change(tx, pending)
    outbox.emit(
        tx,
        "subscription.change_scheduled",
        customer_id=live.customer_id,
        subject=live.subscription_id,
        data={
            "plan": pending.plan_key,
            "seats": pending.seats,
            "effective_at": instant_text(pending.effective_at),
        },
        now=now,
    )
    return live


def drop_change(
    tx: Tx, *, customer_id: UUID, now: datetime, can_pay: steps.CanPay | None = None
) -> Subscription:
    """Take back a change that waits, or every step of a ramp that is still to come.

    Locks: the subscription. Raises: NotFound, Conflict.
    """
    live = up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    if not store.settle_pending(tx, live, ChangeState.DROPPED):
        raise errors.nothing_pending()
    return live


def pending(tx: Tx, live: Subscription) -> Change | None:
    """Return the change that waits, if any."""
    every = store.list_changes(tx, live.customer_id, live.subscription_id)
    return next((one for one in every if one.state == ChangeState.PENDING), None)


def ramp(tx: Tx, live: Subscription) -> list[Change]:
    """Return the agreed steps that are still to come, the next one first."""
    every = store.list_changes(tx, live.customer_id, live.subscription_id)
    steps_ = [one for one in every if one.state == ChangeState.QUEUED]
    return sorted(steps_, key=lambda one: one.effective_at)


def pause(
    tx: Tx, *, customer_id: UUID, now: datetime, can_pay: steps.CanPay | None = None
) -> Subscription:
    """Stop a subscription now; the unused part of its fees is credited, a waiting change dropped.

    Locks: the subscription. Emits: subscription.paused. Raises: NotFound, Conflict.
    """
    live = up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    rules.check_changeable(live)
    if live.status == Status.TRIALING:
        raise errors.not_changeable(live.status)
    return steps.pause(tx, live, at=now, now=now)


def resume(
    tx: Tx, *, customer_id: UUID, now: datetime, can_pay: steps.CanPay | None = None
) -> Subscription:
    """Go on with a paused subscription: the rest of the period is charged from now on.

    One that was paused by the end of its trial begins its first paid period now. Locks: the
    subscription. Emits: subscription.updated, or subscription.canceled and subscription.created.
    Raises: NotFound, Conflict.
    """
    live = up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    if live.status != Status.PAUSED:
        raise errors.cannot_become(live.status, Status.ACTIVE)
    every = rules.paused_items(steps.items_of(tx, live))
    items = [item for item in every if item.add_on_key is None]
    add_ons = [item for item in every if item.add_on_key is not None]
    book = steps.prices_of(tx, items)
    prices = [book[item.price_id] for item in items]
    seats = rules.seats_of(items, book)
    if rules.never_began(steps.items_of(tx, live)):
        steps.end(tx, live, at=now, now=now)
        (begun,) = steps.insert(
            tx, {customer_id: live.currency}, prices, plan_key=live.plan_key, seats=seats,
            start=now, now=now, time_zone=live.time_zone, by_calendar=live.by_calendar,
        )  # fmt: skip
        steps.carry_add_ons(tx, add_ons, begun, at=now, now=now)
        return begun
    active = rules.move(live, Status.ACTIVE)
    store.save_state(tx, active)
    target = steps.change_to(
        active, live.plan_key, [p.price_id for p in prices], seats, effective_at=now, now=now
    )
    resumed = steps.go_to(tx, active, target, at=now, now=now)
    steps.carry_add_ons(tx, add_ons, resumed, at=now, now=now)
    return resumed


def reactivate(
    tx: Tx, *, customer_id: UUID, now: datetime, can_pay: steps.CanPay | None = None
) -> Subscription:
    """Take back an end that is still to come.

    Locks: the subscription. Emits: subscription.updated. Raises: NotFound, Conflict.
    """
    live = rules.reactivate(up_to_date(tx, customer_id, now=now, can_pay=can_pay))
    store.save_state(tx, live)
    steps.tell(tx, "subscription.updated", [live], now=now)
    return live


def up_to_date(
    tx: Tx, customer_id: UUID, *, now: datetime, can_pay: steps.CanPay | None = None
) -> Subscription:
    """Return the live subscription, locked, with everything done that was due by now.

    `can_pay` decides a trial that is over. Raises: NotFound; Conflict where it is left out.
    """
    live = store.lock_live(tx, customer_id)
    if live is None:
        raise errors.not_subscribed(customer_id)
    live = steps.caught_up(tx, live, now=now, can_pay=can_pay)
    if live.status == Status.CANCELED:
        raise errors.not_subscribed(customer_id)
    return live


def value(one: Subscription, waiting: Change | None = None) -> dict[str, Any]:
    """Return a subscription and the change that waits, as JSON takes them."""

    def when(instant: datetime | None) -> str | None:
        return None if instant is None else instant_text(instant)

    return {
        "id": typeid("sub", one.subscription_id),
        "customer": typeid("cus", one.customer_id),
        "plan": one.plan_key,
        "status": one.status.value,
        "time_zone": one.time_zone,
        "currency": one.currency,
        "started_at": when(one.started_at),
        "anchor_at": when(one.anchor_at),
        "trial_ends_at": when(one.trial_ends_at),
        "cancel_at": when(one.cancel_at),
        "canceled_at": when(one.canceled_at),
        "pending_change": None
        if waiting is None
        else {
            "plan": waiting.plan_key,
            "seats": waiting.seats,
            "effective_at": when(waiting.effective_at),
        },
    }
