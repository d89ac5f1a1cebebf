"""Asks that come again under their own id: one id is one reservation, and one answer."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from convergio.entitlements import store
from convergio.entitlements.errors import ask_is_over, other_ask
from convergio.entitlements.model import Allowed, Ask, Decision, Refused
from convergio.infra.db import Tx
from convergio.metering.intake import Window


def without_repeats(asks: Sequence[Ask]) -> tuple[list[Decision | None], dict[int, int]]:
    """Return the asks that are in the batch twice as (later, first), and refuse what differs."""
    decided: list[Decision | None] = [None] * len(asks)
    repeats: dict[int, int] = {}
    seen: dict[tuple[str, UUID], int] = {}
    for at, ask in enumerate(asks):
        if ask.reservation_id is None:
            continue
        first = seen.setdefault((ask.customer_key, ask.reservation_id), at)
        if first != at:
            repeats[at] = first
            if ask != asks[first]:
                decided[at] = Refused(other_ask())
    return decided, repeats


def answered(
    tx: Tx,
    asks: Sequence[Ask],
    windows: Sequence[Window | None],
    decisions: list[Decision],
    *,
    now: datetime,
) -> set[int]:
    """Give those whose reservation is there already its answer; return which asks they are.

    One that holds nothing any more, and was not used, is no yes: a new id asks anew.
    """
    chosen = [
        (at, (window.customer.customer_id, ask.reservation_id), window.meter_id)
        for at, (ask, window) in enumerate(zip(asks, windows, strict=True))
        if window is not None
        and ask.reservation_id is not None
        and not isinstance(decisions[at], Allowed)
    ]
    known = store.find_reservations(tx, [key for _, key, _ in chosen]) if chosen else {}
    found = set()
    for at, key, meter_id in chosen:
        stored = known.get(key)
        if stored is not None:
            is_same = (stored.meter_id, stored.quantity) == (meter_id, asks[at].quantity)
            if not is_same:
                decisions[at] = Refused(other_ask())
            elif stored.state == "committed" or stored.holds_at(now):
                decisions[at] = Allowed(
                    stored.customer_id, stored.reservation_id, stored.expires_at
                )
            else:
                decisions[at] = Refused(ask_is_over())
            found.add(at)
    return found
