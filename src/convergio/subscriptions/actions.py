"""Subscribe, renew and cancel. Every verb locks, decides in `rules`, saves and emits."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Plan
from convergio.customers import actions as customers
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Difference, Rejected
from convergio.kernel.periods import Calendar, Interval, instant_text
from convergio.metering import actions as metering
from convergio.subscriptions import errors, rules, store
from convergio.subscriptions.model import (
    BillingView,
    Item,
    Status,
    StoredPeriod,
    Subscription,
)


def create(
    tx: Tx,
    *,
    customer_id: UUID,
    plan_key: str,
    start: datetime,
    now: datetime,
    time_zone: str = "UTC",
    seats: int = 1,
) -> Subscription:
    """Subscribe a customer to a plan at the prices that it sells today.

    Emits: subscription.created. Raises: NotFound, Invalid, Conflict (one live subscription).
    """
    created = create_many(
        tx,
        customer_ids=[customer_id],
        plan_key=plan_key,
        start=start,
        now=now,
        time_zone=time_zone,
        seats=seats,
    )
    return created[0]


def create_many(
    tx: Tx,
    *,
    customer_ids: Sequence[UUID],
    plan_key: str,
    start: datetime,
    now: datetime,
    time_zone: str = "UTC",
    seats: int = 1,
) -> list[Subscription]:
    """Subscribe many customers to one plan from one start; all of them or none.

    Emits: subscription.created for each. Raises: NotFound, Invalid, Conflict (the first customer
    who has a live subscription).
    """
    if not customer_ids:
        return []
    plan = _plan(tx, plan_key)
    rules.check_start(start, now=now)
    rules.check_seats(plan.prices, seats)
    created = _insert(tx, customer_ids, plan, start=start, now=now, time_zone=time_zone)
    store.copy_items(
        tx,
        (
            Item(
                one.customer_id, one.subscription_id, new_id(now), price.price_id,
                rules.quantity_of(price, seats), start, None,
            )
            for one in created
            for price in plan.prices
        ),
    )  # fmt: skip
    intervals = rules.intervals_of(plan.prices)
    store.copy_periods(
        tx, (rules.first_period(one, interval) for one in created for interval in intervals)
    )
    segment = rules.segment_of(plan.prices, start=start, time_zone=time_zone)
    metering.set_schedules(tx, {one.customer_id: segment for one in created}, now=now)
    _tell(tx, "subscription.created", created, now=now)
    return created


def _plan(tx: Tx, plan_key: str) -> Plan:
    plan = catalog.current(tx).plans.get(plan_key)
    if plan is None:
        raise errors.unknown_plan(plan_key)
    return plan


def _insert(
    tx: Tx,
    customer_ids: Sequence[UUID],
    plan: Plan,
    *,
    start: datetime,
    now: datetime,
    time_zone: str,
) -> list[Subscription]:
    accounts = customers.get_many(tx, customer_ids)
    for currency in sorted({account.currency for account in accounts.values()}):
        rules.check_prices(plan.prices, currency=currency)
    created = [
        rules.new_subscription(
            customer_id, new_id(now), plan, start=start, now=now, time_zone=time_zone,
            currency=account.currency,
        )
        for customer_id, account in accounts.items()
    ]  # fmt: skip
    inserted = store.insert_subscriptions(tx, created)
    for one in created:
        if one.customer_id not in inserted:
            raise errors.already_subscribed(one.customer_id)
    return created


def open_periods(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> int:
    """Store every period of the live subscriptions that begins by `until`; return how many.

    Locks: the customers' subscriptions. Periods follow from the original anchor, so the order and
    the number of calls make no difference.
    """
    store.lock_subscriptions(tx, customer_ids)
    return _open(tx, customer_ids, until=until)


def renew(
    tx: Tx, customer_ids: Sequence[UUID], *, until: datetime, now: datetime
) -> tuple[list[Subscription], dict[UUID, str]]:
    """Open the periods that begin by `until` and carry out the ends that it reaches.

    Returns all subscriptions in the order of customer and id, as they stand afterwards, and by
    customer why an end must wait (for open reservations); the next renewal tries again. Locks:
    the customers' subscriptions. Emits: subscription.canceled.
    """
    locked = store.lock_subscriptions(tx, customer_ids)
    _open(tx, customer_ids, until=until)
    current, delays = [], {}
    for one in locked:
        after = one
        if one.cancel_at is not None and one.cancel_at <= until:
            try:
                with tx.savepoint():
                    after = _end(tx, one, at=one.cancel_at, now=now)
            except Rejected as error:
                delays[one.customer_id] = f"its end must wait: {error.detail}"
        current.append(after)
    return current, delays


def _open(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> int:
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


def cancel(tx: Tx, *, customer_id: UUID, at_period_end: bool, now: datetime) -> Subscription:
    """End a customer's subscription, now or when what is paid for ends.

    Now: items and limits end at this instant; the fees of the begun periods stay owed, and usage
    so far is billed at once. At period end: the last of the periods that run now, one an interval,
    decides; renew and the billing run carry it out. Locks: the subscription. Emits:
    subscription.canceled or subscription.ending. Raises: NotFound, Conflict.
    """
    live = _live(tx, customer_id)
    _open(tx, [customer_id], until=now)
    if not at_period_end:
        at = now if live.cancel_at is None else min(now, live.cancel_at)
        return _end(tx, live, at=max(at, live.started_at), now=now)
    ends_at = store.find_current_end(tx, customer_id, live.subscription_id, instant=now)
    ending = rules.schedule_end(live, ends_at or now)
    store.save_state(tx, ending)
    data = {"cancel_at": instant_text(ends_at or now)}
    outbox.emit(
        tx, "subscription.ending", customer_id=customer_id, subject=live.subscription_id,
        data=data, now=now,
    )  # fmt: skip
    return ending


def _end(tx: Tx, subscription: Subscription, *, at: datetime, now: datetime) -> Subscription:
    ended = rules.end(subscription, at)
    store.save_state(tx, ended)
    store.end_items(tx, ended, ends_at=at)
    metering.set_schedule(tx, ended.customer_id, rules.segment_after(at), now=now)
    _tell(tx, "subscription.canceled", [ended], now=now)
    return ended


def set_status(tx: Tx, *, customer_id: UUID, status: Status, now: datetime) -> Subscription | None:
    """Move the live subscription to a status, as dunning does; None where none is live.

    Locks: the subscription. Emits: subscription.updated on a change. Raises: Conflict when the
    transition table has no such step.
    """
    live = store.lock_live(tx, customer_id)
    if live is None or live.status == status:
        return live
    moved = rules.move(live, status)
    store.save_state(tx, moved)
    _tell(tx, "subscription.updated", [moved], now=now)
    return moved


def live_status(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Status]:
    """Return the status of each customer's live subscription; who has none is left out."""
    return store.list_live_status(tx, customer_ids)


