"""Move those who have an older version of a price to a newer one, at a boundary of theirs.

Applying a catalog moves nobody. This does, one customer after another: each gets a change that
waits for the first period that begins on or after a day, so nothing is prorated. Who has a price
of their own, another change to come or an end keeps what they have, and is named.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Rejected
from convergio.kernel.periods import Calendar
from convergio.subscriptions import changes, errors, parts, rules, steps, store
from convergio.subscriptions.model import ChangeState, Item, Subscription

Progress = Callable[[int], None]
_PAGE: Final = 200
_FIRST: Final = UUID(int=0)


@dataclass(slots=True)
class Moved:
    """How many will change, and who will not and why."""

    changing: int = 0
    left: dict[UUID, str] = field(default_factory=dict)


def migrate(
    database: Database,
    *,
    price_key: str,
    version: int,
    since: datetime,
    now: datetime,
    progress: Progress | None = None,
) -> Moved:
    """Let every subscription with an older version of a price change to this one.

    Opens a transaction a page of customers; run again, it finds those that are left. Locks: each
    subscription. Raises: NotFound for the version; Invalid for one that no plan sells; Unavailable
    when another writer stays in the way, and what is committed stays.
    """
    with database.transaction() as tx:
        wanted, older = _versions(tx, price_key, version)
    done, after = Moved(), _FIRST

    def move(tx: Tx) -> tuple[list[UUID], Moved]:
        page, some = store.page_pinning(tx, list(older), after=after, limit=_PAGE), Moved()
        for customer_id in page:
            _one(tx, customer_id, wanted, older, since=since, now=now, done=some)
        return page, some

    while True:
        page, some = database.insist(move)
        done.changing += some.changing
        done.left |= some.left
        if progress is not None:
            progress(len(page))
        if len(page) < _PAGE:
            return done
        after = page[-1]


def _versions(tx: Tx, price_key: str, version: int) -> tuple[Price, set[UUID]]:
    """Return the version to go to, and the ids of those that were sold before it."""
    found = [one for one in catalog.current(tx).prices_by_id.values() if one.key == price_key]
    wanted = next((one for one in found if one.version == version), None)
    if wanted is None:
        raise errors.unknown_version(price_key, version)
    return wanted, {one.price_id for one in found if one.version < version}


def _one(
    tx: Tx,
    customer_id: UUID,
    wanted: Price,
    older: set[UUID],
    *,
    since: datetime,
    now: datetime,
    done: Moved,
) -> None:
    try:
        with tx.savepoint():
            live = changes.up_to_date(tx, customer_id, now=now)
            current = parts.of_plan(steps.items_of(tx, live))
            waits = changes.pending(tx, live) or changes.ramp(tx, live)
            if not waits and not any(item.price_id in older for item in current):
                return  # what was due took the older version away, or a change to it was dropped
            rules.check_changeable(live)
            if waits:
                raise errors.change_waits()
            _schedule(tx, live, current, wanted, older, since=max(since, now), now=now)
        done.changing += 1
    except Rejected as error:
        done.left[customer_id] = error.detail


def _schedule(
    tx: Tx,
    live: Subscription,
    current: list[Item],
    wanted: Price,
    older: set[UUID],
    *,
    since: datetime,
    now: datetime,
) -> None:
    book = steps.prices_of(tx, current)
    target = steps.change_to(
        live, live.plan_key, [_new(item, wanted, older) for item in current],
        rules.seats_of(current, book), effective_at=_boundary(live, wanted, since), now=now,
        state=ChangeState.PENDING,
    )  # fmt: skip
    store.insert_change(tx, target)


def _new(item: Item, wanted: Price, older: set[UUID]) -> UUID:
    return wanted.price_id if item.price_id in older else item.price_id


def _boundary(live: Subscription, price: Price, since: datetime) -> datetime:
    """Return the first beginning of a period of the price on or after an instant."""
    calendar = Calendar(live.anchor_at, live.time_zone, price.interval)
    if since <= live.anchor_at:
        return live.anchor_at
    number = calendar.number_at(since)
    start = calendar.boundary(number)
    return start if start == since else calendar.boundary(number + 1)
