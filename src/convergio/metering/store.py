"""SQL of the meter: one function a query, same name."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from psycopg import errors as pg

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.kernel.errors import Fault
from convergio.kernel.periods import Period
from convergio.metering.model import (
    DEFAULT_SEGMENT,
    Correction,
    MeteredEvent,
    Retention,
    Schedule,
    Segment,
    StoredEvent,
    Usage,
    WindowRow,
)
from convergio.metering.rules import portions

_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_segments: Final = msgspec.json.Decoder(tuple[Segment, ...])
_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


class Span(NamedTuple):
    """The windows of a customer that start in `[since, until)`, of one meter or of all."""

    customer_id: UUID
    since: datetime
    until: datetime
    meter_id: int | None = None


class Moved(NamedTuple):
    """A window's new total."""

    customer_id: UUID
    meter_id: int
    start_at: datetime
    dimensions: str
    used: Decimal


class HasDuplicates(Exception):
    """The COPY met an event that is already there; the transaction is lost."""


def copy_events(tx: Tx, rows: Sequence[bytes]) -> None:
    """Load prepared rows. Raises: HasDuplicates; the transaction must then be given up."""
    data = b"".join((_SIGNATURE, *rows, _TRAILER))
    try:
        tx.copy_bytes(_QUERIES["copy_events"], data)
    except pg.UniqueViolation:
        raise HasDuplicates from None


def insert_new_events(tx: Tx, rows: Sequence[Sequence[object]]) -> set[tuple[UUID, UUID]]:
    """Insert what is not there yet; return the keys of what was new."""
    return {(row[0], row[1]) for row in _in_portions(tx, "insert_new_events", rows)}


def compare_events(tx: Tx, rows: Sequence[Sequence[object]]) -> dict[tuple[UUID, UUID], bool]:
    """Return for each stored event whether its payload is the same."""
    return {(row[0], row[1]): row[2] for row in _in_portions(tx, "compare_events", rows)}


def add_to_totals(tx: Tx, rows: Sequence[Sequence[object]]) -> int:
    """Add to windows; return how many still had the version that the caller knew."""
    return len(_in_portions(tx, "add_to_totals", rows))


def add_to_watched_totals(tx: Tx, rows: Sequence[Sequence[object]]) -> list[Moved]:
    """Add to windows; return the new totals of those that still had the known version."""
    return [Moved(*row) for row in _in_portions(tx, "add_to_watched_totals", rows)]


def raise_totals(tx: Tx, rows: Sequence[Sequence[object]]) -> list[Moved]:
    """Raise windows of max meters; return as `add_to_watched_totals`."""
    return [Moved(*row) for row in _in_portions(tx, "raise_totals", rows)]


def set_totals(tx: Tx, rows: Sequence[Sequence[object]]) -> list[Moved]:
    """Set windows of last meters; return as `add_to_watched_totals`."""
    return [Moved(*row) for row in _in_portions(tx, "set_totals", rows)]


def add_unique_values(
    tx: Tx, rows: Sequence[Sequence[object]]
) -> list[tuple[UUID, int, datetime, str]]:
    """Remember values; return the window of each that is new, once a value."""
    return [(row[0], row[1], row[2], row[3]) for row in _in_portions(tx, "add_unique_values", rows)]


def raise_alerts(tx: Tx, rows: Sequence[Sequence[object]]) -> set[tuple[UUID, int, datetime, str]]:
    """Note alerts; return those that nobody noted before."""
    return {(row[0], row[1], row[2], row[3]) for row in _in_portions(tx, "raise_alerts", rows)}


def reserve(tx: Tx, rows: Sequence[Sequence[object]]) -> set[tuple[UUID, int, datetime]]:
    """Hold quantities; return the windows in which all that was asked for fitted."""
    return {(row[0], row[1], row[2]) for row in _in_portions(tx, "reserve", rows)}


