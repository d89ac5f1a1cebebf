"""SQL of the meter: one function a query, same name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import errors as pg

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.metering.model import (
    DEFAULT_SEGMENT,
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
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime, until: datetime
) -> list[WindowRow]:
    """Return the windows that touch a stretch of time."""
    query = _QUERIES["find_windows"]
    return tx.many(query, WindowRow, customer_ids=list(customer_ids), since=since, until=until)


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
    }


def add_default_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> None:
    """Make sure that each customer has a schedule."""
    segments = _encode((DEFAULT_SEGMENT,)).decode()
    rows = [{"customer_id": each, "segments": segments} for each in sorted(customer_ids)]
    tx.run_many(_QUERIES["add_default_schedules"], rows)


def share_schedules(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Schedule]:
    """Return schedules that stay as they are until the transaction ends. Locks: them, shared."""
    return _schedules(tx, "share_schedules", customer_ids)


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


def usage_by_bucket(
    tx: Tx,
    *,
    meter_id: int,
    unit: str,
    time_zone: str,
    customer_id: UUID | None,
    since: datetime | None,
    until: datetime | None,
) -> list[Usage]:
    """Return usage in buckets of local time."""
    return tx.many(
        _QUERIES["usage_by_bucket"],
        Usage,
        meter_id=meter_id,
        unit=unit,
        time_zone=time_zone,
        customer_id=customer_id,
        since=since,
        until=until,
    )


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and the two counts of it."""

    customer_id: UUID
    meter_id: int
    start_at: datetime | None
    used: Decimal
    expected: Decimal


def differing_windows(tx: Tx) -> list[Differing]:
    """Return windows whose count is not what their events say."""
    return tx.many(_QUERIES["differing_windows"], Differing)


def lock_windows(tx: Tx, keys: Sequence[tuple[UUID, int, datetime]]) -> list[WindowRow]:
    """Return windows by their keys. Locks: them, in order."""
    return tx.many(
        _QUERIES["lock_windows"],
        WindowRow,
        customer_ids=[key[0] for key in keys],
        meter_ids=[key[1] for key in keys],
        starts=[key[2] for key in keys],
    )


def unreserve(tx: Tx, rows: Sequence[dict[str, object]]) -> int:
    """Give back what was held; return how many windows were found."""
    return tx.run_many(_QUERIES["unreserve"], rows)


def meter_totals(
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime, until: datetime
) -> list[tuple[Any, ...]]:
    """Return (customer, meter id, start, end, used) of windows inside a stretch of time."""
    query = _QUERIES["meter_totals"]
    return tx.tuples(query, customer_ids=list(customer_ids), since=since, until=until)
