"""Subscribe, renew and cancel. Every verb locks, decides in `rules`, saves and emits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.customers import actions as customers
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.pipe import Question
from convergio.kernel.errors import Difference, Rejected
from convergio.kernel.periods import Calendar, Interval, instant_text
from convergio.metering import actions as metering
from convergio.subscriptions import errors, gathering, limits, rules, steps, store
from convergio.subscriptions.model import (
    BillingView,
    Change,
    ChangeState,
    Item,
    Mark,
    Status,
    StoredPeriod,
    Subscription,
    Trial,
)

CanPay = steps.CanPay


def create(
    tx: Tx,
    *,
    customer_id: UUID,
    plan_key: str,
    start: datetime,
    now: datetime,
    time_zone: str = "UTC",
    seats: int = 1,
    trial: Trial | None = None,
    by_calendar: bool = False,
) -> Subscription:
    """Subscribe a customer to a plan at the prices that it sells today.

    `by_calendar`: periods begin with the calendar's month (or year, quarter, week, day), and the
    first is charged for its part; else they are counted from the start.
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
        trial=trial,
        by_calendar=by_calendar,
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
    trial: Trial | None = None,
    by_calendar: bool = False,
) -> list[Subscription]:
    """Subscribe many customers to one plan from one start; all of them or none.

    Locks: the customers' earlier subscriptions. Emits: subscription.created for each. Raises:
    NotFound, Invalid, Conflict (the first customer who has a live subscription, or whose last one
    ended after the start).
    """
    if not customer_ids:
        return []
    plans = catalog.current(tx).plans
    plan = plans.get(plan_key)
    if plan is None:
        raise errors.unknown_plan(plan_key)
    rules.check_start(start, now=now)
    if plan.add_on:
        raise errors.only_beside_a_plan(plan.key)
    rules.check_seats(plan.prices, seats)
    if trial is not None:
        if by_calendar:
            raise errors.calendar_trial()
        rules.check_trial(trial)
    accounts = customers.get_many(tx, customer_ids)
    by_currency: dict[str, dict[UUID, str]] = {}
    for customer_id, account in accounts.items():
        by_currency.setdefault(account.currency, {})[customer_id] = account.currency
    for currency in by_currency:
        rules.check_prices(plan.in_currency(currency), currency=currency)
        if trial is not None and trial.fallback_plan_key is not None:
            rules.fallback_prices(plans, trial.fallback_plan_key, currency=currency)
    rules.check_after(store.lock_subscriptions(tx, customer_ids), start)
    return [
        one
        for currency, some in by_currency.items()
        for one in steps.insert(
            tx,
            some,
            plan.in_currency(currency),
            plan_key=plan.key,
            seats=seats,
            start=start,
            now=now,
            time_zone=time_zone,
            trial=trial,
            by_calendar=by_calendar,
        )
    ]


def renew(
    tx: Tx,
    customer_ids: Sequence[UUID],
    *,
    until: datetime,
    now: datetime,
    can_pay: CanPay | None = None,
) -> tuple[list[Subscription], dict[UUID, str]]:
    """Open the periods that begin by `until`, and carry out the trials' ends, changes and ends.

    Returns all subscriptions in the order of customer and id, as they stand afterwards, and by
    customer why something must wait (for open reservations); the next renewal tries again.
    `can_pay` says which customers have a payment method; without it nobody is known to have one.
    Locks: the customers' subscriptions. Emits: what the verbs emit.
    """
    locked = store.lock_subscriptions(tx, customer_ids)
    steps.open_until(tx, customer_ids, until=until)
    waiting: dict[UUID, list[Change]] = {}
    for each in store.list_pending(tx, customer_ids, until=until):
        waiting.setdefault(each.subscription_id, []).append(each)
    trials = [one.customer_id for one in locked if rules.trial_ends(one, until)]
    payable = can_pay(tx, trials) if trials and can_pay is not None else ()
    current: list[Subscription] = []
    delays: dict[UUID, str] = {}
    for one in locked:
        after, due = one, waiting.get(one.subscription_id, [])
        if rules.is_due(one, due, until):
            try:
                with tx.savepoint():
                    after = steps.carry_out(tx, one, due, until=until, now=now, payable=payable)
            except Rejected as error:
                what = "change" if due else "end"
                delays[one.customer_id] = f"its {what} must wait: {error.detail}"
        current.append(after)
    if [one.subscription_id for one in current] == [one.subscription_id for one in locked]:
        return current, delays
    steps.open_until(tx, customer_ids, until=until)
    return store.list_subscriptions(tx, customer_ids), delays


