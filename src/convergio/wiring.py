"""The composition root: settings become one open product.

Everything that an edge needs is built here once: the database (embedded unless DATABASE_URL says
otherwise), its schema, the keyring, the gateways, the hot-path caches. Nothing below knows how.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from convergio.billing import actions as billing
from convergio.billing.reporting import LINES_A_DAY_MAX, Report
from convergio.catalog import actions as catalog
from convergio.crypto.actions import Keyring, open_keyring
from convergio.entitlements.actions import Gate
from convergio.identity.actions import KeyCache
from convergio.infra import log, memory, migrate, postgres
from convergio.infra.clock import Clock, SystemClock
from convergio.infra.db import Database
from convergio.infra.settings import Settings
from convergio.metering.ingest import Ingestor
from convergio.payments import actions as payments
from convergio.payments.gateways.protocol import Gateway
from convergio.payments.gateways.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class App:
    """The open product."""

    settings: Settings
    clock: Clock
    database: Database
    keyring: Keyring
    gateways: Mapping[str, Gateway]
    ingestor: Ingestor
    gate: Gate
    keys: KeyCache

    @property
    def grace(self) -> timedelta:
        """How long after a boundary a period stays open."""
        return timedelta(seconds=self.settings.billing_grace_seconds)


def dsn(settings: Settings) -> str:
    """Return where the database is; start the embedded one if no other is set."""
    if settings.database_url is not None:
        return settings.database_url.reveal()
    return postgres.start(settings.home_path / "postgres").dsn()


@contextmanager
def opened(
    settings: Settings,
    *,
    clock: Clock | None = None,
    url: str | None = None,
    migrated: bool = False,
    example: bool = True,
) -> Iterator[App]:
    """Open the product: migrate, apply the example catalog to an empty database, build the parts.

    `url` names a database other than the settings' own; `migrated` says that its schema is known
    to be the newest, as in a second worker process. `example=False` leaves an empty catalog empty,
    for whoever is about to apply one of their own.
    """
    log.configure(settings.log_level)
    settings.home_path.mkdir(mode=0o755, parents=True, exist_ok=True)
    url = url or dsn(settings)
    clock = clock or SystemClock()
    if not migrated:
        migrate.upgrade(url)
    kek = settings.kek.reveal() if settings.kek is not None else None
    keyring = open_keyring(kek=kek, file=settings.home_path / "kek", clock=clock)
    with Database(url, size_max=settings.pool_size) as database:
        if example and not migrated:
            with database.transaction() as tx:
                catalog.ensure_example(tx, now=clock.now())
        ingestor = Ingestor(database, back=timedelta(days=settings.ingest_back_days))
        memory.settle()
        yield App(
            settings=settings,
            clock=clock,
            database=database,
            keyring=keyring,
            gateways={"sandbox": Sandbox(database, clock)},
            ingestor=ingestor,
            gate=Gate(database, ingestor, hold_seconds=settings.reservation_seconds),
            keys=KeyCache(),
        )


def bill(
    app: App,
    *,
    as_of: datetime,
    now: datetime,
    dry_run: bool = False,
    progress: billing.Progress | None = None,
    workers: int | None = None,
    lines_max: int = LINES_A_DAY_MAX,
) -> Report:
    """Run the billing (`billing.actions.run`) in so many processes, or as many as are set."""
    return billing.run(
        app.database,
        as_of=as_of,
        now=now,
        seller=app.settings.seller,
        keyring=app.keyring,
        grace=app.grace,
        can_pay=payments.payable,
        dry_run=dry_run,
        progress=progress,
        workers=workers or app.settings.billing_workers or len(os.sched_getaffinity(0)),
        lines_max=lines_max,
    )
