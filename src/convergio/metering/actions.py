"""Change windows, hold parts of them, and answer what was used.

Counting events is `ingest.py`, opening windows `windows.py`. A change of a customer's schedule
takes its lock alone, cuts the windows and counts again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Catalog
from convergio.infra.db import Tx
from convergio.kernel.errors import Conflict, Difference, Invalid, NotFound, require
from convergio.kernel.periods import Period, instant_text, zone
from convergio.kernel.quantity import add_up
from convergio.metering import intake, rules, store
from convergio.metering.errors import WindowsChanged
from convergio.metering.model import MeteredEvent, Schedule, Segment, Usage, WindowRow
from convergio.metering.windows import FOR_EVER, FROM_EVER, new_window, recount

_UNITS: Final = frozenset({"minute", "hour", "day", "week", "month", "quarter", "year"})
PAGE_SIZE_MAX: Final = 10_000


def set_schedules(tx: Tx, segments: Mapping[UUID, Segment], *, now: datetime) -> None:
    """Start a segment for each customer: fast where no window exists yet.

    Locks: the customers' schedules. Raises: Conflict as `set_schedule`.
    """
    ids = sorted(segments)
    store.add_default_schedules(tx, ids)
    schedules = store.lock_schedules(tx, ids)
    busy = store.customers_with_windows(tx, ids)
    changed = {each: rules.with_segment(schedules[each], segments[each]) for each in ids}
    store.save_schedule(tx, changed)
    if busy:
        catalog = catalog_actions.current(tx)
        for each in sorted(busy):
            start = segments[each].starts_at or FROM_EVER
            _lay_again(tx, each, changed[each], catalog, start=start, now=now)


def set_schedule(tx: Tx, customer_id: UUID, segment: Segment, *, now: datetime) -> None:
    """Let a customer's windows follow a segment from its start on.

    A window that the start cuts ends there; usage from then on is counted again into the windows
    of the new segment, in this transaction (RULES 18). Locks: the customer's schedule and
    windows. Raises: Conflict when a backdated start would move open reservations.
    """
    set_schedules(tx, {customer_id: segment}, now=now)


def _lay_again(
    tx: Tx,
    customer_id: UUID,
    schedule: Schedule,
    catalog: Catalog,
    *,
    start: datetime,
    now: datetime,
) -> None:
    """Cut the windows of one customer at `start`, lay out those that follow, and count again."""
    rows = store.find_all_windows(tx, customer_id)
    touched = [row for row in rows if row.end_at > start and row.start_at < row.end_at]
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
    plans = {kind.name: kind.meters for kind in intake.event_types(catalog).values()}
    needed: dict[tuple[int, datetime], WindowRow] = {}
    for event in store.events_since(tx, customer_id, start):
        moment = rules.microseconds(event.occurred_at)
        for newest in plans.get(event.type, ()):
            meter = newest.at(moment)
            if meter is not None and meter.measure(event.properties) is not None:
                row = new_window(
                    customer_id, meter.meter_id, meter.key, schedule, event.occurred_at
                )
                needed[meter.meter_id, row.start_at] = row
    for row in touched:
        end = max(start, row.start_at)
        cut = replace(row, end_at=end, version=schedule.version)
        store.reshape_window(tx, cut if end > row.start_at else replace(cut, used=Decimal(0)))
    stored = {(row.meter_id, row.start_at) for row in rows}
    for key in sorted(needed):
        if key in stored:
            store.reshape_window(tx, needed[key])
        else:
            store.open_windows(tx, [needed[key]])
    since = min([start, *(row.start_at for row in touched)])
    recount(tx, store.Span(customer_id, since, FOR_EVER))


def hold(tx: Tx, asks: Sequence[tuple[intake.Window, Sequence[Decimal]]]) -> list[list[bool]]:
    """Reserve quantities of windows, in order of arrival; say for each whether it fitted.

    Where all asks of a window fit, one conditional update decides. Where they do not, the window
    is locked and they are taken one by one. Locks: the windows, in the order of their key.
    Raises: WindowsChanged.
    """
    if len({_window_key(window) for window, _ in asks}) < len(asks):
        raise WindowsChanged(window.customer for window, _ in asks)  # two copies of one window
    order = sorted(range(len(asks)), key=lambda at: _window_key(asks[at][0]))
    rows = [_held(asks[at][0], add_up(asks[at][1])) for at in order]
    whole = store.reserve(tx, rows)
    answers: list[list[bool]] = [[] for _ in asks]
    short = []
    for at, row in zip(order, rows, strict=True):
        if (row[0], row[1], row[2]) in whole:
            answers[at] = [True] * len(asks[at][1])
        else:
            short.append(at)
    if not short:
        return answers
    locked = {
        (row.customer_id, row.meter_id, row.start_at): row
        for row in store.lock_windows(tx, [_held(asks[at][0], Decimal(0))[:3] for at in short])
    }
    part = []
    for at in short:
        window = asks[at][0]
        stored = locked.get(_held(window, Decimal(0))[:3])
        if stored is None or stored.version != window.version:
            raise WindowsChanged(asks[at][0].customer for at in short)
        answers[at] = rules.fitting(stored, asks[at][1])
        taken = add_up(q for q, fits in zip(asks[at][1], answers[at], strict=True) if fits)
        if taken:
            part.append(_held(window, taken))
    require(len(store.reserve(tx, part)) == len(part), "a locked window takes what was decided")
    return answers


def _window_key(window: intake.Window) -> tuple[bytes, int, int]:
    return window.customer.raw, window.meter_id, window.start


def _held(window: intake.Window, quantity: Decimal) -> tuple[Any, ...]:
    return (
        window.customer.customer_id,
        window.meter_id,
        rules.instant(window.start),
        rules.instant(window.end),
        window.version,
        quantity,
    )


def give_back(tx: Tx, held: Sequence[tuple[UUID, int, datetime, Decimal]]) -> None:
    """Return reserved quantities: (customer, meter id, start of the window, quantity).

    Locks: the windows, in the order of their key.
    """
    rows = [
        {"customer_id": customer, "meter_id": meter, "start_at": start_at, "quantity": quantity}
        for customer, meter, start_at, quantity in sorted(held)
    ]
    require(store.unreserve(tx, rows) == len(rows), "a reservation's window exists")


def lock_window(tx: Tx, customer_id: UUID, meter_id: int, moment: datetime) -> WindowRow | None:
    """Return the window that holds an instant, None where none is open. Locks: it."""
    return store.lock_window_at(tx, customer_id, meter_id, moment)


def windows_at(tx: Tx, customer_ids: Sequence[UUID], moment: datetime) -> list[WindowRow]:
    """Return every open window of these customers that holds an instant, as stored now."""
    rows = store.find_windows(tx, customer_ids, since=moment, until=moment)
    return [row for row in rows if row.period.contains(moment)]


def window_now(tx: Tx, window: intake.Window) -> WindowRow | None:
    """Return a window as it is stored now, or None when the cache is behind."""
    rows = store.find_windows(
        tx,
        [window.customer.customer_id],
        since=rules.instant(window.start),
        until=rules.instant(window.start),
    )
    return next((row for row in rows if row.meter_id == window.meter_id), None)


def usage_in(
    tx: Tx, requests: Sequence[tuple[UUID, str, Period]]
) -> dict[tuple[UUID, str, datetime], Decimal]:
    """Return what was used of meters in periods; what is not in the answer is zero.

    Windows never cross a period of their own segment, so a period's usage is the sum of the
    windows inside it.
    """
    if not requests:
        return {}
    meters = catalog_actions.current(tx).meters
    rows = store.meter_totals(
        tx,
        sorted({customer_id for customer_id, _, _ in requests}),
        since=min(period.start for _, _, period in requests),
        until=max(period.end for _, _, period in requests),
    )
    by_meter: dict[tuple[UUID, int], list[tuple[datetime, datetime, Decimal]]] = {}
    for customer_id, meter_id, start, end, used in rows:
        by_meter.setdefault((customer_id, meter_id), []).append((start, end, used))
    found = {}
    for customer_id, meter_key, period in requests:
        windows = by_meter.get((customer_id, meters[meter_key].meter_id), ())
        used = [w[2] for w in windows if period.start <= w[0] and w[1] <= period.end]
        if used:
            found[customer_id, meter_key, period.start] = add_up(used)
    return found


def usage_marks(tx: Tx, asked: Sequence[tuple[UUID, datetime]]) -> list[Decimal]:
    """Return for each (customer, instant) a number that changes with any usage before it.

    Equal marks mean equal totals in every window that begins before the instant.
    """
    return store.usage_marks(tx, asked) if asked else []


def events_in(
    tx: Tx,
    *,
    customer_id: UUID,
    meter_key: str,
    period: Period,
    after: UUID | None = None,
    limit: int = 100,
) -> list[MeteredEvent]:
    """Return a page of the very events that a meter counted for a customer in a period.

    They come in the order of their keys; `after` is the last key of the page before.
    """
    meter = catalog_actions.current(tx).meters[meter_key]
    start = after or UUID(int=0)
    return store.page_metered(tx, customer_id, meter.meter_id, period, after=start, size=limit)


def usage(
    tx: Tx,
    *,
    meter_key: str,
    by: str,
    time_zone: str = "UTC",
    customer_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    by_group: bool = False,
    after: tuple[datetime, str] | None = None,
    size: int = PAGE_SIZE_MAX,
) -> list[Usage]:
    """Return a page of usage in buckets of local time, from the events, right to the last commit.

    `by_group` splits each bucket by the meter's dimensions; `after` is the start and dimensions of
    the last bucket of the page before. Raises: NotFound for a meter, Invalid for a unit of time
    or a zone.
    """
    meter = catalog_actions.current(tx).meters.get(meter_key)
    if meter is None:
        detail = f"there is no meter '{meter_key[:60]}'; see `convergio catalog show`"
        raise NotFound(detail, code="unknown_meter", field="meter")
    if by not in _UNITS:
        detail = f"write one of {', '.join(sorted(_UNITS))}"
        raise Invalid(detail, code="bad_window", field="by")
    zone(time_zone)
    return store.usage_by_bucket(
        tx,
        meter_id=meter.meter_id,
        aggregation=meter.aggregation,
        unit=by,
        time_zone=time_zone,
        customer_id=customer_id,
        since=since,
        until=until,
        by_group=by_group,
        after=after,
        size=size,
    )


def verify(tx: Tx) -> list[Difference]:
    """Recompute totals from events, as far as these are kept; return where they differ."""
    gone_before = store.find_retention(tx).gone_before
    keys = {meter.meter_id: meter.key for meter in catalog_actions.current(tx).meters.values()}
    return [
        Difference(
            where=(
                f"usage of {keys.get(row.meter_id, row.meter_id)} by customer {row.customer_id}"
                f" in the window from {instant_text(row.start_at) if row.start_at else 'none'}"
            ),
            expected=rules.plain(row.expected),
            found=rules.plain(row.used),
        )
        for row in store.differing_windows(tx, gone_before=gone_before)
    ]