def cancel(
    tx: Tx,
    *,
    customer_id: UUID,
    at_period_end: bool,
    now: datetime,
    credit: bool = False,
    can_pay: CanPay | None = None,
) -> Subscription:
    """End a customer's subscription, now or when what is paid for ends.

    Now: items and limits end at this instant and usage so far is billed at once; the fees of the
    begun periods stay owed, or with `credit` their unused part is given back. At period end: the
    last of the periods that run now, one an interval, decides; renew and the billing run carry it
    out. What is due by now is carried out first, and a change that waits is dropped. Locks: the
    subscription. Emits: subscription.canceled or subscription.ending. Raises: NotFound, Conflict;
    Invalid for credit at a period's end, where nothing is left.
    """
    if at_period_end and credit:
        raise errors.credit_later()
    live = steps.caught_up(tx, _live(tx, customer_id), now=now, can_pay=can_pay)
    if live.status == Status.CANCELED:
        return live  # its end had passed unnoticed, and keeps its instant
    if not at_period_end:
        at = now if live.cancel_at is None else min(now, live.cancel_at)
        at = max(at, live.started_at)
        return steps.end(tx, live, at=at, now=now, credited=credit)
    ends_at = steps.paid_until(tx, live, now=now) or max(now, live.anchor_at)
    ending = rules.schedule_end(live, ends_at)
    store.save_state(tx, ending)
    store.settle_pending(tx, ending, ChangeState.DROPPED)
    outbox.emit(
        tx,
        "subscription.ending",
        customer_id=customer_id,
        subject=live.subscription_id,
        data={"cancel_at": instant_text(ends_at)},
        now=now,
    )
    return ending


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
    steps.tell(tx, "subscription.updated", [moved], now=now)
    return moved


def ask_live_status(customer_ids: bytes) -> Question[dict[bytes | None, str]]:
    """Ask as `live_status` does, together with others: ids are an array in the server's text."""
    return store.ask_live_status(customer_ids)


def live_status(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Status]:
    """Return the status of each customer's live subscription; who has none is left out."""
    return store.list_live_status(tx, customer_ids)


def usage_prices(
    tx: Tx, customer_ids: Sequence[UUID], *, now: datetime
) -> dict[UUID, dict[str, Price]]:
    """Return the pinned usage prices in force at an instant, by customer and meter key."""
    active = [
        item
        for item in store.list_items(tx, customer_ids)
        if item.active_from <= now and (item.active_until is None or now < item.active_until)
    ]
    prices = catalog.prices(tx, {item.price_id for item in active})
    found: dict[UUID, dict[str, Price]] = {}
    for item in active:
        price = prices[item.price_id]
        if price.meter_key is not None:
            found.setdefault(item.customer_id, {})[price.meter_key] = price
    return found


def usage_stretches(
    tx: Tx, customer_ids: Sequence[UUID], *, now: datetime
) -> dict[UUID, dict[str, list[limits.Stretch]]]:
    """Return by customer and meter the stretches of the usage periods around an instant."""
    items = store.list_items(tx, customer_ids)
    prices = catalog.prices(tx, {item.price_id for item in items})
    found: dict[UUID, dict[str, list[limits.Stretch]]] = {}
    for one in store.list_subscriptions(tx, customer_ids):
        if one.status != Status.CANCELED:
            months = {each: Calendar(one.anchor_at, one.time_zone, each) for each in Interval}
            own = [item for item in items if item.subscription_id == one.subscription_id]
            found[one.customer_id] = limits.stretches_at(own, prices, months, now)
    return found


def history(tx: Tx, customer_id: UUID) -> list[Subscription]:
    """Return every subscription of one customer, the oldest first."""
    return store.list_subscriptions(tx, [customer_id])


def page(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    limit: int,
    customer_id: UUID | None = None,
    plan_key: str | None = None,
    status: Status | None = None,
) -> list[Subscription]:
    """Return the next subscriptions in the order of customer and time."""
    return store.page_subscriptions(
        tx, after=after, limit=limit, customer_id=customer_id, plan_key=plan_key, status=status
    )


def live(tx: Tx, customer_id: UUID) -> Subscription:
    """Return the live subscription of a customer. Raises: NotFound."""
    for one in history(tx, customer_id):
        if one.status != Status.CANCELED:
            return one
    raise errors.not_subscribed(customer_id)


def find(tx: Tx, customer_id: UUID, subscription_id: UUID) -> Subscription:
    """Return one subscription of a customer. Raises: NotFound."""
    for one in history(tx, customer_id):
        if one.subscription_id == subscription_id:
            return one
    raise errors.unknown_subscription()


def page_starts(tx: Tx, *, size: int) -> list[UUID]:
    """Return where the pages of so many customers begin, but for the first."""
    return store.page_starts(tx, size=size)


def customers_in(tx: Tx, *, first: UUID, until: UUID | None) -> list[UUID]:
    """Return the customers of a page, from `first` up to, not with, `until`, in order."""
    return store.list_customers_in(tx, first=first, until=until)


def customers_after(tx: Tx, *, after: UUID | None, limit: int) -> list[UUID]:
    """Return the next customers, in order, that ever had a subscription."""
    return store.page_customers(tx, after=after, limit=limit)