def _in_portions(tx: Tx, name: str, rows: Sequence[Sequence[object]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start, end in portions(len(rows)):
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
        _QUERIES["find_windows"],
        WindowRow,
        customer_ids=list(customer_ids),
        groups=["", *groups],
        since=since,
        until=until,
    )


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
    return {
        "customer_id": row.customer_id,
        "meter_id": row.meter_id,
        "start_at": row.start_at,
        "end_at": row.end_at,
        "version": row.version,
        "used": row.used,
        "quota_limit": row.quota_limit,
        "included": row.included,
        "dimensions": row.dimensions,
        "alerts": list(row.alerts),
    }


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
    return {row[0]: Schedule(row[1], _segments.decode(_encode(row[2]))) for row in rows}


def save_schedule(tx: Tx, schedules: dict[UUID, Schedule]) -> None:
    """Store changed schedules."""
    rows = [
        {
            "customer_id": customer_id,
            "version": schedule.version,
            "segments": _encode(schedule.segments).decode(),
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
    rows = tx.tuples(
        _QUERIES["count_groups"],
        customer_ids=[key[0] for key in windows],
        meter_ids=[key[1] for key in windows],
        starts=[key[2] for key in windows],
    )
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
    tx.run(
        _QUERIES["save_correction"],
        customer_id=correction.customer_id,
        event_key=correction.event_key,
        kind=correction.kind,
        properties=_encode(correction.properties).decode(),
        corrected_at=correction.corrected_at,
        correction_key=correction.correction_key,
    )


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
        _QUERIES["usage_by_bucket"],
        Usage,
        meter_id=meter_id,
        aggregation=aggregation,
        unit=unit,
        time_zone=time_zone,
        customer_id=customer_id,
        since=since,
        until=until,
        by_group=by_group,
        after_start=after[0] if after else None,
        after_dimensions=after[1] if after else "",
        size=size,
    )


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and the two counts of it."""

    customer_id: UUID
    meter_id: int
    start_at: datetime | None
    used: Decimal
    expected: Decimal


def differing_windows(tx: Tx, *, gone_before: datetime) -> list[Differing]:
    """Return windows whose count is not what their events say, as far as these are kept."""
    return tx.many(_QUERIES["differing_windows"], Differing, gone_before=gone_before)


def lock_windows(tx: Tx, keys: Sequence[tuple[UUID, int, datetime]]) -> list[WindowRow]:
    """Return windows by their keys. Locks: them, in order."""
    return tx.many(
        _QUERIES["lock_windows"],
        WindowRow,
        customer_ids=[key[0] for key in keys],
        meter_ids=[key[1] for key in keys],
        starts=[key[2] for key in keys],
    )


def lock_window_at(tx: Tx, customer_id: UUID, meter_id: int, moment: datetime) -> WindowRow | None:
    """Return the window that holds an instant. Locks: it."""
    query = _QUERIES["lock_window_at"]
    return tx.one(query, WindowRow, customer_id=customer_id, meter_id=meter_id, moment=moment)


def unreserve(tx: Tx, rows: Sequence[dict[str, object]]) -> int:
    """Give back what was held; return how many windows were found."""
    return tx.run_many(_QUERIES["unreserve"], rows)


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


def lock_retention(tx: Tx) -> Retention:
    """Return the boundary, to move it. Locks: it."""
    return _retention(tx.one(_QUERIES["lock_retention"], Retention))


def _retention(found: Retention | None) -> Retention:
    if found is None:
        raise Fault("the retention boundary has its row")
    return found


def save_retention(tx: Tx, retention: Retention) -> None:
    """Store a moved boundary."""
    tx.run(
        _QUERIES["save_retention"],
        accepts_from=retention.accepts_from,
        deleted_until=retention.deleted_until,
        archive_sha256=retention.archive_sha256,
    )


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
        _QUERIES["delete_events"],
        after_customer=after[0],
        after_key=after[1],
        since=period.start,
        until=period.end,
        size=size,
    )
    return [(customer_id, event_key) for customer_id, event_key in rows]


def page_metered(
    tx: Tx, customer_id: UUID, meter_id: int, period: Period, *, after: UUID, size: int
) -> list[MeteredEvent]:
    """Return the next events, by key, that a meter counted for a customer in a period."""
    return tx.many(
        _QUERIES["page_metered"],
        MeteredEvent,
        customer_id=customer_id,
        meter_id=meter_id,
        since=period.start,
        until=period.end,
        after=after,
        size=size,
    )


def usage_marks(tx: Tx, asked: Sequence[tuple[UUID, datetime]]) -> list[Decimal]:
    """Return for each (customer, instant) one number for all usage before it, in their order."""
    rows = tx.tuples(
        _QUERIES["usage_marks"],
        places=list(range(len(asked))),
        customer_ids=[customer_id for customer_id, _ in asked],
        untils=[until for _, until in asked],
    )
    found = dict(rows)
    return [found[place] for place in range(len(asked))]
