"""SQL of the meter: one function a query, same name."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from psycopg import errors as pg

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.infra.pipe import Question, Values
from convergio.kernel.errors import Fault
from convergio.kernel.periods import Period
from convergio.metering.model import (
    DEFAULT_SEGMENT,
    Correction,
    Credit,
    Differing,
    MeteredEvent,
    Retention,
    Schedule,
    Segment,
    StoredEvent,
    Usage,
    WindowRow,
)

_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
Instant = datetime | None
Marks = tuple[Decimal, Decimal]
_UNUSED: Final = (Decimal(0), Decimal(0))
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_segments: Final = msgspec.json.Decoder(tuple[Segment, ...])
_credits: Final = msgspec.json.Decoder(tuple[Credit, ...])
_encode: Final = msgspec.json.Encoder(decimal_format="string").encode
T = TypeVar("T")


class Span(NamedTuple):
    """The windows of a customer that start in `[since, until)`, of one meter or of all."""

    customer_id: UUID
    since: datetime
    until: datetime
    meter_id: int | None = None


class HasDuplicates(Exception):
    """The COPY met an event that is already there; the transaction is lost."""


def copy_events(tx: Tx, rows: Sequence[bytes]) -> None:
    """Load prepared rows. Raises: HasDuplicates; the transaction must then be given up."""
    data = b"".join((_SIGNATURE, *rows, _TRAILER))
    try:
        tx.copy_bytes(_QUERIES["copy_events"], data)
    except pg.UniqueViolation:
        raise HasDuplicates from None


def insert_events(rows: Sequence[Values]) -> list[Question[Any]]:
    """Ask to store a few rows, given in binary form."""
    return _asked("insert_events", rows, is_binary=True)


def insert_new_events(tx: Tx, rows: Sequence[Sequence[object]]) -> set[tuple[UUID, UUID]]:
    """Insert what is not there yet; return the keys of what was new."""
    return {(row[0], row[1]) for row in _in_portions(tx, "insert_new_events", rows)}


def compare_events(tx: Tx, rows: Sequence[Sequence[object]]) -> dict[tuple[UUID, UUID], bool]:
    """Return for each stored event whether its payload is the same."""
    return {(row[0], row[1]): row[2] for row in _in_portions(tx, "compare_events", rows)}


def add_to_totals(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to add to windows; answered by the places and new totals of those that moved.

    The others do not have the version any more that the caller knew.
    """
    return _asked("add_to_totals", rows)


