"""The steps that the verbs of a subscription share: open periods, swap items, cut windows, end.

None of them decides whether a thing may be done; that is done before, in `rules`. Each writes what
follows from a decision in all places at once: the items, metering's windows and the outbox.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Rejected
from convergio.kernel.periods import Calendar, Interval
from convergio.metering import actions as metering
from convergio.metering.model import Segment, Share
from convergio.subscriptions import errors, limits, parts, rules, store
from convergio.subscriptions.model import (
    RESTING,
    Change,
    ChangeState,
    Item,
    Status,
    StoredPeriod,
    Subscription,
    Trial,
    TrialPolicy,
)

CanPay = Callable[[Tx, Sequence[UUID]], Collection[UUID]]


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
    by_calendar: bool = False,
) -> list[Subscription]:
    """Begin one subscription for each customer (with their currency) at these prices.

    `by_calendar`: the periods are the calendar's own, so the first one is a part of its whole.
    Raises: Conflict for the first customer who has a live one; then nothing is kept.
    """
    anchor = rules.calendar_anchor(start, time_zone, prices) if by_calendar else None
    created = [
        rules.new_subscription(
            customer_id, new_id(now), plan_key, start=start, now=now, time_zone=time_zone,
            currency=currency, trial=trial, anchor=anchor,
        )
        for customer_id, currency in customers.items()
    ]  # fmt: skip
    inserted = store.insert_subscriptions(tx, created)
    for one in created:
        if one.customer_id not in inserted:
            raise errors.already_subscribed(one.customer_id)
    for one in created[:1]:
        intervals = rules.intervals_of(prices)
        lines = [
            limits.Line(price, rules.quantity_of(price, seats), one.begins_at) for price in prices
        ]
        segments = _segments(lines, one, one.started_at, _unsummed(tx))
        store.copy_items(
            tx, (i for c in created for i in _items(c, prices, seats, c.begins_at, now=now))
        )
        store.copy_periods(tx, (rules.first_period(c, each) for c in created for each in intervals))
        for segment in segments:
            metering.set_schedules(tx, {c.customer_id: segment for c in created}, now=now)
    for one in created:
        if one.anchor_at < one.started_at:
            cut_windows(tx, one, at=one.started_at, now=now)
    tell(tx, "subscription.created", created, now=now)
    return created


def _items(
    one: Subscription, prices: Iterable[Price], seats: int, start: datetime, *, now: datetime
) -> Iterable[Item]:
    return (
        Item(
            one.customer_id, one.subscription_id, new_id(now), price.price_id,
            rules.quantity_of(price, seats), start, parts.ends_at(price, start),
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
    _close_windows(tx, ended, at=at, now=now)
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
    current = parts.of_plan(items)
    old = [book[item.price_id] for item in current]
    seats = (rules.seats_of(current, book), target.seats)
    reason = _reason(subscription, target, seats[0])
    at = max(at, subscription.anchor_at)
    agreed = subscription.plan_key == target.plan_key and seats[0] == seats[1]
    opens = bool(old) and not agreed and rules.opens_a_period(old, new, seats=seats)
    if opens and at > subscription.anchor_at:
        fits = rules.share_boundaries(rules.intervals_of(new))
        end(tx, subscription, at=at, now=now, credited=True, reason=reason)
        (begun,) = insert(
            tx, {subscription.customer_id: subscription.currency},
            unasked(tx, subscription, new), plan_key=target.plan_key,
            seats=target.seats, start=at, now=now, time_zone=subscription.time_zone,
            by_calendar=subscription.by_calendar and fits,
        )  # fmt: skip
        carry_add_ons(tx, parts.beside(items), begun, at=at, now=now)
        return begun
    new = unasked(tx, subscription, new)
    ending, beginning = rules.swapped(current, new, target.seats)
    if subscription.plan_key != target.plan_key:
        ending += parts.not_to_come(items, ending, new, at=at)
    store.end_items(tx, subscription, ends_at=at, credited=True, reason=reason, item_ids=ending)
    store.copy_items(tx, _items(subscription, beginning, target.seats, at, now=now))
    complete_periods(tx, subscription, rules.intervals_of(old), rules.intervals_of(new), until=at)
    moved = rules.on_plan(subscription, target.plan_key)
    store.save_state(tx, moved)
    if any(book[i.price_id].meter_key for i in current if i.item_id in ending) or any(
        price.meter_key for price in beginning
    ):
        cut_windows(tx, moved, at=at, now=now)
    tell(tx, "subscription.updated", [moved], now=now)
    return moved


def unasked(tx: Tx, one: Subscription, prices: Sequence[Price]) -> list[Price]:
    """Return the prices without those asked once that were: here, or in what this one follows.

    A change that opens new periods begins a subscription at the instant at which another ends, and
    to the customer that is still the same one.
    """
    if not any(price.once for price in prices):
        return list(prices)
    line, start = {one.subscription_id}, one.started_at
    for earlier in reversed(store.list_subscriptions(tx, [one.customer_id])):
        if earlier.canceled_at == start and earlier.subscription_id not in line:
            line.add(earlier.subscription_id)
            start = earlier.started_at
    every = store.list_items(tx, [one.customer_id])
    return parts.unasked(prices, [item for item in every if item.subscription_id in line])


def carry_add_ons(
    tx: Tx, items: Sequence[Item], to: Subscription, *, at: datetime, now: datetime
) -> None:
    """Let add-ons go on beside the subscription that takes another's place."""
    if items:
        book = prices_of(tx, items)
        ids = [new_id(now) for _ in items]
        store.copy_items(tx, parts.moved(items, book, to.subscription_id, ids, at=at))
        intervals = rules.intervals_of(list(book.values()))
        complete_periods(tx, to, [], intervals, until=at)


