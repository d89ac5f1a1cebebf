"""Change windows, hold parts of them, and answer what was used.

Counting events is `ingest.py`, opening windows `windows.py`. A change of a customer's schedule
takes its lock alone, cuts the windows and counts again.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Meter
from convergio.infra.db import Tx
from convergio.infra.pipe import Question, Values
from convergio.kernel.errors import Difference, Invalid, NotFound, require
from convergio.kernel.periods import Period, instant_text, zone
from convergio.kernel.quantity import add_up, quantity_text
from convergio.metering import following, intake, laying, rules, store
from convergio.metering.allowance import Draw, draws, of_meter
from convergio.metering.errors import WindowsChanged
from convergio.metering.model import (
    Credit,
    MeteredEvent,
    Segment,
    Share,
    Slice,
    Usage,
    UsageKey,
    WindowRow,
)
from convergio.metering.schedule import Terms, terms_at, with_credit, with_segment, with_share
from convergio.metering.windows import FROM_EVER

QUERY_SECONDS: Final = 20
_UNITS: Final = frozenset({"minute", "hour", "day", "week", "month", "quarter", "year"})
PAGE_SIZE_MAX: Final = 10_000
_ZERO: Final = Decimal(0)
OtherTerms = Callable[[UUID, str, Terms], Terms]


def set_schedules(tx: Tx, segments: Mapping[UUID, Segment], *, now: datetime) -> None:
    """Start a segment for each customer: fast where no window exists yet.

    Locks: the customers' schedules. Raises: Conflict as `set_schedule`.
    """
    ids = sorted(segments)
    store.add_default_schedules(tx, ids)
    schedules = store.lock_schedules(tx, ids)
    busy = store.customers_with_windows(tx, ids)
    changed = {each: with_segment(schedules[each], segments[each]) for each in ids}
    store.save_schedule(tx, changed)
    for each in sorted(busy):
        start = segments[each].starts_at or FROM_EVER
        laying.lay_again(tx, each, schedules[each], changed[each], start=start, now=now)


def set_schedule(
    tx: Tx, customer_id: UUID, segment: Segment, *, now: datetime, shares: Sequence[Share] = ()
) -> None:
    """Let a customer's windows follow a segment from its start on.

    A window that the start cuts ends there; usage from then on is counted again into the windows
    of the new segment, in this transaction (RULES 18). `shares` are what the windows of the
    periods that are cut come to together. Locks: the customer's schedule and windows. Raises:
    Conflict when a backdated start would move open reservations.
    """
    store.add_default_schedules(tx, [customer_id])
    schedule = store.lock_schedules(tx, [customer_id])[customer_id]
    changed = with_segment(schedule, segment)
    for share in shares:
        changed = with_share(changed, share)
    store.save_schedule(tx, {customer_id: changed})
    start = segment.starts_at or FROM_EVER
    laying.lay_again(tx, customer_id, schedule, changed, start=start, now=now)


def set_credit(tx: Tx, customer_id: UUID, credit: Credit, *, now: datetime) -> None:
    """Let usage draw a credit, or let one that is there end at another instant.

    Windows are cut where it begins and ends, and all of its meter's come to what they may use
    now. Locks: the customer's schedule and windows. Raises: Conflict when a past beginning would
    move open reservations, or archived usage.
    """
    store.add_default_schedules(tx, [customer_id])
    schedule = store.lock_schedules(tx, [customer_id])[customer_id]
    old = next((one for one in schedule.credits if one.grant_id == credit.grant_id), None)
    changed = with_credit(schedule, credit)
    store.save_schedule(tx, {customer_id: changed})
    start = credit.starts_at if old is None else min(now, credit.ends_at or now)
    laying.lay_again(tx, customer_id, schedule, changed, start=start, now=now)


def credits_of(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, dict[UUID, Credit]]:
    """Return by customer the credits of their schedules, by grant."""
    found = store.find_credited_schedules(tx, customer_ids)
    return {
        customer_id: {one.grant_id: one for one in schedule.credits}
        for customer_id, schedule in found.items()
    }


def credits_drawn(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, dict[UUID, Decimal]]:
    """Return by customer what is drawn of each credit in units; what is not there is nothing."""
    return {
        customer_id: {
            grant_id: add_up(draw.taken.get(grant_id, _ZERO) for _, draw in some)
            for grant_id in {grant_id for _, draw in some for grant_id in draw.taken}
        }
        for customer_id, some in _draws(tx, customer_ids).items()
    }


def drawn_in(
    tx: Tx,
    requests: Sequence[tuple[UUID, str, Period]],
    *,
    other: OtherTerms | None = None,
) -> dict[UsageKey, Decimal]:
    """Return how much of the usage of meters in periods was drawn from credit, where any was.

    As `usage_in`; one quick read where none of the customers has credit. With `other` as it would
    be if windows had had these terms.
    """
    if not requests:
        return {}
    of = _draws(tx, sorted({customer_id for customer_id, _, _ in requests}), other)
    found: dict[UsageKey, Decimal] = {}
    meters = {key: meter_id for meter_id, key in following.meter_keys(tx).items()} if of else {}
    for customer_id, meter_key, period in requests:
        taken = add_up(
            draw.sum
            for row, draw in of.get(customer_id, ())
            if row.meter_id == meters[meter_key]
            and period.start <= row.start_at
            and row.end_at <= period.end
        )
        if taken:
            found[customer_id, meter_key, period.start] = taken
    return found


def _draws(
    tx: Tx, customer_ids: Sequence[UUID], other: OtherTerms | None = None
) -> dict[UUID, list[tuple[WindowRow, Draw]]]:
    """Return what the windows of customers with credit draw."""
    schedules = store.find_credited_schedules(tx, customer_ids)
    if not schedules:
        return {}
    keys = {key: meter_id for meter_id, key in following.meter_keys(tx).items()}
    meters = sorted(
        {
            (customer_id, keys[credit.meter_key])
            for customer_id, schedule in schedules.items()
            for credit in schedule.credits
        }
    )
    names = {meter_id: key for key, meter_id in keys.items()}
    of: dict[tuple[UUID, int], list[WindowRow]] = {}
    for row in store.find_meter_windows(tx, meters):
        of.setdefault((row.customer_id, row.meter_id), []).append(row)
    found: dict[UUID, list[tuple[WindowRow, Draw]]] = {}
    for (customer_id, meter_id), rows in of.items():
        schedule, key = schedules[customer_id], names[meter_id]
        terms = [terms_at(schedule, key, row.start_at) for row in rows]
        if other is not None:
            terms = [other(customer_id, key, one) for one in terms]
        some = draws(terms, [row.used for row in rows], of_meter(schedule.credits, key))
        found.setdefault(customer_id, []).extend(zip(rows, some, strict=True))
    return found


def hold(tx: Tx, asks: Sequence[tuple[intake.Window, Sequence[Decimal]]]) -> list[list[bool]]:
    """Reserve quantities of windows, in order of arrival; say for each whether it fitted.

    Where all asks of a window fit, one conditional update decides. Where they do not, the window
    is locked and they are taken one by one. Locks: the windows, in the order of their key; first
    those that share an allowance, and what follows them. Raises: WindowsChanged.
    """
    if len({window.key for window, _ in asks}) < len(asks):
        raise WindowsChanged(window.customer for window, _ in asks)  # two copies of one window
    order = sorted(range(len(asks)), key=lambda at: asks[at][0].key)
    lead = following.leading(_window_key(window) for window, _ in asks if window.shared)
    found = tx.together(*lead, *holding([asks[at] for at in order]))
    whole = held(found[len(lead) :])
    answers: list[list[bool]] = [[] for _ in asks]
    short = []
    for at in order:
        if asks[at][0].place in whole:
            answers[at] = [True] * len(asks[at][1])
        else:
            short.append(at)
    if not short:
        return answers
    locked = {
        (row.customer_id, row.meter_id, row.start_at): row
        for row in store.lock_windows(tx, [_window_key(asks[at][0]) for at in short])
    }
    part = []
    for at in short:
        window = asks[at][0]
        stored = locked.get(_window_key(window))
        if stored is None or stored.version != window.version:
            raise WindowsChanged(asks[at][0].customer for at in short)
        answers[at] = rules.fitting(stored, asks[at][1])
        taken = [q for q, fits in zip(asks[at][1], answers[at], strict=True) if fits]
        if taken:
            part.append((window, taken))
    whole = held(tx.together(*holding(part)))
    require(len(whole) == len(part), "a locked window takes what was decided")
    return answers


def holding(
    asks: Sequence[tuple[intake.Window, Sequence[Decimal]]],
) -> list[Question[list[Values]]]:
    """Ask to hold all that is asked of each window, or nothing of it; `held` reads the answers.

    Windows come in the order of their key. Locks: them.
    """
    return store.reserve(
        [(*window.columns, quantity_text(add_up(asked)).encode()) for window, asked in asks]
    )


def held(answers: Sequence[list[Values]]) -> set[Values]:
    """Return the places of the windows in which all fitted."""
    return {place for places in answers for place in places}


def _window_key(window: intake.Window) -> tuple[UUID, int, datetime]:
    return window.customer.customer_id, window.meter_id, window.starts_at


def give_back(
    tx: Tx, held: Sequence[tuple[UUID, int, datetime, Decimal]], *, now: datetime
) -> None:
    """Return reserved quantities: (customer, meter id, start of the window, quantity).

    Locks: the windows, in the order of their key, and those that depend on them.
    """
    sums: dict[tuple[UUID, int, datetime], list[Decimal]] = {}
    for customer_id, meter_id, start_at, quantity in held:
        sums.setdefault((customer_id, meter_id, start_at), []).append(quantity)
    shared = []
    for key in sorted(sums):
        found = store.unreserve(tx, key, add_up(sums[key]))
        require(found is not None, "a reservation's window exists")
        if found:
            shared.append(key)
    following.follow(tx, shared, now=now)


def follow(tx: Tx, windows: Sequence[intake.Window], *, now: datetime) -> None:
    """Bring the windows after these to what they may use now that these hold more.

    Locks: every window of the meters of those that others depend on.
    """
    shared = {_window_key(window) for window in windows if window.shared}
    following.follow(tx, sorted(shared), now=now)


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
    tx: Tx,
    requests: Sequence[tuple[UUID, str, Period]],
    meters: Mapping[str, Meter] | None = None,
) -> dict[UsageKey, Decimal]:
    """Return what was used of meters in periods; what is not in the answer is zero.

    Windows never cross a period of their own segment, so a period's usage is the sum of the
    windows inside it. `meters` are the catalog's, where they are at hand.
    """
    if not requests:
        return {}
    if meters is None:
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
    found: dict[UsageKey, Decimal] = {}
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
    return [one for one, _ in usage_marks_at(tx, [(who, until, None) for who, until in asked])]


def usage_marks_at(
    tx: Tx, asked: Sequence[tuple[UUID, datetime | None, datetime | None]]
) -> list[tuple[Decimal, Decimal]]:
    """Return the marks of two instants for each customer, as `usage_marks`; 0 for no instant."""
    return store.usage_marks(tx, asked) if asked else []


def events_in(
    tx: Tx,
    *,
    customer_id: UUID,
    meter_key: str,
    period: Period,
    after: UUID | None = None,
    limit: int = 100,
    part: Slice | None = None,
) -> list[MeteredEvent]:
    """Return a page of the very events that a meter counted for a customer in a period.

    They come in the order of their keys; `after` is the last key of the page before. With a part,
    those of it alone.
    """
    meter = catalog_actions.current(tx).meters[meter_key]
    place = None if part is None else meter.group_by.index(part.by)
    return store.page_metered(
        tx,
        customer_id,
        meter.meter_id,
        period,
        after=after or UUID(int=0),
        size=limit,
        place=place,
        listed=() if part is None else part.listed,
        is_listed=part is not None and part.value is not None,
    )


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
    now: datetime | None = None,
) -> list[Usage]:
    """Return a page of usage in buckets of local time, from the events, right to the last commit.

    `by_group` splits each bucket by the meter's dimensions; `after` is the start and dimensions of
    the last bucket of the page before. Raises: NotFound for a meter; Invalid for a unit of time, a
    zone, or more buckets than one question may ask for; Unavailable when it takes too long.
    """
    meter = catalog_actions.current(tx).meters.get(meter_key)
    if meter is None:
        detail = f"there is no meter '{meter_key[:60]}'; see `convergio catalog show`"
        raise NotFound(detail, code="unknown_meter", field="meter")
    if by not in _UNITS:
        detail = f"write one of {', '.join(sorted(_UNITS))}"
        raise Invalid(detail, code="bad_window", field="by")
    zone(time_zone)
    rules.check_cost(by, since, until or now, by_group=by_group)
    tx.stop_after(QUERY_SECONDS)
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
    """Recompute totals from events, as far as these are kept; return where they differ.

    And what windows that share an allowance or credit may use, from the ones before them.
    """
    gone_before = store.find_retention(tx).gone_before
    keys = following.meter_keys(tx)
    counted = [
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
    return counted + following.verify(tx)