def history(tx: Tx, customer_id: UUID) -> list[Subscription]:
    """Return every subscription of one customer, the oldest first."""
    return store.list_subscriptions(tx, [customer_id])


def for_billing(
    tx: Tx, *, after: UUID | None, limit: int, until: datetime, now: datetime
) -> list[BillingView]:
    """Return the next customers in order, locked, renewed up to `until`, with all they stored.

    Locks: the subscriptions of these customers, so that two runs, or a run and a cancellation,
    take turns. Emits: subscription.canceled where an agreed end is reached.
    """
    customer_ids = store.page_customers(tx, after=after, limit=limit)
    current, delays = renew(tx, customer_ids, until=until, now=now)
    return _views(tx, customer_ids, current, delays, until=until)


def as_stored(tx: Tx, *, after: UUID | None, limit: int, until: datetime) -> list[BillingView]:
    """Return the next customers as `for_billing` does, but as they stand: nothing is changed."""
    customer_ids = store.page_customers(tx, after=after, limit=limit)
    found = store.list_subscriptions(tx, customer_ids)
    return _views(tx, customer_ids, found, {}, until=until)


def _views(
    tx: Tx,
    customer_ids: Sequence[UUID],
    subscriptions: Sequence[Subscription],
    delays: Mapping[UUID, str],
    *,
    until: datetime,
) -> list[BillingView]:
    items = store.list_items(tx, customer_ids)
    periods = store.list_periods(tx, customer_ids, until=until)
    return rules.views(subscriptions, items, periods, delays)


def count_billable(tx: Tx) -> int:
    """Return how many customers `for_billing` goes through, for a progress bar."""
    return store.count_customers(tx)


def _live(tx: Tx, customer_id: UUID) -> Subscription:
    live = store.lock_live(tx, customer_id)
    if live is None:
        raise errors.not_subscribed(customer_id)
    return live


def _tell(tx: Tx, type_: str, subscriptions: Iterable[Subscription], *, now: datetime) -> None:
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


def verify(tx: Tx) -> list[Difference]:
    """Return periods that differ from the calendar or leave a gap, and items that never end.

    A gap or an overlap cannot hide: each interval is counted from 0 and each period compared with
    the one that the original anchor gives.
    """
    found = [
        Difference(
            where=f"item {row.item_id} of customer {row.customer_id}",
            expected="an end not after its subscription's",
            found="active after it",
        )
        for row in store.find_unended(tx)
    ]
    calendar = lru_cache(Calendar)
    last: tuple[UUID, Interval] | None = None
    due = 0
    for period, anchor, time_zone in store.stream_periods(tx):
        this = (period.subscription_id, period.interval)
        due, last = (due + 1 if this == last else 0), this
        expected = calendar(anchor, time_zone, period.interval).period(due)
        if (period.number, period.start_at, period.end_at) != (due, expected.start, expected.end):
            found.append(_difference(period, due, expected.start, expected.end))
            due = period.number
    return found


def _difference(period: StoredPeriod, due: int, start: datetime, end: datetime) -> Difference:
    return Difference(
        where=f"{period.interval} period of subscription {period.subscription_id}",
        expected=f"number {due}, {instant_text(start)} to {instant_text(end)}",
        found=(
            f"number {period.number}, {instant_text(period.start_at)}"
            f" to {instant_text(period.end_at)}"
        ),
    )
