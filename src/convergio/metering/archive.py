"""Take a month of events out to a file, and bring such a file in again.

A month leaves in one snapshot with flat memory; what its manifest says is added up by Postgres.
A file is read from end to end before the first of its events is counted, and is counted by the
hot path itself: so it is idempotent, and the same rules hold.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Catalog
from convergio.customers import actions as customer_actions
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.periods import Period, instant_text
from convergio.kernel.quantity import quantity_text
from convergio.metering import intake, records, rules, store
from convergio.metering.ingest import Ingestor
from convergio.metering.model import CORRECTIONS, Event, Verdict
from convergio.metering.records import Manifest, MeterSum, Record

_PORTION: Final = 5_000
_KEYS_MAX: Final = 100_000
_MONTH: Final = re.compile(r"(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])", re.ASCII)
_data: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
Progress = Callable[[int], None]


def month(text: str, *, field: str = "--month") -> Period:
    """Return a calendar month in UTC, written as 2024-11. Raises: Invalid naming the field."""
    found = _MONTH.fullmatch(text)
    if found is None:
        raise Invalid("write a month such as 2024-11", code="bad_month", field=field)
    return month_at(datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC))


def month_at(moment: datetime) -> Period:
    """Return the calendar month in UTC that holds a moment."""
    return Period(first_of_month(moment, 0), first_of_month(moment, 1))


def first_of_month(moment: datetime, months: int) -> datetime:
    """Return the start of the UTC month so many months after that of the moment."""
    there = moment.astimezone(UTC)
    year, month0 = divmod(there.year * 12 + there.month - 1 + months, 12)
    return datetime(year, month0 + 1, 1, tzinfo=UTC)


def month_text(period: Period) -> str:
    """Return a month as 2024-11."""
    return f"{period.start:%Y-%m}"


def size(tx: Tx, period: Period) -> int:
    """Return how many events occurred in a period."""
    return store.count_events(tx, period)


class Sums:
    """What each meter selects of records, added up here as the hot path measures it."""

    def __init__(self, catalog: Catalog) -> None:
        """Start at nothing."""
        self._plans = {one.name: one.meters for one in intake.event_types(catalog).values()}
        self._events: Counter[str] = Counter()
        self._nanos: Counter[str] = Counter()

    def add(self, one: Record) -> None:
        """Add a record as it counts since it was corrected. Raises: Invalid for broken JSON."""
        plans = self._plans.get(one.type)
        if not plans or one.counts_as == records.VOID:
            return
        data = _decoded(one.counts_as or one.properties)
        for meter in plans:
            quantity = meter.measure(data)
            if quantity is not None and quantity != rules.BAD_VALUE:
                self._events[meter.key] += 1
                self._nanos[meter.key] += quantity

    def value(self) -> dict[str, MeterSum]:
        """Return the sums of the meters that selected anything."""
        return {
            key: MeterSum(self._events[key], quantity_text(rules.nanos_decimal(self._nanos[key])))
            for key in sorted(self._events)
        }


def _decoded(text: str) -> dict[str, Any]:
    try:
        return _data.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        detail = "the properties of an event are not JSON; get the original"
        raise Invalid(detail, code="broken_file", field="properties") from None


def sum_stored(tx: Tx, period: Period) -> dict[str, MeterSum]:
    """Return the same sums as Postgres computes them: the slow, independent way."""
    return {
        key: MeterSum(events, quantity_text(quantity))
        for key, events, quantity in store.sum_meters(tx, period)
    }


def stored_records(tx: Tx, period: Period) -> Iterator[list[Record]]:
    """Yield a month's records in portions, in the order of customer and event."""
    keys: dict[UUID, str] = {}
    rows = store.stream_events(tx, period)
    while portion := list(islice(rows, _PORTION)):
        if len(keys) > _KEYS_MAX:
            keys.clear()
        unseen = {row[0] for row in portion} - keys.keys()
        found = customer_actions.get_many(tx, sorted(unseen)) if unseen else {}
        keys.update({one.customer_id: one.customer_key for one in found.values()})
        yield [Record(keys[row[0]], *row[1:]) for row in portion]


@dataclass(frozen=True, slots=True)
class Archive:
    """A finished file and what vouches for it."""

    path: Path
    manifest: Manifest


def export(
    database: Database,
    period: Period,
    *,
    folder: Path,
    form: str,
    now: datetime,
    is_replacing: bool = False,
    progress: Progress,
) -> Archive:
    """Write a month's events to a file, and its manifest beside it.

    One snapshot, a server-side cursor, flat memory. Raises: Conflict when the file is there, or
    when the month's events are archived and gone; OSError.
    """
    path = folder / f"usage-{month_text(period)}.{records.check_form(form)}"
    with database.snapshot() as tx:
        gone = store.find_retention(tx).gone_before
        if period.start < gone:
            detail = f"events before {instant_text(gone)} are archived and deleted; use the archive"
            raise Conflict(detail, code="archived", field="--month")
    if path.exists() and not is_replacing:
        raise Conflict(f"{path} is there; move it away", code="file_exists", field="--out")
    with part_file(folder, form) as part:
        manifest = write_month(database, period, part, path.name, now=now, progress=progress)
        records.publish(part, path, manifest)
    return Archive(path, manifest)


