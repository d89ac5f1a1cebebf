"""What a subscription may do and which periods it has: decisions without a database."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from convergio.catalog.model import Plan, Price
from convergio.kernel.errors import require
from convergio.kernel.periods import Calendar, Interval, turn_before
from convergio.rating.rules import rate
from convergio.subscriptions import errors, limits
from convergio.subscriptions.model import (
    TRANSITIONS,
    Agreement,
    BillingView,
    Change,
    ChangeState,
    Item,
    Mark,
    Status,
    StoredPeriod,
    Subscription,
    Trial,
    TrialPolicy,
    When,
)

EARLIEST_START: Final = datetime(2000, 1, 1, tzinfo=UTC)
SEATS_MAX: Final = 1_000_000
TRIAL_DAYS_MAX: Final = 730
CHANGES_A_DAY_MAX: Final = 20
_CHANGEABLE: Final = frozenset({Status.TRIALING, Status.ACTIVE, Status.PAST_DUE})
_A_YEAR: Final = {
    Interval.DAY: 365,
    Interval.WEEK: 52,
    Interval.MONTH: 12,
    Interval.QUARTER: 4,
    Interval.YEAR: 1,
}
_MUCH: Final = Decimal(10**12)
_ZERO: Final = Decimal(0)
PAUSED: Final = "paused"
_ONE: Final = Decimal(1)
_SUBSCRIPTION: Final = attrgetter("subscription_id")
_INTERVAL: Final = attrgetter("interval")


def check_start(start: datetime, *, now: datetime) -> None:
    """Refuse a start in the future or in another century. Raises: Invalid."""
    if start > now:
        raise errors.bad_start("a subscription starts now or in the past; write an earlier time")
    if start < EARLIEST_START:
        raise errors.bad_start("a subscription starts in 2000 or later; write a later time")


def check_after(earlier: Iterable[Subscription], start: datetime) -> None:
    """Refuse a start before the end of what a customer had: both would bill. Raises: Conflict.

    The very end of it is no part of it, so it may be the start.
    """
    ends = [(one.canceled_at, one.customer_id) for one in earlier if one.canceled_at is not None]
    last, customer_id = max(ends, default=(start, None))
    if customer_id is not None and start < last:
        raise errors.overlapping_start(customer_id, last)


def check_seats(prices: Sequence[Price], seats: int) -> None:
    """Refuse seats that the plan has no price for. Raises: Invalid."""
    if not 1 <= seats <= SEATS_MAX:
        raise errors.bad_seats(f"write a number of seats from 1 to {SEATS_MAX}")
    if seats > 1 and not any(limits.is_per_seat(price) for price in prices):
        raise errors.bad_seats("this plan has no price per seat; leave the seats out")


def check_prices(prices: Sequence[Price], *, currency: str, field: str = "plan") -> None:
    """Refuse a plan that cannot be billed as one agreement. Raises: Invalid.

    A meter has one usage window at a time, so no two prices of a plan read the same meter.
    """
    others = sorted({price.currency for price in prices} - {currency})
    if others:
        detail = f"it is priced in {others[0]} and the customer pays in {currency}"
        raise errors.bad_plan(detail, field=field)
    meters = [price.meter_key for price in prices if price.meter_key is not None]
    if len(set(meters)) < len(meters):
        raise errors.bad_plan("two of its prices read the same meter; keep one", field=field)


def fallback_prices(plans: Mapping[str, Plan], key: str, *, currency: str) -> tuple[Price, ...]:
    """Return what the plan to which a trial falls back asks. Raises: NotFound, Invalid."""
    plan = plans.get(key)
    if plan is None:
        raise errors.unknown_plan(key, field="fallback_plan")
    if plan.add_on:
        raise errors.only_beside_a_plan(key, field="fallback_plan")
    prices = plan.in_currency(currency)
    check_prices(prices, currency=currency, field="fallback_plan")
    return prices


def quantity_of(price: Price, seats: int) -> Decimal:
    """Return how many of a price an item stands for: the seats where they matter, else one."""
    return Decimal(seats) if limits.is_per_seat(price) else _ONE


def intervals_of(prices: Sequence[Price]) -> list[Interval]:
    """Return the intervals that need stored periods, in a fixed order."""
    return sorted({p.interval for p in prices if not p.once}, key=list(Interval).index)


def first_period(subscription: Subscription, interval: Interval) -> StoredPeriod:
    """Return the period of an interval that is the first to be paid."""
    calendar = Calendar(subscription.anchor_at, subscription.time_zone, interval)
    number = calendar.number_at(subscription.begins_at)
    period = calendar.period(number)
    return StoredPeriod(
        subscription.customer_id,
        subscription.subscription_id,
        interval,
        number,
        period.start,
        period.end,
    )


def boundaries_after(
    calendar: Calendar, number: int, *, until: datetime, cancel_at: datetime | None
) -> Iterator[tuple[int, datetime, datetime]]:
    """Yield (number, start, end) of the periods after `number` that begin by `until`.

    A period that would begin at or after the agreed end never begins.
    """
    start = calendar.boundary(number + 1)
    while start <= until and (cancel_at is None or start < cancel_at):
        number += 1
        end = calendar.boundary(number + 1)
        yield number, start, end
        start = end


def views(
    subscriptions: Iterable[Subscription],
    items: Iterable[Item],
    periods: Iterable[StoredPeriod],
    delays: Mapping[UUID, str],
) -> list[BillingView]:
    """Put rows, each list in the order of customer and subscription, together by customer."""
    items_of = {key: tuple(rows) for key, rows in groupby(items, _SUBSCRIPTION)}
    periods_of = {
        key: {interval: tuple(some) for interval, some in groupby(rows, _INTERVAL)}
        for key, rows in groupby(periods, _SUBSCRIPTION)
    }
    agreements = (
        Agreement(one, items_of.get(key, ()), periods_of.get(key, {}))
        for one in subscriptions
        for key in (one.subscription_id,)
    )
    return [
        BillingView(customer_id, tuple(rows), delays.get(customer_id))
        for customer_id, rows in groupby(agreements, attrgetter("subscription.customer_id"))
    ]


def move(subscription: Subscription, target: Status) -> Subscription:
    """Return the subscription in another status. Raises: Conflict when the table has no such step.

    Ending has its own verb, because it also ends the items.
    """
    if target == Status.CANCELED or target not in TRANSITIONS[subscription.status]:
        raise errors.cannot_become(subscription.status, target)
    return replace(subscription, status=target)


def end(subscription: Subscription, at: datetime) -> Subscription:
    """Return the subscription as canceled at an instant. Raises: Conflict when it is already."""
    if Status.CANCELED not in TRANSITIONS[subscription.status]:
        raise errors.cannot_become(subscription.status, Status.CANCELED)
    require(at >= subscription.started_at, "a subscription does not end before it starts")
    return replace(subscription, status=Status.CANCELED, cancel_at=None, canceled_at=at)


def schedule_end(subscription: Subscription, at: datetime) -> Subscription:
    """Return the subscription with an end to come. Raises: Conflict when one is on record."""
    if subscription.cancel_at is not None:
        raise errors.already_ending(subscription.cancel_at)
    return replace(subscription, cancel_at=at)


def new_subscription(
    customer_id: UUID, subscription_id: UUID, plan_key: str, *, start: datetime, now: datetime,
    time_zone: str, currency: str, trial: Trial | None, anchor: datetime | None = None,
) -> Subscription:  # fmt: skip
    """Return a subscription anchored at its start, at the end of its trial, or as the calendar."""
    own = start + timedelta(days=trial.days) if trial else start
    return Subscription(
        customer_id=customer_id,
        subscription_id=subscription_id,
        plan_key=plan_key,
        status=Status.TRIALING if trial else Status.ACTIVE,
        currency=currency,
        time_zone=time_zone,
        anchor_at=own if anchor is None else anchor,
        started_at=start,
        cancel_at=None,
        canceled_at=None,
        created_at=now,
        trial_policy=trial.policy if trial else None,
        fallback_plan_key=trial.fallback_plan_key if trial else None,
        by_calendar=anchor is not None,
    )


def share_boundaries(intervals: Sequence[Interval]) -> bool:
    """Say whether periods of these intervals, shortest first, ever begin together.

    Weeks beside longer ones do not.
    """
    return Interval.WEEK not in intervals[:-1]


def calendar_anchor(start: datetime, time_zone: str, prices: Sequence[Price]) -> datetime:
    """Return where the calendar's own periods around a start begin, for all of these intervals.

    Raises: Invalid for weeks beside months, which have no boundary in common.
    """
    intervals = intervals_of(prices)
    longest = intervals[-1] if intervals else Interval.MONTH
    if not share_boundaries(intervals):
        raise errors.no_common_anchor()
    return turn_before(start, time_zone, longest)


def common_boundary(live: Subscription, prices: Sequence[Price], since: datetime) -> datetime:
    """Return the first instant on or after `since` at which a period of each price begins.

    Raises: Invalid for weeks beside longer intervals, which have no boundary in common.
    """
    intervals = intervals_of(prices)
    longest = intervals[-1] if intervals else Interval.MONTH
    if not share_boundaries(intervals):
        raise errors.no_common_boundary()
    if since <= live.anchor_at:
        return live.anchor_at
    calendar = Calendar(live.anchor_at, live.time_zone, longest)
    number = calendar.number_at(since)
    start = calendar.boundary(number)
    return start if start == since else calendar.boundary(number + 1)


def check_trial(trial: Trial) -> None:
    """Refuse a trial that has no end or no sequel. Raises: Invalid."""
    if not 1 <= trial.days <= TRIAL_DAYS_MAX:
        raise errors.bad_trial(f"write a trial of 1 to {TRIAL_DAYS_MAX} days")
    if (trial.policy == TrialPolicy.FALL_BACK) != (trial.fallback_plan_key is not None):
        raise errors.bad_trial("name the plan to fall back to with fall_back, and only then")


def check_changeable(subscription: Subscription) -> None:
    """Refuse a change of what is paused, unpaid or ending. Raises: Conflict."""
    if subscription.status not in _CHANGEABLE:
        raise errors.not_changeable(subscription.status)
    if subscription.cancel_at is not None:
        raise errors.already_ending(subscription.cancel_at)


def seats_of(items: Iterable[Item], prices: Mapping[UUID, Price]) -> int:
    """Return the seats of these items: one where no price is per seat."""
    seats = (i.quantity for i in items if limits.is_per_seat(prices[i.price_id]))
    return int(next(seats, _ONE))


def fee_of_a_year(prices: Iterable[Price], seats: int) -> int:
    """Return what a plan asks of a year without usage, in minor units: fees and minimums."""
    return sum(
        rate(
            price.charge,
            quantity_of(price, seats) if price.meter_key is None else _ZERO,
            currency=price.currency,
        ).total.minor
        * _A_YEAR[price.interval]
        for price in prices
        if not price.once
    )


def is_free(prices: Iterable[Price], seats: int) -> bool:
    """Say whether a plan can never cost anything, however much its hard quotas let through."""
    return not any(
        rate(price.charge, _most(price, seats), currency=price.currency).total.minor
        for price in prices
    )


def _most(price: Price, seats: int) -> Decimal:
    if price.meter_key is None:
        return quantity_of(price, seats)
    if price.quota is None or not price.quota.hard:
        return _MUCH
    return limits.quota(limits.Line(price, Decimal(seats), EARLIEST_START))


def when_of(
    asked: When | None, old: Sequence[Price], new: Sequence[Price], *, seats: tuple[int, int]
) -> When:
    """Return when a change takes effect: as asked; else what costs more now, what costs less later.

    Seats, where nothing else changes, go up now and down at the period's end (RULES 10).
    """
    if asked is not None:
        return asked
    rises = fee_of_a_year(new, seats[1]) > fee_of_a_year(old, seats[0])
    return When.NOW if rises or is_free(old, seats[0]) else When.PERIOD_END


def opens_a_period(old: Sequence[Price], new: Sequence[Price], *, seats: tuple[int, int]) -> bool:
    """Say whether a change begins new periods: Free to paid (RULES 10), or another fee interval."""
    if is_free(old, seats[0]):
        return not is_free(new, seats[1])
    before, after = (
        {p.interval for p in some if p.meter_key is None and not p.once} for some in (old, new)
    )
    return bool(before and after and before != after)


def swapped(
    items: Sequence[Item], prices: Sequence[Price], seats: int
) -> tuple[list[UUID], list[Price]]:
    """Return the items that a change ends and the prices that it begins; the rest goes on.

    So changing seats, or adding a price, splits no other item's usage (RULES 3).
    """
    wanted = {price.price_id: quantity_of(price, seats) for price in prices}
    kept = {i.price_id for i in items if wanted.get(i.price_id) == i.quantity}
    ending = [item.item_id for item in items if item.price_id not in kept]
    return ending, [price for price in prices if price.price_id not in kept]


def fits_day(count: int) -> None:
    """Refuse one change too many of a day. Raises: LimitExceeded."""
    if count >= CHANGES_A_DAY_MAX:
        raise errors.too_many_changes(CHANGES_A_DAY_MAX)


def reactivate(subscription: Subscription) -> Subscription:
    """Return the subscription without the end that was to come. Raises: Conflict for none."""
    if subscription.cancel_at is None:
        raise errors.not_ending()
    return replace(subscription, cancel_at=None)


def paused_items(items: Iterable[Item]) -> list[Item]:
    """Return the items that the last pause ended, to begin them again."""
    paused = [item for item in items if item.end_reason == PAUSED]
    last = max((item.active_until for item in paused if item.active_until), default=None)
    return [item for item in paused if item.active_until == last]


def never_began(items: Iterable[Item]) -> bool:
    """Say whether these items ended before a moment of them was paid for, as after a trial."""
    return all(item.active_from == item.active_until for item in items)


def on_plan(subscription: Subscription, plan_key: str) -> Subscription:
    """Return the subscription under the name of another plan."""
    return replace(subscription, plan_key=plan_key)


def pending(change: Change, *, effective_at: datetime) -> Change:
    """Return the change as one that waits for its instant."""
    return replace(change, effective_at=effective_at, state=ChangeState.PENDING)


def seats_for(prices: Sequence[Price], had: int, wanted: int | None) -> int:
    """Return the seats on new prices: as asked, else as before; one where none is per seat."""
    if wanted is not None:
        return wanted
    return had if any(limits.is_per_seat(price) for price in prices) else 1


def next_boundary(
    live: Subscription, periods: Iterable[StoredPeriod], *, now: datetime
) -> datetime | None:
    """Return when something ends next: a period that runs now, a trial, or the subscription."""
    ends = [
        period.end_at
        for period in periods
        if period.subscription_id == live.subscription_id and period.end_at > now
    ]
    if live.anchor_at > now:
        ends = [live.anchor_at]
    if live.cancel_at is not None:
        ends.append(live.cancel_at)
    return min(ends, default=None)


def matters(item: Item, price: Price, *, since: datetime, now: datetime) -> bool:
    """Say whether anything is billed of an item when a period ends that began at `since`."""
    if price.once:
        return False
    begins = now if price.meter_key is None else min(since, now)
    return item.active_until is None or item.active_until > begins


def trial_ends(subscription: Subscription, until: datetime) -> bool:
    """Say whether a trial's end is reached and not carried out."""
    return subscription.status == Status.TRIALING and subscription.anchor_at <= until