def for_customers(
    tx: Tx,
    customer_ids: Sequence[UUID],
    *,
    until: datetime,
    now: datetime,
    can_pay: CanPay | None = None,
) -> list[BillingView]:
    """Return these customers, locked and renewed up to `until`, with all that a run needs of them.

    Locks: their subscriptions, so that two runs, or a run and a cancellation, take turns. Emits:
    as `renew`.
    """
    found = gathering.gather(tx, customer_ids, until=until)
    delays: Mapping[UUID, str] = {}
    if found.due:
        _, delays = renew(tx, found.due, until=until, now=now, can_pay=can_pay)
        found.renewed(gathering.gather(tx, found.due, until=until))
    return gathering.views(tx, customer_ids, found, delays, until=until)


def _floors(tx: Tx, stored: Sequence[Mark]) -> dict[UUID, datetime]:
    """Return where subscriptions are closed and no usage before it has changed since."""
    found = metering.usage_marks(tx, [(one.customer_id, one.until) for one in stored])
    return {
        one.subscription_id: one.until
        for one, mark in zip(stored, found, strict=True)
        if one.mark == mark
    }


def close(tx: Tx, views: Sequence[BillingView]) -> None:
    """Note that what these customers owe for the periods before their marks is billed."""
    marks = [mark for view in views for mark in view.marks]
    if marks:
        store.save_marks(tx, marks)


def hold(tx: Tx, customer_id: UUID) -> None:
    """Let no billing run have this customer until the transaction ends. Locks: subscriptions."""
    store.lock_subscriptions(tx, [customer_id])


def hold_many(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Let nothing change the subscriptions of these customers meanwhile. Locks: all of them."""
    store.hold_subscriptions(tx, customer_ids)


def reopen(tx: Tx, customer_id: UUID) -> None:
    """Let the next run look at everything of a customer again, as a correction asks for."""
    store.reopen(tx, customer_id)


def find_item(tx: Tx, customer_id: UUID, item_id: UUID) -> Item | None:
    """Return one item of a customer."""
    return next((i for i in store.list_items(tx, [customer_id]) if i.item_id == item_id), None)


def next_boundary(tx: Tx, customer_id: UUID, *, now: datetime) -> datetime | None:
    """Return the earliest end of the periods that run now, or the end of a trial."""
    live = next((s for s in history(tx, customer_id) if s.status != Status.CANCELED), None)
    if live is None:
        return None
    return steps.next_boundary(tx, live, now=now)


def as_stored(tx: Tx, *, after: UUID | None, limit: int, until: datetime) -> list[BillingView]:
    """Return the next customers as `for_customers` does, but as they stand: nothing is changed.

    A trial that is over and of which nobody has decided what follows has no periods.
    Every period is there, the closed ones too; `floors` says which a run would leave out, and
    `marks` are those that are stored.
    """
    customer_ids = store.page_customers(tx, after=after, limit=limit)
    found = store.list_subscriptions(tx, customer_ids)
    views = _views(tx, customer_ids, found, {}, until=until)
    stored = store.list_marks(tx, customer_ids)
    return rules.with_marks(views, stored, _floors(tx, stored))


def _views(
    tx: Tx,
    customer_ids: Sequence[UUID],
    subscriptions: Sequence[Subscription],
    delays: Mapping[UUID, str],
    *,
    until: datetime,
    floors: Mapping[UUID, datetime] | None = None,
) -> list[BillingView]:
    items = store.list_items(tx, customer_ids)
    undecided = {one.subscription_id for one in subscriptions if rules.trial_ends(one, until)}
    stored = store.list_periods(tx, customer_ids, until=until, floors=floors)
    periods = [period for period in stored if period.subscription_id not in undecided]
    return rules.views(subscriptions, items, periods, delays)


def pinned(tx: Tx) -> list[tuple[UUID, str | None, str]]:
    """Return each price that is or was pinned, its add-on if any, and the subscription's plan."""
    return store.list_pinned(tx)


def count_billable(tx: Tx) -> int:
    """Return how many customers a billing run goes through, for a progress bar."""
    return store.count_customers(tx)


def _live(tx: Tx, customer_id: UUID) -> Subscription:
    live = store.lock_live(tx, customer_id)
    if live is None:
        raise errors.not_subscribed(customer_id)
    return live


def verify(tx: Tx) -> list[Difference]:
    """Return periods that differ from the calendar or leave a gap, and items that never end.

    A gap or an overlap cannot hide: each interval is counted from the period in which it begins to
    be paid, and each period compared with the one that the original anchor gives.
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
    for period, anchor, time_zone, begins_at in store.stream_periods(tx):
        this = (period.subscription_id, period.interval)
        known = calendar(anchor, time_zone, period.interval)
        due, last = (due + 1 if this == last else known.number_at(begins_at)), this
        expected = known.period(due)
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