def raise_totals(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to raise windows of max meters; answered as `add_to_totals`."""
    return _asked("raise_totals", rows)


def set_totals(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to set windows of last meters; answered as `add_to_totals`."""
    return _asked("set_totals", rows)


def add_unique_values(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to remember values; answered by the place of each that is new, once a value."""
    return _asked("add_unique_values", rows)


def raise_alerts(tx: Tx, rows: Sequence[Sequence[object]]) -> set[tuple[UUID, int, datetime, str]]:
    """Note alerts; return those that nobody noted before."""
    return {(row[0], row[1], row[2], row[3]) for row in _in_portions(tx, "raise_alerts", rows)}


def reserve(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to hold quantities; answered by the place of each window in which all fitted."""
    return _asked("reserve", rows)


def _asked(
    name: str, rows: Sequence[Values], *, is_binary: bool = False
) -> list[Question[list[Values]]]:
    return [
        Question(
            sql.repeated(_QUERIES[name], end - start),
            [value for row in rows[start:end] for value in row],
            list,
            is_binary,
        )
        for start, end in sql.portions(len(rows))
    ]


def _in_portions(tx: Tx, name: str, rows: Sequence[Sequence[object]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start, end in sql.portions(len(rows)):
        query = sql.repeated(_QUERIES[name], end - start)
        found += tx.placed(query, [value for row in rows[start:end] for value in row])
    return found


def find_windows(
    tx: Tx,
    customer_ids: Sequence[UUID],
    *,
    since: datetime,
    until: datetime,
    groups: Collection[str] = (),
) -> list[WindowRow]:
    """Return the windows that touch a stretch of time, and those of their groups that are named."""
    return tx.many(
        _QUERIES["find_windows"], WindowRow, customer_ids=list(customer_ids),
        groups=["", *groups], since=since, until=until,
    )  # fmt: skip


def find_all_windows(tx: Tx, customer_id: UUID) -> list[WindowRow]:
    """Return every window of a customer. Locks: them."""
    return tx.many(_QUERIES["find_all_windows"], WindowRow, customer_id=customer_id)


def open_windows(tx: Tx, rows: Sequence[WindowRow]) -> None:
    """Store windows that are not there."""
    tx.run_many(_QUERIES["open_windows"], [_columns(row) for row in rows])


def reshape_window(tx: Tx, row: WindowRow) -> None:
    """Store a window's new end, count, limit and version."""
    tx.run(_QUERIES["reshape_window"], **_columns(row))


def _columns(row: WindowRow) -> dict[str, object]:
    return asdict(row) | {"alerts": list(row.alerts)}


def add_default_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Make sure that each customer has a schedule."""
    segments = _encode((DEFAULT_SEGMENT,)).decode()
    rows = [{"customer_id": each, "segments": segments} for each in sorted(customer_ids)]
    tx.run_many(_QUERIES["add_default_schedules"], rows)


def lock_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Schedule]:
    """Return schedules to change. Locks: them."""
    return _schedules(tx, "lock_schedules", customer_ids)


def _schedules(tx: Tx, name: str, customer_ids: Sequence[UUID]) -> dict[UUID, Schedule]:
    rows = tx.tuples(_QUERIES[name], customer_ids=list(customer_ids))
    return {row[0]: Schedule(row[1], _of(row[2], _segments), _of(row[3], _credits)) for row in rows}


def _of(stored: object, decoder: msgspec.json.Decoder[T]) -> T:
    return decoder.decode(_encode(stored))


def find_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Schedule]:
    """Return schedules to read; who has none is left out."""
    return _schedules(tx, "find_schedules", customer_ids)


def find_credited_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Schedule]:
    """Return the schedules of those customers who have credit in units."""
    return _schedules(tx, "find_credited_schedules", customer_ids)


def save_schedule(tx: Tx, schedules: dict[UUID, Schedule]) -> None:
    """Store changed schedules."""
    rows = [
        {
            "customer_id": customer_id,
            "version": schedule.version,
            "segments": _encode(schedule.segments).decode(),
            "credits": _encode(schedule.credits).decode(),
        }
        for customer_id, schedule in sorted(schedules.items())
    ]
    tx.run_many(_QUERIES["save_schedule"], rows)


def customers_with_windows(tx: Tx, customer_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these customers have a window already."""
    query = _QUERIES["customers_with_windows"]
    return {row[0] for row in tx.tuples(query, customer_ids=list(customer_ids))}


def events_since(tx: Tx, customer_id: UUID, since: datetime) -> list[StoredEvent]:
    """Return a customer's events from an instant on."""
    return tx.many(_QUERIES["events_since"], StoredEvent, customer_id=customer_id, since=since)


def count_groups(
    tx: Tx, windows: Sequence[tuple[UUID, int, datetime]]
) -> dict[tuple[UUID, int, datetime], int]:
    """Return how many groups windows have; those without any are left out."""
    rows = tx.tuples(_QUERIES["count_groups"], **_by_key(windows))
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def recount_windows(tx: Tx, span: Span) -> None:
    """Count windows again from the events, whatever the aggregation."""
    tx.run(_QUERIES["recount_windows"], **span._asdict())


def drop_groups(tx: Tx, span: Span) -> None:
    """Forget the groups of windows, before they are counted again."""
    tx.run(_QUERIES["drop_groups"], **span._asdict())


def recount_groups(tx: Tx, span: Span) -> None:
    """Make the groups of windows again from the events."""
    tx.run(_QUERIES["recount_groups"], **span._asdict())


def drop_unique_values(tx: Tx, span: Span) -> None:
    """Forget the distinct values of windows, before they are collected again."""
    tx.run(_QUERIES["drop_unique_values"], **span._asdict())


def recount_unique_values(tx: Tx, span: Span) -> None:
    """Collect the distinct values of windows again from the events."""
    tx.run(_QUERIES["recount_unique_values"], **span._asdict())


def lock_event(tx: Tx, customer_id: UUID, event_key: UUID) -> StoredEvent | None:
    """Return one event. Locks: it."""
    query = _QUERIES["lock_event"]
    return tx.one(query, StoredEvent, customer_id=customer_id, event_key=event_key)


def find_correction(tx: Tx, customer_id: UUID, event_key: UUID) -> Correction | None:
    """Return what an event counts as since it was corrected."""
    query = _QUERIES["find_correction"]
    return tx.one(query, Correction, customer_id=customer_id, event_key=event_key)


def save_correction(tx: Tx, correction: Correction) -> None:
    """Let an event count as this from now on."""
    properties = _encode(correction.properties).decode()
    tx.run(_QUERIES["save_correction"], **asdict(correction) | {"properties": properties})


def fill_tombstone(tx: Tx, values: Sequence[object]) -> bool:
    """Put a late event in the place that its correction kept for it; say whether there was one."""
    names = (
        "customer_id", "event_key", "type", "occurred_at", "received_at", "properties", "source",
        "event_id",
    )  # fmt: skip
    return bool(tx.run(_QUERIES["fill_tombstone"], **dict(zip(names, values, strict=True))))


def usage_by_bucket(
    tx: Tx,
    *,
    meter_id: int,
    aggregation: str,
    unit: str,
    time_zone: str,
    customer_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
    by_group: bool,
    after: tuple[datetime, str] | None,
    size: int,
) -> list[Usage]:
    """Return a page of usage in buckets of local time, and of groups."""
    return tx.many(
        _QUERIES["usage_by_bucket"], Usage, meter_id=meter_id, aggregation=aggregation, unit=unit,
        time_zone=time_zone, customer_id=customer_id, since=since, until=until, by_group=by_group,
        after_start=after[0] if after else None, after_dimensions=after[1] if after else "",
        size=size,
    )  # fmt: skip


def differing_windows(tx: Tx, *, gone_before: datetime) -> list[Differing]:
    """Return windows whose count is not what their events say, as far as these are kept."""
    return tx.many(_QUERIES["differing_windows"], Differing, gone_before=gone_before)


def lock_windows(tx: Tx, keys: Sequence[tuple[UUID, int, datetime]]) -> list[WindowRow]:
    """Return windows by their keys. Locks: them, in order."""
    return tx.many(_QUERIES["lock_windows"], WindowRow, **_by_key(keys))


def lock_window_at(tx: Tx, customer_id: UUID, meter_id: int, moment: datetime) -> WindowRow | None:
    """Return the window that holds an instant. Locks: it."""
    query = _QUERIES["lock_window_at"]
    return tx.one(query, WindowRow, customer_id=customer_id, meter_id=meter_id, moment=moment)


def find_followed(tx: Tx, keys: Sequence[tuple[UUID, int, datetime]]) -> set[tuple[UUID, int]]:
    """Return of windows by their keys the customers and meters that have a later one."""
    return {(row[0], row[1]) for row in tx.tuples(_QUERIES["find_followed"], **_by_key(keys))}


def _by_key(keys: Sequence[tuple[UUID, int, datetime]]) -> dict[str, object]:
    columns = [[key[place] for key in keys] for place in range(3)]
    return dict(zip(("customer_ids", "meter_ids", "starts"), columns, strict=True))


def lock_later_windows(rows: Sequence[Values]) -> list[Question[list[Values]]]:
    """Ask to lock windows and all later ones of their meters; rows: customer, meter id, start."""
    return _asked("lock_later_windows", rows)


def lock_meter_windows(tx: Tx, meters: Sequence[tuple[UUID, int]]) -> list[WindowRow]:
    """Return every window of customers' meters in the order of their key. Locks: them."""
    return tx.many(_QUERIES["lock_meter_windows"], WindowRow, **_by_meter(meters))


def find_meter_windows(tx: Tx, meters: Sequence[tuple[UUID, int]]) -> list[WindowRow]:
    """Return every window of customers' meters in the order of their key."""
    return tx.many(_QUERIES["find_meter_windows"], WindowRow, **_by_meter(meters))


def _by_meter(meters: Sequence[tuple[UUID, int]]) -> dict[str, object]:
    return {"customer_ids": [one[0] for one in meters], "meter_ids": [one[1] for one in meters]}


def save_standing(tx: Tx, rows: Sequence[WindowRow]) -> None:
    """Store what windows may use since what they depend on has changed."""
    tx.run_many(_QUERIES["save_standing"], [_columns(row) for row in rows])


def page_shared(tx: Tx, *, after: tuple[UUID, int], size: int) -> list[tuple[Any, ...]]:
    """Return the next (customer, meter) of whom windows share an allowance or credit."""
    query = _QUERIES["page_shared"]
    return tx.tuples(query, after_customer=after[0], after_meter=after[1], size=size)


def unreserve(tx: Tx, key: tuple[UUID, int, datetime], quantity: Decimal) -> bool | None:
    """Give back what was held; say whether later windows depend on this one, None without it."""
    found: bool | None = tx.value(
        _QUERIES["unreserve"], customer_id=key[0], meter_id=key[1], start_at=key[2],
        quantity=quantity,
    )  # fmt: skip
    return found


def meter_totals(
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    """Return (customer, meter id, start, end, used) of windows inside a stretch of time."""
    query = _QUERIES["meter_totals"]
    return tx.tuples(query, customer_ids=list(customer_ids), since=since, until=until)


def find_retention(tx: Tx) -> Retention:
    """Return the stored boundary. Raises: Fault when its row is missing."""
    return _retention(tx.one(_QUERIES["find_retention"], Retention))


def share_retention(tx: Tx) -> Retention:
    """Return the boundary, which stays until the transaction ends. Locks: it, shared."""
    return _retention(tx.one(_QUERIES["share_retention"], Retention))


def hold_boundary() -> Question[int]:
    """Ask that the boundary stays until the transaction ends. Locks: it, shared."""
    return Question(_QUERIES["hold_boundary"], (), len)


def read_boundary(check: Callable[[bytes], None]) -> Question[None]:
    """Ask for the boundary and have it checked, as the server writes it."""
    return Question(_QUERIES["read_boundary"], (), lambda rows: check(rows[0][0] or b""))


def lock_retention(tx: Tx) -> Retention:
    """Return the boundary, to move it. Locks: it, when nobody holds it any more."""
    return _retention(tx.one(_QUERIES["lock_retention"], Retention))


def _retention(found: Retention | None) -> Retention:
    if found is None:
        raise Fault("the retention boundary has its row")
    return found


def save_retention(tx: Tx, retention: Retention) -> None:
    """Store a moved boundary."""
    tx.run(_QUERIES["save_retention"], **asdict(retention))


def oldest_event(tx: Tx, *, since: datetime) -> datetime | None:
    """Return when the oldest event from an instant on occurred."""
    found: datetime | None = tx.value(_QUERIES["oldest_event"], since=since)
    return found


def last_window_end(tx: Tx, period: Period) -> datetime | None:
    """Return when the last of the windows that touch a period ends."""
    query = _QUERIES["last_window_end"]
    found: datetime | None = tx.value(query, since=period.start, until=period.end)
    return found


def count_events(tx: Tx, period: Period) -> int:
    """Return how many events occurred in a period."""
    return int(tx.value(_QUERIES["count_events"], since=period.start, until=period.end))


def stream_events(tx: Tx, period: Period) -> Iterator[tuple[Any, ...]]:
    """Yield a period's events for an archive, in the order of their key, with flat memory."""
    query = _QUERIES["stream_events"]
    return tx.stream("stream_events", query, since=period.start, until=period.end)


def sum_meters(tx: Tx, period: Period) -> list[tuple[str, int, Decimal]]:
    """Return what each meter selects of a period: its key, how many events, their sum."""
    query = _QUERIES["sum_meters"]
    found = tx.tuples(query, since=period.start, until=period.end)
    return [(key, events, quantity) for key, events, quantity in found]


def delete_events(
    tx: Tx, period: Period, *, after: tuple[UUID, UUID], size: int
) -> list[tuple[UUID, UUID]]:
    """Delete a period's next events; return their keys, unordered. Locks: them, in order."""
    rows = tx.tuples(
        _QUERIES["delete_events"], after_customer=after[0], after_key=after[1], since=period.start,
        until=period.end, size=size,
    )  # fmt: skip
    return [(customer_id, event_key) for customer_id, event_key in rows]


def grouped_totals(
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    """Return (customer, meter id, start, end, dimensions, used) of groups in a stretch of time."""
    query = _QUERIES["grouped_totals"]
    return tx.tuples(query, customer_ids=list(customer_ids), since=since, until=until)


def page_metered(
    tx: Tx,
    customer_id: UUID,
    meter_id: int,
    period: Period,
    *,
    after: UUID,
    size: int,
    place: int | None = None,
    listed: Iterable[str] = (),
    is_listed: bool = True,
) -> list[MeteredEvent]:
    """Return the next events, by key, that a meter counted for a customer in a period.

    With a `place` of its dimensions, those whose value there is listed, or is not.
    """
    return tx.many(
        _QUERIES["page_metered"], MeteredEvent, customer_id=customer_id, meter_id=meter_id,
        since=period.start, until=period.end, after=after, size=size, place=place,
        listed=list(listed), is_listed=is_listed,
    )  # fmt: skip


def usage_marks(tx: Tx, asked: Sequence[tuple[UUID, Instant, Instant]]) -> list[Marks]:
    """Return for each (customer, instant, instant) a number for all usage before each instant."""
    rows = tx.tuples(
        _QUERIES["usage_marks"], places=list(range(len(asked))),
        customer_ids=[one[0] for one in asked], earlier=[one[1] for one in asked],
        later=[one[2] for one in asked],
    )  # fmt: skip
    found = {place: (earlier, later) for place, earlier, later in rows}
    return [found.get(place, _UNUSED) for place in range(len(asked))]