def _reason(subscription: Subscription, target: Change, seats: int) -> str:
    """Say on the invoice why an item ended."""
    if subscription.plan_key != target.plan_key:
        return f"plan changed to {target.plan_key}"
    if seats == target.seats:
        return "price changed as agreed"
    return f"seats changed to {target.seats}"


def complete_periods(
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


def cut_windows(tx: Tx, subscription: Subscription, *, at: datetime, now: datetime) -> None:
    """Let metering's windows follow a change of items: a cut at `at`, and what they share.

    A change before the anchor is one of the trial's limits, and of all that follows it.
    """
    one = subscription
    items = items_of(tx, one)
    book = prices_of(tx, items)
    unsummed = _unsummed(tx)
    lines = [
        limits.Line(book[item.price_id], item.quantity, item.active_from)
        for item in parts.of_plan(items)
    ]
    start = max(one.started_at, min(at, now)) if at <= one.anchor_at else at
    for segment in _segments(lines, one, start, unsummed):
        metering.set_schedule(
            tx, one.customer_id, segment, now=now, shares=_shares(one, items, book, at, unsummed)
        )


def _segments(
    lines: Sequence[limits.Line], one: Subscription, start: datetime, unsummed: AbstractSet[str]
) -> list[Segment]:
    """Return what windows follow from a start on: what is left of a trial, then the paid periods.

    The second replaces nothing of the first.
    """
    return [
        limits.segment_of(
            lines, start=begin, time_zone=one.time_zone, anchor=one.anchor_at,
            since=one.started_at, unsummed=unsummed, is_trial=begin < one.anchor_at,
        )
        for begin in sorted({start, max(start, one.anchor_at)})
    ]  # fmt: skip


def _shares(
    one: Subscription, items: Sequence[Item], book: Mapping[UUID, Price], at: datetime,
    unsummed: AbstractSet[str],
) -> list[Share]:  # fmt: skip
    """Return what the windows of the periods around `at` come to together, where they are cut."""
    calendar = {each: Calendar(one.anchor_at, one.time_zone, each) for each in Interval}
    return limits.shares(items, book, calendar, at, unsummed=unsummed) if at > one.anchor_at else []


def _unsummed(tx: Tx) -> frozenset[str]:
    """Return the meters whose usage is never added up."""
    meters = catalog.current(tx).meters.values()
    return frozenset(m.key for m in meters if m.aggregation not in {"sum", "count"})


def _close_windows(tx: Tx, one: Subscription, *, at: datetime, now: datetime) -> None:
    """End the windows of an agreement; a period that is credited keeps its part of the allowance.

    So what its usage draws of prepaid credit is what is beyond that part.
    """
    items = items_of(tx, one)
    shares = _shares(one, items, prices_of(tx, items), at, _unsummed(tx))
    metering.set_schedule(tx, one.customer_id, limits.segment_after(at), now=now, shares=shares)


def carry_out(
    tx: Tx,
    subscription: Subscription,
    changes: Sequence[Change],
    *,
    until: datetime,
    now: datetime,
    payable: Collection[UUID],
) -> Subscription:
    """Bring a subscription up to `until`: its trial's end, the changes that wait, its end."""
    one = subscription
    if one.cancel_at is not None and one.cancel_at <= min(until, one.anchor_at):
        return end(tx, one, at=max(one.cancel_at, one.started_at), now=now)
    if rules.trial_ends(one, until):
        if one.customer_id in payable or one.trial_policy == TrialPolicy.ACTIVATE:
            one = _begin_paid(tx, one, now=now)
        else:
            one, changes = _without_method(tx, one, now=now), ()
    for change in changes:
        if one.status in RESTING or one.subscription_id != change.subscription_id:
            break  # another subscription took its place, and dropped what waited
        if change.state == ChangeState.QUEUED and change.plan_key != one.plan_key:
            continue  # another plan ended the agreement
        store.settle_change(tx, change, ChangeState.DONE)
        one = go_to(tx, one, change, at=change.effective_at, now=now)
    if one.cancel_at is not None and one.cancel_at <= until:
        one = end(tx, one, at=one.cancel_at, now=now)
    return one


def caught_up(
    tx: Tx, live: Subscription, *, now: datetime, can_pay: CanPay | None = None
) -> Subscription:
    """Return a live subscription with everything done that was due by now, as a run would do it.

    `can_pay` decides what follows a trial that is over; who leaves it out waits for the run, unless
    the trial goes on whoever pays. Raises: Conflict for that.
    """
    open_until(tx, [live.customer_id], until=now)
    waiting = store.list_pending(tx, [live.customer_id], until=now)
    if not rules.is_due(live, waiting, now):
        return live
    over = rules.trial_ends(live, now)
    if over and can_pay is None and live.trial_policy != TrialPolicy.ACTIVATE:
        raise errors.trial_undecided()
    payable = can_pay(tx, [live.customer_id]) if over and can_pay is not None else ()
    current = carry_out(tx, live, waiting, until=now, now=now, payable=payable)
    open_until(tx, [live.customer_id], until=now)
    return current


def paid_until(tx: Tx, live: Subscription, *, now: datetime) -> datetime | None:
    """Return the last end of the periods, one an interval, that the prices in force run in now.

    A period of an interval that no price has any more decides nothing.
    """
    every = items_of(tx, live)
    active = [one for one in every if one.active_until is None or one.active_until > now]
    return store.find_current_end(
        tx,
        live.customer_id,
        live.subscription_id,
        rules.intervals_of(list(prices_of(tx, active).values())),
        instant=now,
    )


def next_boundary(tx: Tx, live: Subscription, *, now: datetime) -> datetime | None:
    """Return when something ends next: a period that runs now, a trial, or the subscription.

    A period in which no price is in force, and none measured usage, brings no invoice.
    """
    items = items_of(tx, live)
    book = prices_of(tx, items)

    def matters(period: StoredPeriod) -> bool:
        return any(
            book[one.price_id].interval == period.interval
            and rules.matters(one, book[one.price_id], since=period.start_at, now=now)
            for one in items
        )

    periods = store.list_periods(tx, [live.customer_id], until=now)
    return rules.next_boundary(live, filter(matters, periods), now=now)


def _begin_paid(tx: Tx, one: Subscription, *, now: datetime) -> Subscription:
    active = rules.move(one, Status.ACTIVE)
    store.save_state(tx, active)
    tell(tx, "subscription.updated", [active], now=now)
    return active


def _without_method(tx: Tx, one: Subscription, *, now: datetime) -> Subscription:
    """Do what the subscription says of a trial without a method; what waited is dropped.

    All that waited was asked of the plan that nobody pays for. Where the plan to fall back to is
    sold no more, or not to this customer, the trial ends paused: nobody agreed to anything else.
    """
    if one.trial_policy == TrialPolicy.PAUSE:
        return pause(tx, one, at=one.anchor_at, now=now)
    key = one.fallback_plan_key or ""
    try:
        prices = rules.fallback_prices(catalog.current(tx).plans, key, currency=one.currency)
    except Rejected as error:
        why = f"the trial cannot fall back to '{key}': {error.detail}"
        return pause(tx, one, at=one.anchor_at, now=now, why=why)
    active = rules.move(one, Status.ACTIVE)
    store.save_state(tx, active)
    store.settle_pending(tx, active, ChangeState.DROPPED)
    target = change_to(
        active, key, [p.price_id for p in prices], 1, effective_at=one.anchor_at, now=now
    )
    return go_to(tx, active, target, at=one.anchor_at, now=now)


def pause(
    tx: Tx, subscription: Subscription, *, at: datetime, now: datetime, why: str | None = None
) -> Subscription:
    """Stop a subscription: its items end and give back what is left of them.

    What was to end later in any case ends for its own reason, so `resume` does not bring it back.
    `why` is told where nobody asked for the pause.
    """
    paused = rules.move(subscription, Status.PAUSED)
    store.save_state(tx, paused)
    for one in items_of(tx, paused):
        if one.add_on_key and one.end_reason and parts.lasting([one], one.add_on_key, at=at):
            store.end_items(
                tx, paused, ends_at=at, credited=True, reason=one.end_reason,
                item_ids=[one.item_id],
            )  # fmt: skip
    store.end_items(tx, paused, ends_at=at, credited=True, reason=rules.PAUSED)
    store.settle_pending(tx, paused, ChangeState.DROPPED)
    _close_windows(tx, paused, at=at, now=now)
    tell(tx, "subscription.paused", [paused], now=now, why=why)
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


def tell(
    tx: Tx, type_: str, subscriptions: Iterable[Subscription], *, now: datetime,
    why: str | None = None,
) -> None:  # fmt: skip
    """Write a fact about each subscription for other systems."""
    more = {} if why is None else {"reason": why}
    outbox.emit_many(
        tx,
        [
            outbox.Fact(
                type_,
                one.customer_id,
                one.subscription_id,
                {"plan": one.plan_key, "status": one.status, **more},
            )
            for one in subscriptions
        ],
        now=now,
    )
