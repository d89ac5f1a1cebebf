"""The queries of subscriptions: one function each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.infra.pipe import Question
from convergio.kernel.periods import Interval
from convergio.subscriptions.model import (
    Change,
    ChangeState,
    Item,
    Mark,
    Status,
    StoredPeriod,
    Subscription,
    TrialPolicy,
)

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Frontier:
    """The last stored period of one interval of one subscription."""

    customer_id: UUID
    subscription_id: UUID
    anchor_at: datetime
    time_zone: str
    cancel_at: datetime | None
    interval: Interval
    number: int
    end_at: datetime


@dataclass(frozen=True, slots=True)
class UnendedRow:
    """An item that outlives its subscription."""

    customer_id: UUID
    subscription_id: UUID
    item_id: UUID


def insert_subscriptions(tx: Tx, subscriptions: Sequence[Subscription]) -> set[UUID]:
    """Insert subscriptions to one plan from one start; return the customers whose went in."""
    like = subscriptions[0]
    rows = tx.tuples(
        QUERIES["insert_subscriptions"],
        customer_ids=[one.customer_id for one in subscriptions],
        subscription_ids=[one.subscription_id for one in subscriptions],
        currencies=[one.currency for one in subscriptions],
        plan_key=like.plan_key,
        status=like.status,
        time_zone=like.time_zone,
        anchor_at=like.anchor_at,
        started_at=like.started_at,
        created_at=like.created_at,
        trial_policy=like.trial_policy,
        fallback_plan_key=like.fallback_plan_key,
        by_calendar=like.by_calendar,
    )
    return {row[0] for row in rows}


def copy_items(tx: Tx, items: Iterable[Item]) -> None:
    """Load items in bulk."""
    tx.copy(
        QUERIES["copy_items"],
        (
            (i.customer_id, i.subscription_id, i.item_id, i.price_id, i.quantity, i.active_from,
             i.active_until, i.add_on_key)
            for i in items
        ),
    )  # fmt: skip


def copy_periods(tx: Tx, periods: Iterable[StoredPeriod]) -> None:
    """Load periods in bulk."""
    tx.copy(
        QUERIES["copy_periods"],
        (
            (p.customer_id, p.subscription_id, p.interval, p.number, p.start_at, p.end_at)
            for p in periods
        ),
        types=_PERIOD,
    )


def ask_live_status(customer_ids: bytes) -> Question[dict[bytes | None, str]]:
    """Ask for the status of each live subscription, by customer id in the server's text."""
    return Question(
        sql.prepared(QUERIES["ask_live_status"])[0],
        (customer_ids,),
        lambda rows: {row[0]: row[1].decode() for row in rows if row[1] is not None},
    )


def list_live_status(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Status]:
    """Return the status of each live subscription by customer."""
    rows = tx.tuples(QUERIES["list_live_status"], customer_ids=list(customer_ids))
    return {customer_id: Status(status) for customer_id, status in rows}


def list_subscriptions(tx: Tx, customer_ids: Sequence[UUID]) -> list[Subscription]:
    """Return every subscription of these customers, in the order of their ids."""
    return _read(tx.tuples(QUERIES["list_subscriptions"], customer_ids=list(customer_ids)))


def page_subscriptions(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    limit: int,
    customer_id: UUID | None = None,
    plan_key: str | None = None,
    status: Status | None = None,
) -> list[Subscription]:
    """Return the next subscriptions in the order of customer and id."""
    return _read(
        tx.tuples(
            QUERIES["page_subscriptions"],
            after_customer_id=after[0],
            after_subscription_id=after[1],
            limit=limit,
            customer_id=customer_id,
            plan_key=plan_key,
            status=status,
        )
    )


def lock_live(tx: Tx, customer_id: UUID) -> Subscription | None:
    """Lock one customer's live subscription, where there is one."""
    found = _read(tx.tuples(QUERIES["lock_live"], customer_id=customer_id))
    return found[0] if found else None


def lock_subscriptions(tx: Tx, customer_ids: Sequence[UUID]) -> list[Subscription]:
    """Lock every subscription of these customers, in the order of their ids."""
    return _read(tx.tuples(QUERIES["lock_subscriptions"], customer_ids=list(customer_ids)))


