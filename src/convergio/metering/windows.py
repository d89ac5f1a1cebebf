"""Open windows at first use, and groups in them up to their number (docs/adr/0002).

A window opens under the lock of its customer's schedule, so that a plan change waits or is seen,
and that two writers who open one at once do not deadlock in its constraints. A group opens under
the lock of its window's row, which counts the groups.

Windows that share an allowance or credit follow each other: what an earlier one uses moves what a
later one may. Who moves an earlier one holds its lock until the later ones were moved too, and who
opens a later one locks the earlier ones first.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from convergio.infra.db import Tx
from convergio.metering import alerts, following, store
from convergio.metering.allowance import standings
from convergio.metering.model import ALERTS, GROUPS_MAX, Schedule, WindowRow
from convergio.metering.schedule import terms_at

FROM_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOR_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
WindowKey = following.WindowKey


class Moment(NamedTuple):
    """A moment of a customer's meter whose window is asked for, and a group of it."""

    customer_id: UUID
    meter_id: int
    meter_key: str
    at: datetime
    dimensions: str = ""


class Opened(NamedTuple):
    """The windows and groups that hold the moments, and the windows without room for a group."""

    rows: list[WindowRow]
    full: set[WindowKey]


def ensure_windows(tx: Tx, wanted: Sequence[Moment], *, now: datetime) -> Opened:
    """Return windows and groups that hold these moments, opening those that do not exist.

    Locks: the customers' schedules; the windows that get a new group. Emits:
    usage.group_limit_reached, once a window.
    """
    if not wanted:
        return Opened([], set())
    groups = sorted({one.dimensions for one in wanted if one.dimensions})
    ids = sorted({one.customer_id for one in wanted})
    since, until = min(one.at for one in wanted), max(one.at for one in wanted)
    stored = store.find_windows(tx, ids, since=since, until=until, groups=groups)
    lacking = [
        one for one, row in zip(wanted, _holding(stored, wanted), strict=True) if row is None
    ]
    if lacking:
        _open(tx, lacking)
        stored = store.find_windows(tx, ids, since=since, until=until, groups=groups)
    full: set[WindowKey] = set()
    if groups:
        full = _open_groups(tx, wanted, stored, now=now)
        stored = store.find_windows(tx, ids, since=since, until=until, groups=groups)
    return Opened(stored, full)


def _holding(stored: Sequence[WindowRow], wanted: Sequence[Moment]) -> list[WindowRow | None]:
    """Return for each moment the ungrouped window that holds it."""
    by_meter: dict[tuple[UUID, int], list[WindowRow]] = defaultdict(list)
    for row in stored:
        if not row.dimensions:
            by_meter[row.customer_id, row.meter_id].append(row)
    return [
        next(
            (
                row
                for row in by_meter.get((one.customer_id, one.meter_id), ())
                if row.start_at <= one.at < row.end_at
            ),
            None,
        )
        for one in wanted
    ]


def _open(tx: Tx, lacking: Sequence[Moment]) -> None:
    ids = sorted({one.customer_id for one in lacking})
    store.add_default_schedules(tx, ids)
    schedules = store.lock_schedules(tx, ids)
    since, until = min(one.at for one in lacking), max(one.at for one in lacking)
    stored = store.find_windows(tx, ids, since=since, until=until)
    holding = _holding(stored, lacking)
    lacking = [one for one, row in zip(lacking, holding, strict=True) if row is None]
    opened: dict[WindowKey, WindowRow] = {}
    keys: dict[int, str] = {}
    for one in lacking:
        schedule = schedules[one.customer_id]
        row = new_window(one.customer_id, one.meter_id, one.meter_key, schedule, one.at)
        opened[one.customer_id, one.meter_id, row.start_at] = row
        keys[one.meter_id] = one.meter_key
    shared = {(row.customer_id, row.meter_id) for row in opened.values() if row.period_at}
    if shared:
        new = [row for row in opened.values() if (row.customer_id, row.meter_id) in shared]
        rows = sorted([*store.lock_meter_windows(tx, sorted(shared)), *new], key=_key)
        for _, after in following.changes(rows, schedules, keys):
            if _key(after) in opened:
                opened[_key(after)] = after
    store.open_windows(tx, [opened[key] for key in sorted(opened)])


def _key(row: WindowRow) -> WindowKey:
    return row.customer_id, row.meter_id, row.start_at


def _open_groups(
    tx: Tx, wanted: Sequence[Moment], stored: Sequence[WindowRow], *, now: datetime
) -> set[WindowKey]:
    """Open the groups that lack, where their window has room; return the windows that have none."""
    there = {(row.customer_id, row.meter_id, row.start_at, row.dimensions) for row in stored}
    lacking: dict[WindowKey, set[str]] = defaultdict(set)
    for one, row in zip(wanted, _holding(stored, wanted), strict=True):
        if row is not None and one.dimensions:
            key = (row.customer_id, row.meter_id, row.start_at)
            if (*key, one.dimensions) not in there:
                lacking[key].add(one.dimensions)
    if not lacking:
        return set()
    keys = sorted(lacking)
    locked = {
        (row.customer_id, row.meter_id, row.start_at): row for row in store.lock_windows(tx, keys)
    }
    counts = store.count_groups(tx, keys)
    full: set[WindowKey] = set()
    rows: list[WindowRow] = []
    for key in keys:
        window = locked.get(key)
        if window is None:
            continue
        names = sorted(lacking[key])
        room = GROUPS_MAX - counts.get(key, 0)
        rows += [_group(window, name) for name in names[: max(room, 0)]]
        if len(names) > room:
            full.add(key)
    store.open_windows(tx, rows)
    alerts.raise_once(tx, dict(alerts.groups_full(*key) for key in full), now=now)
    return full


def _group(window: WindowRow, dimensions: str) -> WindowRow:
    return WindowRow(
        customer_id=window.customer_id,
        meter_id=window.meter_id,
        start_at=window.start_at,
        end_at=window.end_at,
        version=window.version,
        used=Decimal(0),
        reserved=Decimal(0),
        quota_limit=None,
        included=None,
        dimensions=dimensions,
    )


def recount(tx: Tx, span: store.Span) -> None:
    """Count windows again from the events: their totals, their groups, their distinct values."""
    store.recount_windows(tx, span)
    store.drop_groups(tx, span)
    store.recount_groups(tx, span)
    store.drop_unique_values(tx, span)
    store.recount_unique_values(tx, span)


def new_window(
    customer_id: UUID, meter_id: int, meter_key: str, schedule: Schedule, moment: datetime
) -> WindowRow:
    """Return the window that the schedule lays around a moment, as if there were no other."""
    terms = terms_at(schedule, meter_key, moment)
    row = WindowRow(
        customer_id=customer_id,
        meter_id=meter_id,
        start_at=terms.window.start,
        end_at=terms.window.end,
        version=schedule.version,
        used=Decimal(0),
        reserved=Decimal(0),
        quota_limit=None,
        included=None,
        alerts=terms.limit.alerts if terms.limit else ALERTS,
    )
    return replace(row, **standings(schedule, meter_key, [row])[0]._asdict())