def is_due(subscription: Subscription, changes: Sequence[Change], until: datetime) -> bool:
    """Say whether anything of a subscription is to be carried out by `until`."""
    ends = subscription.cancel_at is not None and subscription.cancel_at <= until
    return ends or bool(changes) or trial_ends(subscription, until)


def closable(agreement: Agreement, *, until: datetime) -> datetime | None:
    """Return the instant before which every period that begins can be closed once it is billed.

    That is where the last begun periods start, the earliest of the intervals; of a subscription
    that was canceled by `until` where they end, unless something is asked once between the two.
    What is owed at a later end is not billed by a run that reaches only to `until`. None where
    nothing has begun, or nothing would be closed.
    """
    lasts = [periods[-1] for periods in agreement.periods.values() if periods]
    if not lasts or len(lasts) < len(agreement.periods):
        return None
    ended = agreement.subscription.canceled_at
    if ended is not None and ended <= until:
        to_come = (one.active_from for one in agreement.items if one.active_from > until)
        return min((max(period.end_at for period in lasts), *to_come))
    return min(period.start_at for period in lasts)


def with_marks(
    views: Iterable[BillingView], marks: Iterable[Mark], floors: Mapping[UUID, datetime]
) -> list[BillingView]:
    """Return the views with their floors and with the marks to close them at."""
    of: dict[UUID, list[Mark]] = {}
    for mark in marks:
        of.setdefault(mark.customer_id, []).append(mark)
    return [
        replace(
            view,
            floors={
                key: floors[key]
                for one in view.agreements
                for key in (one.subscription.subscription_id,)
                if key in floors
            },
            marks=tuple(of.get(view.customer_id, ())),
        )
        for view in views
    ]