@contextmanager
def part_file(folder: Path, form: str) -> Iterator[Path]:
    """Give the block a file to write to, which is gone afterwards unless it got its name."""
    part = records.part_in(folder, form)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def write_month(
    database: Database,
    period: Period,
    part: Path,
    name: str,
    *,
    now: datetime,
    progress: Progress,
) -> Manifest:
    """Write a month to a file in one snapshot; return what vouches for it."""
    rows = 0
    with database.snapshot() as tx, records.writing(part) as write:
        for portion in stored_records(tx, period):
            write(portion)
            rows += len(portion)
            progress(len(portion))
        meters = sum_stored(tx, period)
    return Manifest(
        schema=records.SCHEMA,
        month=month_text(period),
        file=name,
        rows=rows,
        bytes=part.stat().st_size,
        sha256=records.digest(part),
        meters=meters,
        exported_at=instant_text(now),
    )


def check(database: Database, path: Path, *, progress: Progress) -> Archive:
    """Read a whole file and hold it against its manifest and against what is here.

    Nothing is counted. Raises: Invalid for a file that is not what its manifest says or that
    breaks; Conflict when the month is closed, or customers, types or meters are not the same here.
    """
    records.form_of(path)
    manifest = records.read_manifest(path)
    period = month(manifest.month, field="month")
    records.check_bytes(path, manifest)
    with database.transaction() as tx:
        catalog = catalog_actions.current(tx)
        closed = store.find_retention(tx).accepts_from
    if period.start < closed:
        detail = f"nothing that occurred before {instant_text(closed)} is accepted any more"
        raise Conflict(detail, code="time_too_old", field=path.name)
    sums, rows, known = Sums(catalog), 0, set(catalog.event_types) | CORRECTIONS
    for portion in records.reading(path):
        for one in portion:
            if one.type not in CORRECTIONS and not period.contains(one.occurred_at):
                raise _mismatch(path, "an event lies outside its month")
            sums.add(one)
        _check_known(database, path, portion, known)
        rows += len(portion)
        progress(len(portion))
    if rows != manifest.rows:
        raise _mismatch(path, f"the file has {rows} rows, the manifest says {manifest.rows}")
    _check_sums(path, sums.value(), manifest.meters)
    return Archive(path, manifest)


def _mismatch(path: Path, why: str) -> Invalid:
    return Invalid(f"{why}; get the original", code="manifest_mismatch", field=path.name)


def _check_sums(path: Path, here: Mapping[str, MeterSum], there: Mapping[str, MeterSum]) -> None:
    """Refuse a file of which a meter of the manifest has another sum here; new meters may."""
    for key, expected in there.items():
        found = here.get(key, MeterSum(0, "0"))
        if found != expected:
            detail = (
                f"the meter '{key}' adds it up to {found.quantity} here and to "
                f"{expected.quantity} where it was exported; apply that catalog first"
            )
            raise Conflict(detail, code="other_catalog", field=path.name)


def _check_known(
    database: Database, path: Path, portion: Iterable[Record], types: set[str]
) -> None:
    """Refuse records whose customer or type is not here. Raises: Conflict."""
    kind = next((one.type for one in portion if one.type not in types), None)
    if kind is not None:
        detail = f"the catalog has no event type '{kind[:60]}'; apply the catalog first"
        raise Conflict(detail, code="unknown_type", field=path.name)
    keys = {one.customer for one in portion}
    with database.transaction() as tx:
        missing = keys - customer_actions.ids_by_key(tx, keys).keys()
    if missing:
        detail = f"there is no customer '{min(missing)[:60]}' here; make the customers first"
        raise Conflict(detail, code="unknown_customer", field=path.name)


@dataclass(slots=True)
class Tally:
    """What became of the events of an import so far; right also after an exception."""

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def bring_in(
    ingestor: Ingestor, archive: Archive, *, now: datetime, tally: Tally, progress: Progress
) -> None:
    """Count a checked file's events, a batch a transaction; what was counted is a duplicate.

    Raises: Unavailable, and Invalid when the file changed since it was checked; the tally says
    what is committed and stays.
    """
    for portion in records.reading(archive.path):
        events = [_event(one) for one in portion]
        for verdict in ingestor.ingest(events, now=now, importing=True):
            _tell(tally, verdict)
        progress(len(portion))


def _event(one: Record) -> Event:
    return Event(
        id=one.id,
        source=one.source,
        type=one.type,
        subject=one.customer,
        time=one.occurred_at,
        data=_decoded(one.properties),
    )


def _tell(tally: Tally, verdict: Verdict) -> None:
    tally.accepted += verdict.status == "accepted"
    tally.duplicate += verdict.status == "duplicate"
    if verdict.status not in {"accepted", "duplicate"}:
        tally.refused += 1
        tally.reasons[f"{verdict.reason}: {verdict.detail}"[:200]] += 1
