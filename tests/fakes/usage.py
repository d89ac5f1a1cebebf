"""Send events and look at what was counted, in one line each."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event, Segment
from tests.fakes.meters import NOW

JANUARY = datetime(2025, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2025, 2, 1, tzinfo=UTC)


def with_catalog(database: Database, source: bytes | None = None) -> None:
    """Apply the example catalog, or another one."""
    with database.transaction() as tx:
        if source is None:
            catalog.ensure_example(tx, now=NOW)
        else:
            catalog.apply(tx, source, now=NOW)


def make(database: Database, *keys: str) -> list[UUID]:
    """Make customers and return their ids in order."""
    with database.transaction() as tx:
        made = customers.create_many(tx, keys, now=NOW)
    return [made[key] for key in keys]


def send(
    ingestor: Ingestor, *events: Event, now: datetime = NOW, importing: bool = False
) -> list[str]:
    """Count events in one batch and return what became of each."""
    verdicts = ingestor.ingest(events, now=now, importing=importing)
    return [str(verdict.reason or verdict.status) for verdict in verdicts]


def lay(database: Database, customer_id: UUID, segment: Segment, now: datetime = NOW) -> None:
    """Let a customer's windows follow a segment."""
    with database.transaction() as tx:
        metering.set_schedule(tx, customer_id, segment, now=now)


def totals(database: Database, customer_id: UUID, meter: str = "questions") -> dict[datetime, str]:
    """Return what the windows of a meter hold, by their start; empty ones are left out."""
    query = (
        b"SELECT t.start_at, trim_scale(t.used)::text"
        b" FROM usage_total t JOIN meter USING (meter_id)"
        b" WHERE customer_id = %s AND meter_key = %s AND used > 0 ORDER BY 1"
    )
    with database.transaction() as tx:
        return dict(tx.raw.execute(query, [customer_id, meter]).fetchall())


def counted(database: Database, customer_ids: Sequence[UUID], meter: str = "questions") -> Decimal:
    """Return the sum over all windows of a meter."""
    query = (
        b"SELECT coalesce(sum(used), 0) FROM usage_total JOIN meter USING (meter_id)"
        b" WHERE customer_id = ANY(%s) AND meter_key = %s"
    )
    with database.transaction() as tx:
        row = tx.raw.execute(query, [list(customer_ids), meter]).fetchone()
    return Decimal(row[0]) if row else Decimal(0)


def stored(database: Database) -> int:
    """Return how many events are kept."""
    with database.transaction() as tx:
        row = tx.raw.execute(b"SELECT count(*) FROM usage_event").fetchone()
    return int(row[0]) if row else 0


def differences(database: Database) -> list[str]:
    """Return what `verify` finds wrong with the totals."""
    with database.transaction() as tx:
        return [str(one) for one in metering.verify(tx)]
