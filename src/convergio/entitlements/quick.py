"""The short way of authorize: two round trips for asks that nothing stands against.

Nearly all asks are of customers with access, without a spend cap and with room in their window.
The first round trip asks all that and holds the quantities at once; the second one stores the
reservations and commits. Where anything stands against anybody, all of it is undone, and whoever
it is goes the careful way (`actions.py`), which knows why and what to answer.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

from convergio.entitlements import rules, store
from convergio.entitlements.errors import HasRepeats
from convergio.infra.db import AlreadyThere, Database
from convergio.kernel.quantity import quantity_text
from convergio.metering import actions as metering
from convergio.metering.errors import WindowsChanged
from convergio.metering.intake import Window
from convergio.subscriptions import actions as subscriptions

_order: Final = attrgetter("key")


class Wish(NamedTuple):
    """What is asked of a window that shares its allowance with no other."""

    window: Window
    quantity: Decimal
    reservation_id: UUID


class _Barred(Exception):
    """Something stands against these customers; the transaction is given up."""

    def __init__(self, customer_ids: set[UUID]) -> None:
        super().__init__()
        self.customer_ids = customer_ids


def take(
    database: Database, wishes: Sequence[Wish], *, now: datetime, expires_at: datetime
) -> set[UUID]:
    """Reserve all that is wished for, or nothing; return the customers who kept it from happening.

    Locks: spend caps, then windows in the order of their key. Raises: WindowsChanged where two
    wishes have two copies of a window, HasRepeats where an id was used before, Unavailable.
    """
    asked: dict[Window, list[Decimal]] = {}
    for window, quantity, _ in wishes:
        asked.setdefault(window, []).append(quantity)
    windows = sorted(asked, key=_order)
    if any(one.key == two.key for one, two in pairwise(windows)):
        raise WindowsChanged(window.customer for window in windows)
    customers = {window.customer.text: window.customer.customer_id for window in windows}
    ids = b"{" + b",".join(customers) + b"}"
    made = sorted(_columns(wishes, now=now, expires_at=expires_at))
    try:
        with database.pipelined() as tx:
            status, capped, *held = tx.together(
                subscriptions.ask_live_status(ids),
                store.lock_capped(ids),
                *metering.holding([(window, asked[window]) for window in windows]),
            )
            places = metering.held(held)
            full = {window.customer.text for window in windows if window.place not in places}
            _check(
                id_
                for text, id_ in customers.items()
                if text in full or text in capped or _refuses(status.get(text))
            )
            tx.together(*store.insert_reservations(made), commit=True)
    except _Barred as found:
        return found.customer_ids
    except AlreadyThere:
        raise HasRepeats from None
    return set()


def _check(barred: Iterable[UUID]) -> None:
    found = set(barred)
    if found:
        raise _Barred(found)


def _refuses(status: str | None) -> bool:
    return rules.refusal(rules.access(status)) is not None


def _columns(
    wishes: Sequence[Wish], *, now: datetime, expires_at: datetime
) -> list[tuple[bytes, ...]]:
    """Return the reservations as rows, in the server's text."""
    times = (now.isoformat().encode(), expires_at.isoformat().encode())
    return [
        (
            window.customer.text,
            reservation_id.hex.encode(),
            window.place[1],
            window.place[2],
            quantity_text(quantity).encode(),
            *times,
        )
        for window, quantity, reservation_id in wishes
    ]
