"""A page of customers for the billing run, read in few queries and put together once.

It says what `renew` and the small reads beside it say, for customers of whom nothing else is due:
whose trial, change or end is reached is told apart, renewed one by one and gathered again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from convergio.infra.db import Tx
from convergio.kernel.periods import Calendar, Interval
from convergio.metering import actions as metering
from convergio.subscriptions import rules, store
from convergio.subscriptions.model import (
    Agreement,
    BillingView,
    Mark,
    Status,
    StoredPeriod,
    Subscription,
)

_SUBSCRIPTION: Final = attrgetter("subscription_id")
_INTERVAL: Final = attrgetter("interval")
Periods = Mapping[Interval, tuple[StoredPeriod, ...]]


@dataclass(slots=True)
class Gathered:
    """Subscriptions in order, what is stored beyond their marks, and who has something due."""

    subscriptions: list[Subscription]
    periods: dict[UUID, list[StoredPeriod]]
    closed: dict[UUID, Mark]
    due: list[UUID] = field(default_factory=list)

    def renewed(self, others: "Gathered") -> None:
        """Take over customers who were renewed and gathered again."""
        again = {one.customer_id for one in others.subscriptions}
        kept = [one for one in self.subscriptions if one.customer_id not in again]
        self.subscriptions = sorted([*kept, *others.subscriptions], key=_in_order)
        self.periods |= others.periods
        self.closed = {
            key: mark for key, mark in self.closed.items() if mark.customer_id not in again
        } | others.closed


def _in_order(one: Subscription) -> tuple[UUID, UUID]:
    return one.customer_id, one.subscription_id


def gather(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> Gathered:
    """Lock subscriptions, read their periods from the mark on and store those that begin now.

    Locks: the customers' subscriptions.
    """
    locked = store.lock_closed(tx, customer_ids)
    stored = store.list_unclosed(tx, customer_ids)
    periods = {key: list(rows) for key, rows in groupby(stored, _SUBSCRIPTION)}
    pending = {one.subscription_id for one in store.list_pending(tx, customer_ids, until=until)}
    found = Gathered([one for one, _ in locked], periods, {})
    calendar = lru_cache(Calendar)
    opened: list[StoredPeriod] = []
    for one, mark in locked:
        if mark is not None:
            found.closed[one.subscription_id] = mark
        if one.subscription_id in pending or rules.is_due(one, (), until):
            found.due.append(one.customer_id)
        if one.status != Status.CANCELED:
            known = periods.get(one.subscription_id, [])
            begun = _begun(one, known, calendar, until=until)
            if begun:
                opened += begun
                known += begun
                known.sort(key=_INTERVAL)
    if opened:
        store.copy_periods(tx, opened)
    return found


def _begun(
    one: Subscription,
    known: Sequence[StoredPeriod],
    calendar: Callable[[datetime, str, Interval], Calendar],
    *,
    until: datetime,
) -> list[StoredPeriod]:
    """Return the periods that follow the last stored one of each interval, up to an instant."""
    lasts = {period.interval: period for period in known}
    return [
        StoredPeriod(one.customer_id, one.subscription_id, interval, number, start, end)
        for interval, last in lasts.items()
        if last.end_at <= until
        for number, start, end in rules.boundaries_after(
            calendar(one.anchor_at, one.time_zone, interval),
            last.number,
            until=until,
            cancel_at=one.cancel_at,
        )
    ]


def views(
    tx: Tx,
    customer_ids: Sequence[UUID],
    found: Gathered,
    delays: Mapping[UUID, str],
    *,
    until: datetime,
) -> list[BillingView]:
    """Return what billing needs of these customers, with where they can be closed next.

    A trial whose end has to wait owes nothing: nobody knows yet whether it will be paid for. The
    marks are read before the usage is: what comes in between makes the next run look again.
    """
    items = {
        key: tuple(rows) for key, rows in groupby(store.list_items(tx, customer_ids), _SUBSCRIPTION)
    }
    agreements = [
        Agreement(
            one,
            items.get(one.subscription_id, ()),
            _of_billing(
                () if rules.trial_ends(one, until) else found.periods.get(one.subscription_id, ()),
                found.closed.get(one.subscription_id),
                until,
            ),
        )
        for one in found.subscriptions
    ]
    agreements, floors, marks = _marked(tx, agreements, found.closed, until=until)
    return [
        _view(customer_id, tuple(some), delays.get(customer_id), floors, marks)
        for customer_id, some in groupby(agreements, attrgetter("subscription.customer_id"))
    ]


def _of_billing(periods: Sequence[StoredPeriod], mark: Mark | None, until: datetime) -> Periods:
    """Return the periods that have begun and are not closed, by interval."""
    floor = mark.until if mark is not None else None
    return {
        interval: rows
        for interval, some in groupby(periods, _INTERVAL)
        for rows in (
            tuple(
                p for p in some if p.start_at <= until and (floor is None or p.start_at >= floor)
            ),
        )
        if rows
    }


def _marked(
    tx: Tx, agreements: list[Agreement], closed: Mapping[UUID, Mark], *, until: datetime
) -> tuple[list[Agreement], dict[UUID, datetime], dict[UUID, Mark]]:
    """Return the agreements with the floors that hold, and the marks to close them at next.

    Where usage before a floor has changed since it was noted, every period is looked at again.
    """
    asked = []
    for one in agreements:
        known = closed.get(one.subscription.subscription_id)
        floor = known.until if known is not None else None
        asked.append((one.subscription.customer_id, floor, rules.closable(one, until=until)))
    sums = metering.usage_marks_at(tx, asked)
    floors: dict[UUID, datetime] = {}
    marks: dict[UUID, Mark] = {}
    again: list[int] = []
    for place, (one, (customer_id, floor, closable), (before, now)) in enumerate(
        zip(agreements, asked, sums, strict=True)
    ):
        key = one.subscription.subscription_id
        if floor is not None:
            if before != closed[key].mark:
                again.append(place)
                continue
            floors[key] = floor
        if closable is not None and closable != floor:
            marks[key] = Mark(customer_id, key, closable, now)
    if again:
        _reopen(tx, agreements, again, marks, until=until)
    return agreements, floors, marks


def _reopen(
    tx: Tx,
    agreements: list[Agreement],
    places: Sequence[int],
    marks: dict[UUID, Mark],
    *,
    until: datetime,
) -> None:
    """Give the agreements at these places all their periods, and marks for all of them."""
    customer_ids = sorted({agreements[place].subscription.customer_id for place in places})
    stored = store.list_periods(tx, customer_ids, until=until)
    periods = {key: list(rows) for key, rows in groupby(stored, _SUBSCRIPTION)}
    asked = []
    for place in places:
        one = agreements[place].subscription
        rows = () if rules.trial_ends(one, until) else periods.get(one.subscription_id, ())
        agreements[place] = Agreement(one, agreements[place].items, _of_billing(rows, None, until))
        asked.append((one.customer_id, None, rules.closable(agreements[place], until=until)))
    for place, (customer_id, _, closable), (_, now) in zip(
        places, asked, metering.usage_marks_at(tx, asked), strict=True
    ):
        key = agreements[place].subscription.subscription_id
        if closable is not None:
            marks[key] = Mark(customer_id, key, closable, now)


def _view(
    customer_id: UUID,
    agreements: tuple[Agreement, ...],
    delay: str | None,
    floors: Mapping[UUID, datetime],
    marks: Mapping[UUID, Mark],
) -> BillingView:
    keys = [one.subscription.subscription_id for one in agreements]
    return BillingView(
        customer_id,
        agreements,
        delay,
        {key: floors[key] for key in keys if key in floors},
        tuple([marks[key] for key in keys if key in marks]),
    )
