"""Asks of meters that have a level, a maximum or a last value: it takes a place, and adds nothing.

So nothing is held of them, and what others ask for meanwhile cannot change the answer: the level
that would follow stays within the limit, or it does not. A spend cap, which other meters share,
counts the highest that is asked for and not settled (`spending.py`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

from convergio.entitlements import rules
from convergio.entitlements.model import Decision, Denied, Reason
from convergio.infra.db import Tx
from convergio.metering import actions as metering
from convergio.metering.errors import WindowsChanged
from convergio.metering.intake import Window
from convergio.metering.rules import MeterPlan

_Asked = Sequence[tuple[Window, Sequence[tuple[int, Decimal]]]]


def parted(asked: _Asked, plan_of: Callable[[int], MeterPlan | None]) -> tuple[_Asked, _Asked]:
    """Return the asks of windows that add up, and those of windows that have a level."""
    parts: tuple[
        list[tuple[Window, Sequence[tuple[int, Decimal]]]],
        list[tuple[Window, Sequence[tuple[int, Decimal]]]],
    ] = ([], [])
    for one in asked:
        parts[rules.is_level(plan_of(one[1][0][0]))].append(one)
    return parts


def decided(
    tx: Tx,
    asked: _Asked,
    decisions: list[Decision],
    plan_of: Callable[[int], MeterPlan | None],
    *,
    now: datetime,
) -> set[int]:
    """Return which asks keep their level within its limit; deny the others.

    Raises: WindowsChanged.
    """
    if not asked:
        return set()
    ids = sorted({window.customer.customer_id for window, _ in asked})
    rows = {
        (row.customer_id, row.meter_id, row.start_at): row
        for row in metering.windows_at(tx, ids, now)
    }
    fits = set()
    for window, places in asked:
        row = rows.get((window.customer.customer_id, window.meter_id, window.starts_at))
        if row is None:
            raise WindowsChanged([window.customer])
        for at, quantity in places:
            if rules.fits_level(row, plan_of(at), quantity):
                fits.add(at)
            else:
                decisions[at] = Denied(Reason.LIMIT_REACHED, resets_at=row.end_at)
    return fits
