"""A database with two months of awkward events, and archives of them in one line each."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from convergio.infra.db import Database
from convergio.kernel.periods import Period
from convergio.metering import archive, retention
from convergio.metering.archive import Archive, Tally
from convergio.metering.ingest import Ingestor
from convergio.metering.model import AMEND, VOID, Event
from tests.fakes import usage
from tests.fakes.meters import event

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOVEMBER = archive.month("2024-11")
DECEMBER = archive.month("2024-12")
CUSTOMERS = ("acme", "=cmd|calc", '\'quoted, "key"', "ünïcode\u2603")


def nothing(steps: int) -> None:
    """Show no progress."""


def at(day: int, microsecond: int = 0, *, month: int = 11) -> datetime:
    """Return an instant late on a day of 2024."""
    return datetime(2024, month, day, 23, 59, 59, microsecond, tzinfo=UTC)


def awkward(key: str) -> list[Event]:
    """Return a customer's events of November and December, with what breaks careless files."""
    return [
        event("=1+1", subject=key, source="@src", time=at(1), data={"quantity": Decimal("0.1")}),
        event("-2", subject=key, time=at(2, 123456), data={"quantity": "123456789.000000001"}),
        event('a "b", c', subject=key, time=at(30, 999_999), data={"model": "=SUM(A1)"}),
        event("nl", subject=key, time=at(3), data={"model": "two\nlines\t,", "images": 2}),
        event("'q", subject=key, time=at(4), data={"status": "failed", "quantity": 7}),
        event("none", subject=key, time=datetime(2024, 11, 1, tzinfo=UTC)),
        event("dec", subject=key, time=datetime(2024, 12, 1, tzinfo=UTC), data={"quantity": 40}),
    ]


def filled(database: Database, *, keys: tuple[str, ...] = CUSTOMERS) -> dict[str, UUID]:
    """Apply the example catalog, make customers, count the awkward events of all of them."""
    ids = bare(database, keys=keys)
    ingestor = Ingestor(database)
    for key in keys:
        answers = usage.send(ingestor, *awkward(key), now=NOW, importing=True)
        assert set(answers) == {"accepted"}, answers
    return ids


def bare(database: Database, *, keys: tuple[str, ...] = CUSTOMERS) -> dict[str, UUID]:
    """Apply the example catalog and make the customers only."""
    usage.with_catalog(database)
    return dict(zip(keys, usage.make(database, *keys), strict=True))


def corrected(database: Database, key: str) -> None:
    """Void one event of November and amend another, in December."""
    answers = usage.send(
        Ingestor(database),
        event("v1", subject=key, type=VOID, time=at(9, month=12), data={"id": "-2"}),
        event(
            "a1",
            subject=key,
            type=AMEND,
            time=at(9, month=12),
            data={"id": "nl", "data": {"quantity": "2.5"}},
        ),
        now=NOW,
        importing=True,
    )
    assert answers == ["accepted", "accepted"]


def exported(
    database: Database, folder: Path, form: str = "csv", period: Period = NOVEMBER
) -> Archive:
    """Export a month."""
    return archive.export(database, period, folder=folder, form=form, now=NOW, progress=nothing)


def imported(database: Database, path: Path) -> Tally:
    """Check a file and count it."""
    tally = Tally()
    checked = archive.check(database, path, progress=nothing)
    archive.bring_in(Ingestor(database), checked, now=NOW, tally=tally, progress=nothing)
    return tally


def retained(
    database: Database,
    folder: Path,
    *,
    months: int = 18,
    billed_until: datetime | None = NOW,
    progress: Callable[[int], None] = nothing,
) -> list[retention.Retired]:
    """Let old months go."""
    return retention.retain(
        database,
        older_than_months=months,
        billed_until=billed_until,
        folder=folder,
        form="csv.gz",
        now=NOW,
        progress=progress,
    )
