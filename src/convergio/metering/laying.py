"""Lay a customer's windows again when the schedule has changed, and count again what moved.

Only windows that the new schedule lays otherwise are touched: a change of one meter's terms leaves
the others' windows, and what is cached of them, alone (RULES 3). What windows share comes last,
when all of them stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Catalog
from convergio.infra.db import Tx
from convergio.kernel.errors import Conflict
from convergio.kernel.periods import Period, instant_text
from convergio.metering import following, intake, rules, store
from convergio.metering.model import Limit, Schedule, WindowRow
from convergio.metering.schedule import terms_at, window_at
from convergio.metering.windows import FOR_EVER, new_window, recount

_ZERO: Final = Decimal(0)
_Place = tuple[int, datetime]  # meter and start


def lay_again(
    tx: Tx,
    customer_id: UUID,
    old: Schedule,
    schedule: Schedule,
    *,
    start: datetime,
    now: datetime,
) -> None:
    """Lay the windows of one customer that end at `start` or later as the new schedule says.

    One that ends there was cut by what this schedule replaces, and may go on again. What moves is
    counted again.

    Locks: the customer's windows. Raises: Conflict for open reservations or archived usage in
    what would move.
    """
    rows = store.find_all_windows(tx, customer_id)
    if not rows:
        return
    catalog = catalog_actions.current(tx)
    keys = {meter.meter_id: meter.key for meter in catalog.meters.values()}
    touched = [
        row
        for row in rows
        if row.meter_id in keys
        and row.start_at < row.end_at
        and row.end_at >= start
        and _moves(row, keys[row.meter_id], old, schedule)
    ]
    _refuse_moving(tx, touched, start=start, now=now)
    since = min([start, *(row.start_at for row in touched)])
    wanted = {
        place: row
        for place, row in _needed(tx, customer_id, schedule, catalog, since=since).items()
        if not _stands(row, rows)
    }
    new = {(row.meter_id, row.start_at): _new_period(row, schedule, keys) for row in touched}
    _reshape(tx, touched, new, version=schedule.version)
    _open(tx, rows, new, wanted)
    for meter_id in sorted({place[0] for place in wanted} | {row.meter_id for row in touched}):
        starts = [place[1] for place in wanted if place[0] == meter_id]
        starts += [row.start_at for row in touched if row.meter_id == meter_id]
        recount(tx, store.Span(customer_id, min(starts), FOR_EVER, meter_id))
    _settle(tx, customer_id, schedule, keys)


def _moves(row: WindowRow, meter_key: str, old: Schedule, new: Schedule) -> bool:
    """Say whether a window gets another time, or is of another price or agreement."""
    before, after = (terms_at(one, meter_key, row.start_at) for one in (old, new))
    return after.window != row.period or _owner(before.limit) != _owner(after.limit)


def _owner(limit: Limit | None) -> tuple[object, ...]:
    return () if limit is None else (limit.price, limit.begins)


def _refuse_moving(tx: Tx, touched: Sequence[WindowRow], *, start: datetime, now: datetime) -> None:
    """Refuse to move what is promised or archived. Raises: Conflict."""
    # a window that is emptied cannot keep them either: made by a clock ahead of this one
    if any(row.reserved and (start < now or start <= row.start_at) for row in touched):
        detail = "reservations are open in the time that the change moves; settle them, try again"
        raise Conflict(detail, code="open_reservations")
    gone = store.find_retention(tx).accepts_from
    if any(row.start_at < gone for row in touched):
        detail = (
            f"usage before {instant_text(gone)} is archived and cannot be counted again; "
            "start later"
        )
        raise Conflict(detail, code="archived", field="start")


def _needed(
    tx: Tx,
    customer_id: UUID,
    schedule: Schedule,
    catalog: Catalog,
    *,
    since: datetime,
) -> dict[_Place, WindowRow]:
    """Return the windows that usage from an instant on asks for."""
    plans = {kind.name: kind.meters for kind in intake.event_types(catalog).values()}
    needed: dict[_Place, WindowRow] = {}
    for event in store.events_since(tx, customer_id, since):
        moment = rules.microseconds(event.occurred_at)
        for newest in plans.get(event.type, ()):
            meter = newest.at(moment)
            if meter is not None and meter.measure(event.properties) is not None:
                row = new_window(
                    customer_id, meter.meter_id, meter.key, schedule, event.occurred_at
                )
                needed[meter.meter_id, row.start_at] = row
    return needed


def _stands(row: WindowRow, rows: Sequence[WindowRow]) -> bool:
    """Say whether a window is there already as it should be."""
    return any(
        (old.meter_id, old.start_at, old.end_at) == (row.meter_id, row.start_at, row.end_at)
        for old in rows
    )


def _reshape(
    tx: Tx, touched: Sequence[WindowRow], new: Mapping[_Place, Period], *, version: int
) -> None:
    """Give each touched window its new time; first what shrinks, so that none overlap."""
    for row in touched:
        end = min(row.end_at, new[row.meter_id, row.start_at].end)
        cut = replace(row, end_at=end, version=version)
        store.reshape_window(tx, cut if end > row.start_at else replace(cut, used=_ZERO))
    for row in touched:
        end = new[row.meter_id, row.start_at].end
        if end > row.end_at:
            store.reshape_window(tx, replace(row, end_at=end, version=version))


def _open(
    tx: Tx,
    rows: Sequence[WindowRow],
    new: Mapping[_Place, Period],
    wanted: Mapping[_Place, WindowRow],
) -> None:
    """Open the windows that lack; an emptied one is filled again."""
    there = {(row.meter_id, row.start_at) for row in rows}
    for place in sorted(wanted):
        if place in new and new[place].end > new[place].start:
            continue  # it stands, with another end than before
        if place in there:
            store.reshape_window(tx, wanted[place])
        else:
            store.open_windows(tx, [wanted[place]])


def _new_period(row: WindowRow, schedule: Schedule, keys: Mapping[int, str]) -> Period:
    """Return the time of a window from now on; empty where none begins at its start any more."""
    laid = window_at(schedule, keys[row.meter_id], row.start_at)
    return laid if laid.start == row.start_at else Period(row.start_at, row.start_at)


def _settle(tx: Tx, customer_id: UUID, schedule: Schedule, keys: Mapping[int, str]) -> None:
    """Let every window say what it may use under the schedule; caches notice by the version."""
    rows = store.lock_meter_windows(tx, [(customer_id, meter_id) for meter_id in sorted(keys)])
    changed = [
        replace(after, version=schedule.version)
        for _, after in following.changes(rows, {customer_id: schedule}, keys)
    ]
    store.save_standing(tx, changed)
