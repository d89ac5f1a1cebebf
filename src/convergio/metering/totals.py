"""Move totals by what events add: one statement an aggregation, always in the same order.

Sums and counts are added, a maximum is raised, the last value is set where its event is newer, and
a value that unique_count has not seen adds one. Windows are touched in the order of their key and
aggregations in a fixed order, so that concurrent writers cannot deadlock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.outbox import Fact
from convergio.kernel.periods import instant_text
from convergio.metering import rules, store
from convergio.metering.errors import WindowsChanged
from convergio.metering.intake import UNIQUE, Row, Window
from convergio.metering.model import GROUPS_MAX
from convergio.metering.store import Moved

_Columns = tuple[Any, ...]
_order: Final = attrgetter("key")
Passed = tuple[Window, int]


def move(tx: Tx, rows: Sequence[Row], *, now: datetime) -> list[Passed]:
    """Move the totals; return the windows that passed an alert, with how many of their marks.

    The caller drops these marks from its cache once the transaction is committed. Emits:
    usage.threshold_reached, once a window and percentage. Raises: WindowsChanged.
    """
    sums: dict[Window, int] = {}
    tops: dict[Window, int] = {}
    lasts: dict[Window, tuple[int, bytes, int]] = {}
    values: set[tuple[Window, UUID]] = set()
    for row in rows:
        for window, aggregation, quantity, item in row.adds:
            if aggregation == "max":
                tops[window] = max(tops.get(window, 0), quantity)
            elif aggregation == "last":
                newest = (row.moment, row.key[16:], quantity)
                lasts[window] = max(lasts.get(window, newest), newest)
            elif aggregation == UNIQUE and item is not None:
                values.add((window, item))
            else:
                sums[window] = sums.get(window, 0) + quantity
    if values:
        _add_unique(tx, values, sums)
    moved = _write_sums(tx, sums)
    if tops:
        moved += _write(tx, tops, store.raise_totals, lambda w: (rules.nanos_text(tops[w]),))
    if lasts:
        moved += _write(tx, lasts, store.set_totals, lambda w: _last(lasts[w]))
    return _alert(tx, moved, {**sums, **tops, **lasts}, now=now)


def _last(newest: tuple[int, bytes, int]) -> _Columns:
    moment, key, quantity = newest
    return rules.nanos_text(quantity), rules.instant(moment), UUID(bytes=key)


def _add_unique(tx: Tx, values: set[tuple[Window, UUID]], sums: dict[Window, int]) -> None:
    """Remember values, and add one to their window for each that is new."""
    ordered = sorted(values, key=lambda one: (*one[0].key, one[1]))
    rows = [
        (w.customer.customer_id, w.meter_id, w.starts_at, w.dimensions, item) for w, item in ordered
    ]
    windows = {
        (w.customer.customer_id, w.meter_id, w.starts_at, w.dimensions): w for w, _ in ordered
    }
    for window in windows.values():
        sums.setdefault(window, 0)  # written even without a new value, to prove the version
    for key in store.add_unique_values(tx, rows):
        sums[windows[key]] += rules.NANO


def _write_sums(tx: Tx, sums: Mapping[Window, int]) -> list[Moved]:
    """Add sums; the new totals are only asked for when an alert may be due."""
    if any(window.marks for window in sums):
        return _write(tx, sums, store.add_to_watched_totals, lambda w: (rules.nanos_text(sums[w]),))
    ordered = _ordered(sums)
    rows = [(*window.columns, rules.nanos_text(sums[window])) for window in ordered]
    if store.add_to_totals(tx, rows) != len(rows):
        raise WindowsChanged(window.customer for window in ordered)
    return []


def _write(
    tx: Tx,
    windows: Mapping[Window, object],
    write: Callable[[Tx, Sequence[_Columns]], list[Moved]],
    values: Callable[[Window], _Columns],
) -> list[Moved]:
    ordered = _ordered(windows)
    moved = write(tx, [(*window.columns, *values(window)) for window in ordered])
    if len(moved) != len(ordered):
        raise WindowsChanged(window.customer for window in ordered)
    return moved


def _ordered(windows: Mapping[Window, object]) -> list[Window]:
    """Return windows in the order of their key; two copies of one mean that a cache was renewed."""
    ordered = sorted(windows, key=_order)
    if any(one.key == two.key for one, two in pairwise(ordered)):
        raise WindowsChanged(window.customer for window in ordered)
    return ordered


def _alert(
    tx: Tx, moved: Sequence[Moved], windows: Mapping[Window, object], *, now: datetime
) -> list[Passed]:
    """Tell each percentage that a window has reached, unless somebody told it already."""
    by_key = {w.key: w for w in windows if w.marks}
    passed: list[Passed] = []
    due: dict[tuple[UUID, int, datetime, str], Fact] = {}
    for row in moved:
        start = rules.microseconds(row.start_at)
        window = by_key.get((row.customer_id.bytes, row.meter_id, start, row.dimensions))
        if window is None or row.dimensions:
            continue
        used = int(row.used * rules.NANO)
        reached = [(percent, mark) for percent, mark in window.marks if used >= mark]
        if reached:
            passed.append((window, len(reached)))
        for percent, _ in reached:
            key = (row.customer_id, row.meter_id, row.start_at, f"threshold:{percent}")
            due[key] = _fact("usage.threshold_reached", row, percent=percent)
    raise_once(tx, due, now=now)
    return passed


def raise_once(
    tx: Tx, due: Mapping[tuple[UUID, int, datetime, str], Fact], *, now: datetime
) -> None:
    """Emit each fact whose key nobody has noted before."""
    if due:
        fresh = store.raise_alerts(tx, [(*key, now) for key in sorted(due)])
        outbox.emit_many(tx, [due[key] for key in sorted(fresh)], now=now)


def _fact(name: str, row: Moved, *, percent: int) -> Fact:
    data = {
        "meter_id": row.meter_id,
        "window_start": instant_text(row.start_at),
        "percent": percent,
        "used": rules.plain(row.used),
    }
    return Fact(name, row.customer_id, None, data)


def groups_full(customer_id: UUID, meter_id: int, start_at: datetime) -> Fact:
    """Return the fact that a window admits no further group."""
    data = {
        "meter_id": meter_id,
        "window_start": instant_text(start_at),
        "groups_max": GROUPS_MAX,
    }
    return Fact("usage.group_limit_reached", customer_id, None, data)
