"""Move those who have an older version of a price to a newer one, at a boundary of theirs.

Applying a catalog moves nobody. This does, one customer after another: each gets a change that
waits for the first period that begins on or after a day, so nothing is prorated. Who cannot be
moved (another change or an end is to come, they are paused, the version is an add-on's or not for
them) keeps what they have, and is named. An agreed price is no version of the catalog's: who has
one is passed over.
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
from convergio.subscriptions import changes, errors, parts, rules, steps, store
from convergio.subscriptions.model import ChangeState, Status, Subscription

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
    can_pay: steps.CanPay | None = None,
    progress: Progress | None = None,
) -> Moved:
    """Let every subscription with an older version of a price change to this one.

    Opens a transaction a page of customers; run again, it finds those that are left. `can_pay`
    decides a trial that is over; who leaves it out leaves those customers. Locks: each
    subscription. Raises: NotFound for the version; Invalid for one that no plan sells; Unavailable
    when another writer stays in the way, and what is committed stays.
    """
    with database.transaction() as tx:
        wanted, older = _versions(tx, price_key, version)
    done, after = Moved(), _FIRST

    def move(tx: Tx) -> tuple[list[UUID], Moved]:
        page, some = store.page_pinning(tx, list(older), after=after, limit=_PAGE), Moved()
        for customer_id in page:
            try:
                with tx.savepoint():
                    live = changes.up_to_date(tx, customer_id, now=now, can_pay=can_pay)
                    some.changing += _one(tx, live, wanted, older, since=max(since, now), now=now)
            except Rejected as error:
                some.left[customer_id] = error.detail
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
    shown = catalog.current(tx)
    found = [one for one in shown.prices_by_id.values() if one.key == price_key]
    wanted = next((one for one in found if one.version == version), None)
    if wanted is None:
        raise errors.unknown_version(price_key, version)
    if all(wanted not in plan.prices for plan in shown.plans.values()):
        raise errors.version_not_sold(price_key, version)
    return wanted, {one.price_id for one in found if one.version < version}


def _one(
    tx: Tx, live: Subscription, wanted: Price, older: set[UUID], *, since: datetime, now: datetime
) -> bool:
    """Let a change to the version wait; say whether there was one to wait for.

    What was due may have taken the older version away, or dropped a change to it. Raises: Rejected
    where it cannot be changed.
    """
    items = steps.items_of(tx, live)
    current = parts.of_plan(items)
    held = rules.paused_items(items) if live.status == Status.PAUSED else current
    waits = bool(changes.pending(tx, live) or changes.ramp(tx, live))
    beside = any(item.price_id in older for item in parts.beside(items))
    if not (waits or beside or any(item.price_id in older for item in held)):
        return False
    rules.check_changeable(live)
    if beside:
        raise errors.price_of_add_on()
    if waits:
        raise errors.change_waits()
    book = steps.prices_of(tx, current) | {wanted.price_id: wanted}
    new = [wanted.price_id if item.price_id in older else item.price_id for item in current]
    rules.check_prices([book[one] for one in new], currency=live.currency, field="price")
    was = [book[item.price_id] for item in current if item.price_id in older]
    at = rules.common_boundary(live, [*was, wanted], since)
    change = steps.change_to(
        live, live.plan_key, new, rules.seats_of(current, book), effective_at=at, now=now,
        state=ChangeState.PENDING,
    )  # fmt: skip
    store.insert_change(tx, change)
    return True
