"""Let old months of events go, each when its archive is proved.

A month's archive is compared with the database event by event before anything is deleted, and the
door closes first: from then on nothing of that month is accepted, so no retry can count a deleted
event again (RULES 22, docs/adr/0007). Every step can be killed and started again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.infra.db import Database, Tx
from convergio.infra.settings import KEEP_MONTHS_MIN
from convergio.kernel.errors import Conflict, Invalid, require
from convergio.kernel.periods import Period, instant_text
from convergio.metering import records, store
from convergio.metering.archive import (
    Archive,
    Progress,
    Sums,
    first_of_month,
    month_at,
    month_text,
    part_file,
    stored_records,
    sum_stored,
    write_month,
)
from convergio.metering.model import Retention
from convergio.metering.records import Manifest, Record

DELETE_BATCH: Final = 5_000
_FIRST: Final = (UUID(int=0), UUID(int=0))


def _silent(_: int) -> None:
    """Show no progress."""


def boundary(tx: Tx) -> Retention:
    """Return the stored boundary: from when on events are taken, and before when they are gone."""
    return store.find_retention(tx)


@dataclass(frozen=True, slots=True)
class Retired:
    """A month that is archived and deleted."""

    month: str
    file: str
    rows: int
    deleted: int


def retain(
    database: Database,
    *,
    older_than_months: int,
    billed_until: datetime | None,
    folder: Path,
    form: str,
    now: datetime,
    progress: Progress = _silent,
) -> list[Retired]:
    """Archive and delete the months that ended so many months before this one began.

    `billed_until` is how far billing has come; a month in which a window ends later stays. A month
    that an earlier run began is finished first. Totals stay. Raises: Invalid for fewer than 18
    months; Conflict for a month that is not billed, or whose archive is not what was stored.
    """
    if older_than_months < KEEP_MONTHS_MIN:
        detail = f"write at least {KEEP_MONTHS_MIN}: late events and disputes need that long"
        raise Invalid(detail, code="too_young", field="--older-than-months")
    records.check_form(form)
    limit = first_of_month(now, -older_than_months)
    done: list[Retired] = []
    while (period := _next_month(database, limit)) is not None:
        records.part_in(folder, form).unlink()  # before the door closes: can we write at all?
        retention = _closed(database, period, billed_until=billed_until)
        if retention.archive_sha256 is None:
            archive = _archived(database, period, folder, form, now=now, progress=progress)
        else:
            archive = _kept(period, folder, retention.archive_sha256)
        deleted = _deleted(database, period, archive.manifest.sha256, progress)
        done.append(Retired(month_text(period), archive.path.name, archive.manifest.rows, deleted))
    return done


def _next_month(database: Database, limit: datetime) -> Period | None:
    """Return the month that is going, or else the oldest one that has events and may go."""
    with database.transaction() as tx:
        retention = store.find_retention(tx)
        if retention.deleted_until < retention.accepts_from:
            return month_at(retention.accepts_from - timedelta(microseconds=1))
        oldest = store.oldest_event(tx, since=retention.deleted_until)
    period = month_at(oldest) if oldest is not None else None
    return period if period is not None and period.end <= limit else None


def _closed(database: Database, period: Period, *, billed_until: datetime | None) -> Retention:
    """Close the door: from this commit on nothing of the month is accepted anywhere.

    Locks: the boundary, so that it waits for those who are bringing in old events just now.
    Raises: Conflict when a window of the month is not billed.
    """
    with database.transaction() as tx:
        retention = store.lock_retention(tx)
        if retention.accepts_from >= period.end:
            return retention
        last = store.last_window_end(tx, period)
        if last is not None and (billed_until is None or last > billed_until):
            until = "never" if billed_until is None else f"until {instant_text(billed_until)}"
            detail = (
                f"a usage window of {month_text(period)} ends at {instant_text(last)}, and billing "
                f"ran {until}; run `convergio bill` first"
            )
            raise Conflict(detail, code="not_billed")
        closed = replace(retention, accepts_from=period.end)
        store.save_retention(tx, closed)
    return closed


def _archived(
    database: Database,
    period: Period,
    folder: Path,
    form: str,
    *,
    now: datetime,
    progress: Progress,
) -> Archive:
    """Write the month, hold the file against the database, and note that it may go.

    The file gets its name under the boundary's lock: a run that comes second finds the note and
    leaves the file alone. Raises: Conflict when file and database differ; nothing is deleted then.
    """
    path = folder / f"usage-{month_text(period)}.{form}"
    with part_file(folder, form) as part:
        manifest = write_month(database, period, part, path.name, now=now, progress=progress)
        _compare(database, period, part, manifest, progress)
        with database.transaction() as tx:
            retention = store.lock_retention(tx)
            if retention.accepts_from != period.end or retention.archive_sha256 is not None:
                detail = "another run of the retention is at the same month; let it finish"
                raise Conflict(detail, code="retention_running")
            records.publish(part, path, manifest)
            store.save_retention(tx, replace(retention, archive_sha256=manifest.sha256))
    return Archive(path, manifest)


def _compare(
    database: Database, period: Period, part: Path, manifest: Manifest, progress: Progress
) -> None:
    """Read a written file again and compare it with the database, event by event and in sum."""
    with database.snapshot() as tx:
        sums, rows, kept = (
            Sums(catalog_actions.current(tx)),
            0,
            _each(records.reading(part)),
        )
        for portion in stored_records(tx, period):
            if list(islice(kept, len(portion))) != portion:
                raise _differs(period, "an event is not in it as it is stored")
            for one in portion:
                sums.add(one)
            rows += len(portion)
            progress(len(portion))
        meters = sum_stored(tx, period)
    if next(kept, None) is not None or rows != manifest.rows:
        raise _differs(period, "the number of events is another")
    if not sums.value() == meters == manifest.meters:
        raise _differs(period, "the sum of a meter is another")
    if records.digest(part) != manifest.sha256:
        raise _differs(period, "the file changed")


def _each(portions: Iterable[list[Record]]) -> Iterator[Record]:
    for portion in portions:
        yield from portion


def _differs(period: Period, why: str) -> Conflict:
    detail = f"the archive of {month_text(period)} is not what is stored ({why}); run it again"
    return Conflict(detail, code="archive_differs")


def _kept(period: Period, folder: Path, sha256: str) -> Archive:
    """Return the archive of a month that is going. Raises: Conflict when it is not there."""
    for form in records.FORMS:
        path = folder / f"usage-{month_text(period)}.{form}"
        if path.exists() and records.digest(path) == sha256:
            return Archive(path, records.read_manifest(path))
    detail = (
        f"the verified archive of {month_text(period)} is not in {folder}, and a part of the month "
        "may be deleted; put it back or name its folder with --out"
    )
    raise Conflict(detail, code="archive_missing", field="--out")


def _deleted(database: Database, period: Period, sha256: str, progress: Progress) -> int:
    """Delete a month's events, a batch a transaction, then say that the month is gone."""
    after, deleted = _FIRST, 0
    while True:
        with database.transaction() as tx:
            if store.share_retention(tx).archive_sha256 != sha256:
                return deleted  # another run finished the month
            keys = store.delete_events(tx, period, after=after, size=DELETE_BATCH)
        if not keys:
            break
        after, deleted = max(keys), deleted + len(keys)
        progress(len(keys))
    with database.transaction() as tx:
        retention = store.lock_retention(tx)
        if retention.archive_sha256 == sha256:
            require(not store.count_events(tx, period), "a deleted month has no events")
            gone = Retention(period.end, period.end, None)
            store.save_retention(tx, gone)
    return deleted
