"""Move totals by what events add: one statement an aggregation, always in the same order.

Sums and counts are added, a maximum is raised, the last value is set where its event is newer, and
a value that unique_count has not seen adds one. Windows are touched in the order of their key and
aggregations in a fixed order, so that concurrent writers cannot deadlock. Windows that share an
allowance come first, with those that follow them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from convergio.infra.db import Tx
from convergio.infra.outbox import Fact
from convergio.infra.pipe import Question, Values
from convergio.metering import alerts, following, rules, store
from convergio.metering.errors import WindowsChanged
from convergio.metering.intake import Row, Window

Passed = tuple[Window, frozenset[int]]
_Write = Callable[[Sequence[Values]], list[Question[list[Values]]]]
_order: Final = attrgetter("key")
_SUMMED: Final = frozenset({"sum", "count"})


@dataclass(slots=True)
class _Added:
    """What a batch adds, by window: sums, maxima, last values, and values to be counted once."""

    sums: dict[Window, int] = field(default_factory=dict)
    tops: dict[Window, int] = field(default_factory=dict)
    lasts: dict[Window, tuple[int, bytes, int]] = field(default_factory=dict)
    values: set[tuple[Window, UUID]] = field(default_factory=set)


def move(
    tx: Tx, rows: Sequence[Row], *, now: datetime, before: Sequence[Question[Any]] = ()
) -> list[Passed]:
    """Move the totals; return the windows that passed an alert, with its percentages.

    `before` is asked first, in the same round trip. The caller drops these marks (`drop_marks`)
    once the transaction is committed. Emits: usage.threshold_reached, once a window and
    percentage. Raises: WindowsChanged.
    """
    added = _add_up(rows)
    shared = {
        (w.customer.customer_id, w.meter_id, w.starts_at): w
        for w in chain(added.sums, added.tops, added.lasts, (one for one, _ in added.values))
        if w.shared and not w.dimensions
    }
    if shared:
        before = [*before, *following.leading(shared)]
    if added.values:
        tx.together(*before)
        before = ()
        _add_unique(tx, added.values, added.sums)
    parts: list[tuple[_Write, Mapping[Window, Any], Callable[[Any], Values]]] = [
        (store.add_to_totals, added.sums, lambda sum_: (rules.nanos_bytes(sum_),)),
        (store.raise_totals, added.tops, lambda top: (rules.nanos_bytes(top),)),
        (store.set_totals, added.lasts, _last),
    ]
    questions, windows = list(before), list[Window]()
    for write, quantities, values in parts:
        ordered = _ordered(quantities)
        windows += ordered
        questions += write([(*one.columns, *values(quantities[one])) for one in ordered])
    moved = [row for found in tx.together(*questions)[len(before) :] for row in found]
    if len(moved) != len(windows):
        raise WindowsChanged(window.customer for window in windows)
    passed = _alert(tx, moved, windows, now=now)
    following.follow(tx, shared, now=now)
    return passed + _alert_shared(tx, shared, now=now)


def drop_marks(passed: Sequence[Passed]) -> None:
    """Forget the alerts that were told; another thread may have told and dropped the same."""
    for window, told in passed:
        window.marks = tuple(mark for mark in window.marks if mark[0] not in told)


def _add_up(rows: Sequence[Row]) -> _Added:
    added = _Added()
    sums = added.sums
    for row in rows:
        for window, aggregation, quantity, item in row.adds:
            if aggregation in _SUMMED:
                sums[window] = sums.get(window, 0) + quantity
            elif aggregation == "max":
                added.tops[window] = max(added.tops.get(window, 0), quantity)
            elif aggregation == "last":
                newest = (row.moment, row.key[16:], quantity)
                added.lasts[window] = max(added.lasts.get(window, newest), newest)
            elif item is not None:
                added.values.add((window, item))
    return added


def _last(newest: tuple[int, bytes, int]) -> Values:
    moment, key, quantity = newest
    return rules.nanos_bytes(quantity), rules.instant_bytes(moment), key.hex().encode()


def _add_unique(tx: Tx, values: set[tuple[Window, UUID]], sums: dict[Window, int]) -> None:
    """Remember values, and add one to their window for each that is new.

    Locks: the windows, first. A correction that counts one again forgets values under that lock,
    so a value that is known here stays known until this transaction ends.
    """
    ordered = sorted(values, key=lambda one: (*one[0].key, one[1]))
    windows: dict[Values, Window] = {window.place: window for window, _ in ordered}
    places = {(w.customer.customer_id, w.meter_id, w.starts_at) for w in windows.values()}
    store.lock_windows(tx, sorted(places))
    for window in windows.values():
        sums.setdefault(window, 0)  # written even without a new value, to prove the version
    rows = [(*window.place, item.hex.encode()) for window, item in ordered]
    for new in tx.together(*store.add_unique_values(rows)):
        for place in new:
            sums[windows[place]] += rules.NANO


def _ordered(windows: Mapping[Window, object]) -> list[Window]:
    """Return windows in the order of their key; two copies of one mean that a cache was renewed."""
    ordered = sorted(windows, key=_order)
    if any(one.key == two.key for one, two in pairwise(ordered)):
        raise WindowsChanged(window.customer for window in ordered)
    return ordered


def _alert(
    tx: Tx, moved: Sequence[Values], windows: Sequence[Window], *, now: datetime
) -> list[Passed]:
    """Tell each percentage that a window has reached, unless somebody told it already.

    `moved` are places of windows with their new totals.
    """
    watched: dict[Values, Window] = {
        window.place: window for window in windows if window.marks and not window.shared
    }
    passed: list[Passed] = []
    due: dict[alerts.AlertKey, Fact] = {}
    for row in moved if watched else ():
        window = watched.get(row[:4])
        marks = window.marks if window else ()  # another thread may have dropped some since
        if window is None or not marks:
            continue
        used = rules.stored_nanos(row[4])
        reached = [percent for percent, mark in marks if used >= mark]
        if reached:
            passed.append((window, frozenset(reached)))
        for percent in reached:
            key, fact = alerts.threshold(
                window.customer.customer_id,
                window.meter_id,
                window.starts_at,
                percent,
                used=rules.nanos_decimal(used),
            )
            due[key] = fact
    alerts.raise_once(tx, due, now=now)
    return passed


def _alert_shared(
    tx: Tx, windows: Mapping[following.WindowKey, Window], *, now: datetime
) -> list[Passed]:
    """Tell what the periods of windows that share them have reached, unless somebody told it.

    The rows say what the earlier windows used; a cached copy may be behind.
    """
    watched = {key: (window, window.marks) for key, window in windows.items() if window.marks}
    if not watched:
        return []
    passed: list[Passed] = []
    due: dict[alerts.AlertKey, Fact] = {}
    for row in store.lock_windows(tx, sorted(watched)):
        window, marks = watched[row.customer_id, row.meter_id, row.start_at]
        untold = {percent for percent, _ in marks}
        facts = {percent: fact for percent, fact in following.reached(row) if percent in untold}
        due |= dict(facts.values())
        if facts:
            passed.append((window, frozenset(facts)))
    alerts.raise_once(tx, due, now=now)
    return passed