def hold_subscriptions(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Lock every subscription of these customers, whatever stands in them, and return none."""
    tx.run(QUERIES["hold_subscriptions"], customer_ids=list(customer_ids))


def lock_closed(tx: Tx, customer_ids: Sequence[UUID]) -> list[tuple[Subscription, Mark | None]]:
    """Lock every subscription of these customers, in order; return up to where each is closed."""
    rows = tx.tuples(QUERIES["lock_closed"], customer_ids=list(customer_ids))
    marks = [Mark(row[0], row[1], row[-2], row[-1]) if row[-2] else None for row in rows]
    return list(zip(_read(rows), marks, strict=True))


def list_unclosed(tx: Tx, customer_ids: Sequence[UUID]) -> list[StoredPeriod]:
    """Return the periods of these customers that end after the mark of their subscription.

    Planned each time, as `list_periods`.
    """
    rows = tx.planned(QUERIES["list_unclosed"], customer_ids=list(customer_ids))
    return [
        StoredPeriod(customer, subscription, _INTERVALS[interval], number, start, end)
        for customer, subscription, interval, number, start, end in rows
    ]


def page_customers(tx: Tx, *, after: UUID | None, limit: int) -> list[UUID]:
    """Return the next customers in order."""
    # The nil UUID sorts before every other, and keeps the query one range of the index.
    rows = tx.tuples(QUERIES["page_customers"], after=after or UUID(int=0), limit=limit)
    return [row[0] for row in rows]


def page_starts(tx: Tx, *, size: int) -> list[UUID]:
    """Return the first customer of each page of so many, but for the first page."""
    return [row[0] for row in tx.tuples(QUERIES["page_starts"], size=size)]


def list_customers_in(tx: Tx, *, first: UUID, until: UUID | None) -> list[UUID]:
    """Return the customers from `first` up to, not with, `until`, in order."""
    return [row[0] for row in tx.tuples(QUERIES["list_customers_in"], first=first, until=until)]


def count_customers(tx: Tx) -> int:
    """Return how many customers there are to go through."""
    return int(tx.value(QUERIES["count_customers"]))


def list_frontiers(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> list[Frontier]:
    """Return where stored periods end at or before `until`."""
    return tx.many(
        QUERIES["list_frontiers"], Frontier, customer_ids=list(customer_ids), until=until
    )


def find_current_end(
    tx: Tx,
    customer_id: UUID,
    subscription_id: UUID,
    intervals: Sequence[Interval],
    *,
    instant: datetime,
) -> datetime | None:
    """Return the latest end of the stored periods of some intervals that hold the instant."""
    found: datetime | None = tx.value(
        QUERIES["find_current_end"],
        customer_id=customer_id,
        subscription_id=subscription_id,
        intervals=[each.value for each in intervals],
        instant=instant,
    )
    return found


def list_items(tx: Tx, customer_ids: Sequence[UUID]) -> list[Item]:
    """Return every item of these customers."""
    rows = tx.tuples(QUERIES["list_items"], customer_ids=list(customer_ids))
    return [Item(*row) for row in rows]


def list_periods(
    tx: Tx,
    customer_ids: Sequence[UUID],
    *,
    until: datetime,
    floors: Mapping[UUID, datetime] | None = None,
) -> list[StoredPeriod]:
    """Return the periods of these customers that have begun by `until`, in order.

    Those that begin before their subscription's floor are left out. Planned each time: a plan for
    any number of customers takes the index of overlaps, and a hundred times as long.
    """
    known = floors or {}
    rows = tx.planned(
        QUERIES["list_periods"],
        customer_ids=list(customer_ids),
        until=until,
        subscription_ids=list(known),
        floors=list(known.values()),
    )
    return [
        StoredPeriod(customer, subscription, _INTERVALS[interval], number, start, end)
        for customer, subscription, interval, number, start, end in rows
    ]


def list_marks(tx: Tx, customer_ids: Sequence[UUID]) -> list[Mark]:
    """Return up to where subscriptions are closed."""
    rows = tx.tuples(QUERIES["list_marks"], customer_ids=list(customer_ids))
    return [Mark(*row) for row in rows]


def save_marks(tx: Tx, marks: Sequence[Mark]) -> None:
    """Note up to where subscriptions are closed."""
    tx.run(
        QUERIES["save_marks"],
        customer_ids=[one.customer_id for one in marks],
        subscription_ids=[one.subscription_id for one in marks],
        untils=[one.until for one in marks],
        marks=[one.mark for one in marks],
    )


def reopen(tx: Tx, customer_id: UUID) -> None:
    """Let the next run look at everything of a customer again."""
    tx.run(QUERIES["reopen"], customer_id=customer_id)


def save_state(tx: Tx, subscription: Subscription) -> None:
    """Store where a subscription stands."""
    tx.run(
        QUERIES["save_state"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        status=subscription.status,
        plan_key=subscription.plan_key,
        cancel_at=subscription.cancel_at,
        canceled_at=subscription.canceled_at,
    )


def end_items(
    tx: Tx,
    subscription: Subscription,
    *,
    ends_at: datetime,
    credited: bool,
    reason: str,
    item_ids: Sequence[UUID] | None = None,
) -> None:
    """End the items that are still active, all or these."""
    tx.run(
        QUERIES["end_items"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        ends_at=ends_at,
        credited=credited,
        reason=reason,
        item_ids=None if item_ids is None else list(item_ids),
    )


def list_pending(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> list[Change]:
    """Return the changes that take effect by an instant, the earliest first."""
    rows = tx.tuples(QUERIES["list_pending"], customer_ids=list(customer_ids), until=until)
    return [_change(row) for row in rows]


def list_changes(tx: Tx, customer_id: UUID, subscription_id: UUID) -> list[Change]:
    """Return the changes of one subscription in the order in which they were made."""
    rows = tx.tuples(
        QUERIES["list_changes"], customer_id=customer_id, subscription_id=subscription_id
    )
    return [_change(row) for row in rows]


def insert_change(tx: Tx, change: Change) -> None:
    """Keep a change."""
    tx.run(
        QUERIES["insert_change"],
        customer_id=change.customer_id,
        subscription_id=change.subscription_id,
        change_id=change.change_id,
        effective_at=change.effective_at,
        plan_key=change.plan_key,
        price_ids=list(change.price_ids),
        seats=change.seats,
        state=change.state,
        made_at=change.made_at,
    )


def settle_pending(tx: Tx, subscription: Subscription, state: ChangeState) -> int:
    """Say what became of the change that waits and of a ramp; return how many there were."""
    return tx.run(
        QUERIES["settle_pending"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        state=state,
    )


def settle_change(tx: Tx, change: Change, state: ChangeState) -> None:
    """Say what became of one change."""
    tx.run(
        QUERIES["settle_change"],
        customer_id=change.customer_id,
        subscription_id=change.subscription_id,
        change_id=change.change_id,
        state=state,
    )


def save_pending_seats(tx: Tx, subscription: Subscription, seats: int) -> None:
    """Let the change that waits end with another number of seats."""
    tx.run(
        QUERIES["save_pending_seats"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        seats=seats,
    )


def count_changes(tx: Tx, customer_id: UUID, *, since: datetime) -> int:
    """Return how many changes took effect at once since an instant."""
    return int(tx.value(QUERIES["count_changes"], customer_id=customer_id, since=since))


def stream_periods(tx: Tx) -> Iterator[tuple[StoredPeriod, datetime, str, datetime]]:
    """Yield every stored period with its subscription's anchor, zone and beginning.

    With flat memory.
    """
    for row in tx.stream("subscription_periods", QUERIES["stream_periods"]):
        yield StoredPeriod(row[0], row[1], _INTERVALS[row[2]], *row[3:6]), row[6], row[7], row[8]


def find_unended(tx: Tx) -> list[UnendedRow]:
    """Return items that go on after their subscription was canceled."""
    return tx.many(QUERIES["find_unended"], UnendedRow)


_PERIOD = ("uuid", "uuid", "text", "int4", "timestamptz", "timestamptz")
_INTERVALS = {interval.value: interval for interval in Interval}


def _read(rows: list[tuple[Any, ...]]) -> list[Subscription]:
    return [
        Subscription(*(*row[:3], Status(row[3]), *row[4:11], *_trial(row), row[13])) for row in rows
    ]


def _trial(row: tuple[Any, ...]) -> tuple[TrialPolicy | None, str | None]:
    return TrialPolicy(row[11]) if row[11] else None, row[12]


def _change(row: tuple[Any, ...]) -> Change:
    return Change(*(*row[:5], tuple(row[5]), row[6], ChangeState(row[7]), row[8]))


def page_pinning(tx: Tx, price_ids: Sequence[UUID], *, after: UUID, limit: int) -> list[UUID]:
    """Return the next customers who have one of these prices, paused too, or a change to one."""
    query = QUERIES["page_pinning"]
    rows = tx.tuples(query, price_ids=list(price_ids), after=after, limit=limit)
    return [row[0] for row in rows]


def list_pinned(tx: Tx) -> list[tuple[UUID, str | None, str]]:
    """Return each pinned price with the add-on that it is of and the subscription's plan."""
    rows = tx.tuples(QUERIES["list_pinned"])
    return [(price_id, add_on_key, plan_key) for price_id, add_on_key, plan_key in rows]
