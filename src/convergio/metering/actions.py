"""Lay out windows, hold parts of them, and answer what was used.

Counting events itself is `ingest.py`. Windows open at first use under a share lock of the
customer's schedule; a change of the schedule takes the lock alone, cuts and recounts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Catalog
from convergio.infra.db import Tx
from convergio.kernel.errors import Conflict, Difference, Invalid, NotFound, require
from convergio.kernel.periods import Period, instant_text, zone
from convergio.kernel.quantity import add_up, subtract
from convergio.metering import intake, rules, store
from convergio.metering.errors import WindowsChanged
from convergio.metering.model import Schedule, Segment, Usage, WindowRow

_UNITS: Final = frozenset({"minute", "hour", "day", "week", "month", "quarter", "year"})
FROM_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def ensure_windows(tx: Tx, wanted: Sequence[tuple[UUID, int, str, datetime]]) -> list[WindowRow]:
    """Return windows that hold these moments, opening those that do not exist.

    Locks: the customers' schedules, shared, so that a plan change waits or is seen.
    """
    if not wanted:
        return []
    ids = sorted({customer_id for customer_id, *_ in wanted})
    since, until = min(moment for *_, moment in wanted), max(moment for *_, moment in wanted)
    stored = store.find_windows(tx, ids, since=since, until=until)
    lacking = _not_in(wanted, stored)
    if lacking:
        ids = sorted({customer_id for customer_id, *_ in lacking})
        store.add_default_schedules(tx, ids)
        schedules = store.share_schedules(tx, ids)
        opened: dict[tuple[UUID, int, datetime], WindowRow] = {}
        for customer_id, meter_id, meter_key, moment in lacking:
            row = _new_window(customer_id, meter_id, meter_key, schedules[customer_id], moment)
            opened[customer_id, meter_id, row.start_at] = row
        store.open_windows(tx, [opened[key] for key in sorted(opened)])
        stored = store.find_windows(tx, ids, since=since, until=until) + [
            row for row in stored if row.customer_id not in set(ids)
        ]
    return stored


def _not_in(
    wanted: Sequence[tuple[UUID, int, str, datetime]], stored: Sequence[WindowRow]
) -> list[tuple[UUID, int, str, datetime]]:
    by_meter: dict[tuple[UUID, int], list[WindowRow]] = {}
    for row in stored:
        by_meter.setdefault((row.customer_id, row.meter_id), []).append(row)
    return [
        one
        for one in wanted
        if not any(w.start_at <= one[3] < w.end_at for w in by_meter.get((one[0], one[1]), ()))
    ]


def _new_window(
    customer_id: UUID, meter_id: int, meter_key: str, schedule: Schedule, moment: datetime
) -> WindowRow:
    period = rules.window_at(schedule, meter_key, moment)
    limit = rules.segment_at(schedule, moment)[0].limits.get(meter_key)
    return WindowRow(
        customer_id=customer_id,
        meter_id=meter_id,
        start_at=period.start,
        end_at=period.end,
        version=schedule.version,
        used=Decimal(0),
        reserved=Decimal(0),
        quota_limit=limit.limit if limit else None,
        included=limit.included if limit else None,
    )


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
    """Cut and recount the windows of one customer from `start` on."""
    rows = store.find_all_windows(tx, customer_id)
    touched = [row for row in rows if row.end_at > start and row.start_at < row.end_at]
    if any(row.reserved and start < now for row in touched):
        detail = "reservations are open in the time that the change moves; settle them, try again"
        raise Conflict(detail, code="open_reservations")
    empty = {(row.meter_id, row.start_at): row for row in rows}
    moved: dict[tuple[int, datetime], int] = {}
    counts: dict[tuple[int, datetime], tuple[WindowRow, int]] = {}
    plans = {kind.name: kind.meters for kind in intake.event_types(catalog).values()}
    for event in store.events_since(tx, customer_id, start):
        for meter in plans.get(event.type, ()):
            quantity = meter.measure(event.properties)
            if quantity is None:
                continue
            window = _new_window(
                customer_id, meter.meter_id, meter.key, schedule, event.occurred_at
            )
            known = counts.get((meter.meter_id, window.start_at), (window, 0))[1]
            counts[meter.meter_id, window.start_at] = (window, known + quantity)
            for row in touched:
                if row.meter_id == meter.meter_id and row.period.contains(event.occurred_at):
                    place = (row.meter_id, row.start_at)
                    moved[place] = moved.get(place, 0) + quantity
    for row in touched:
        left = subtract(row.used, rules.nanos_decimal(moved.get((row.meter_id, row.start_at), 0)))
        end = max(start, row.start_at)
        store.reshape_window(tx, replace(row, end_at=end, used=left, version=schedule.version))
    for (meter_id, window_start), (window, quantity) in sorted(counts.items()):
        row = replace(window, used=rules.nanos_decimal(quantity))
        if (meter_id, window_start) in empty:
            store.reshape_window(tx, row)
        else:
            store.open_windows(tx, [row])


def hold(tx: Tx, asks: Sequence[tuple[intake.Window, Sequence[Decimal]]]) -> list[list[bool]]:
    """Reserve quantities of windows, in order of arrival; say for each whether it fitted.

    Where all asks of a window fit, one conditional update decides. Where they do not, the window
    is locked and they are taken one by one. Locks: the windows, in the order of their key.
    Raises: WindowsChanged.
    """
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
    """Return reserved quantities: (customer, meter id, the instant it was made, quantity).

    Locks: the windows, in the order of their key.
    """
    rows = [
        {"customer_id": customer, "meter_id": meter, "made_at": made_at, "quantity": quantity}
        for customer, meter, made_at, quantity in sorted(held)
    ]
    require(store.unreserve(tx, rows) == len(rows), "a reservation's window exists")


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


def usage(
    tx: Tx,
    *,
    meter_key: str,
    by: str,
    time_zone: str = "UTC",
    customer_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Usage]:
    """Return usage in buckets of local time, from the events, right to the last commit.

    Raises: NotFound for a meter, Invalid for a unit of time or a zone.
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
        unit=by,
        time_zone=time_zone,
        customer_id=customer_id,
        since=since,
        until=until,
    )


def verify(tx: Tx) -> list[Difference]:
    """Recompute totals from events; return where they differ."""
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
        for row in store.differing_windows(tx)
    ]
