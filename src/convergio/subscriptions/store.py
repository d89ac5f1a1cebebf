"""The queries of subscriptions: one function each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.kernel.periods import Interval
from convergio.subscriptions.model import Item, Status, StoredPeriod, Subscription

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


def find_subscribed(tx: Tx, customer_ids: Sequence[UUID]) -> list[UUID]:
    """Return who has a live subscription."""
    rows = tx.tuples(QUERIES["find_subscribed"], customer_ids=list(customer_ids))
    return [row[0] for row in rows]


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
        started_at=like.started_at,
        created_at=like.created_at,
    )
    return {row[0] for row in rows}


def copy_items(tx: Tx, items: Iterable[Item]) -> None:
    """Load items in bulk."""
    tx.copy(
        QUERIES["copy_items"],
        (
            (i.customer_id, i.subscription_id, i.item_id, i.price_id, i.quantity, i.active_from,
             i.active_until)
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
    )


def list_live_status(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Status]:
    """Return the status of each live subscription by customer."""
    rows = tx.tuples(QUERIES["list_live_status"], customer_ids=list(customer_ids))
    return {customer_id: Status(status) for customer_id, status in rows}


def list_subscriptions(tx: Tx, customer_ids: Sequence[UUID]) -> list[Subscription]:
    """Return every subscription of these customers, in the order of their ids."""
    return _read(tx.tuples(QUERIES["list_subscriptions"], customer_ids=list(customer_ids)))


def lock_live(tx: Tx, customer_id: UUID) -> Subscription | None:
    """Lock one customer's live subscription, where there is one."""
    found = _read(tx.tuples(QUERIES["lock_live"], customer_id=customer_id))
    return found[0] if found else None


def lock_subscriptions(tx: Tx, customer_ids: Sequence[UUID]) -> list[Subscription]:
    """Lock every subscription of these customers, in the order of their ids."""
    return _read(tx.tuples(QUERIES["lock_subscriptions"], customer_ids=list(customer_ids)))


def page_customers(tx: Tx, *, after: UUID | None, limit: int) -> list[UUID]:
    """Return the next customers in order."""
    # The nil UUID sorts before every other, and keeps the query one range of the index.
    rows = tx.tuples(QUERIES["page_customers"], after=after or UUID(int=0), limit=limit)
    return [row[0] for row in rows]


def count_customers(tx: Tx) -> int:
    """Return how many customers there are to go through."""
    return int(tx.value(QUERIES["count_customers"]))


def list_frontiers(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> list[Frontier]:
    """Return where stored periods end at or before `until`."""
    return tx.many(
        QUERIES["list_frontiers"], Frontier, customer_ids=list(customer_ids), until=until
    )


def find_current_end(
    tx: Tx, customer_id: UUID, subscription_id: UUID, *, instant: datetime
) -> datetime | None:
    """Return the latest end of the stored periods that hold the instant."""
    found: datetime | None = tx.value(
        QUERIES["find_current_end"],
        customer_id=customer_id,
        subscription_id=subscription_id,
        instant=instant,
    )
    return found


def list_items(tx: Tx, customer_ids: Sequence[UUID]) -> list[Item]:
    """Return every item of these customers."""
    rows = tx.tuples(QUERIES["list_items"], customer_ids=list(customer_ids))
    return [Item(*row) for row in rows]


def list_periods(tx: Tx, customer_ids: Sequence[UUID], *, until: datetime) -> list[StoredPeriod]:
    """Return every period of these customers that has begun by `until`, in order."""
    rows = tx.tuples(QUERIES["list_periods"], customer_ids=list(customer_ids), until=until)
    return [
        StoredPeriod(customer, subscription, _INTERVALS[interval], number, start, end)
        for customer, subscription, interval, number, start, end in rows
    ]


def save_state(tx: Tx, subscription: Subscription) -> None:
    """Store where a subscription stands."""
    tx.run(
        QUERIES["save_state"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        status=subscription.status,
        cancel_at=subscription.cancel_at,
        canceled_at=subscription.canceled_at,
    )


def end_items(tx: Tx, subscription: Subscription, *, ends_at: datetime) -> None:
    """End the items that are still active."""
    tx.run(
        QUERIES["end_items"],
        customer_id=subscription.customer_id,
        subscription_id=subscription.subscription_id,
        ends_at=ends_at,
    )


def stream_periods(tx: Tx) -> Iterator[tuple[StoredPeriod, datetime, str]]:
    """Yield every stored period with its subscription's anchor and zone, with flat memory."""
    for row in tx.stream("subscription_periods", QUERIES["stream_periods"]):
        yield StoredPeriod(row[0], row[1], _INTERVALS[row[2]], *row[3:6]), row[6], row[7]


def find_unended(tx: Tx) -> list[UnendedRow]:
    """Return items that go on after their subscription was canceled."""
    return tx.many(QUERIES["find_unended"], UnendedRow)


_INTERVALS = {interval.value: interval for interval in Interval}


def _read(rows: list[tuple[Any, ...]]) -> list[Subscription]:
    return [Subscription(*(*row[:3], Status(row[3]), *row[4:])) for row in rows]
