"""Where the bench runs: the product on a database of its own, and a server on the same."""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from convergio.cli import console, opening
from convergio.cli.bench_http import PROCESSES, Server, serving
from convergio.identity import actions as identity
from convergio.identity.model import Scope
from convergio.infra import memory
from convergio.infra.scratch import BENCH, scratch
from convergio.kernel.errors import Fault
from convergio.metering import actions as metering
from convergio.simulation import bench_work
from convergio.wiring import App, dsn, opened

_POSTGRES_MAJOR: Final = 10_000


@contextmanager
def product() -> Iterator[App]:
    """Open the product on the bench's own database, with a home of its own for its keys."""
    settings = opening.settings()
    with scratch(dsn(settings), BENCH) as url, tempfile.TemporaryDirectory() as home:
        own = msgspec.structs.replace(settings, home=home, log_level="warning")
        with opened(own, url=url) as app:
            memory.settle()
            bench_work.prepare(app.database)
            yield app


@contextmanager
def served(app: App) -> Iterator[Server]:
    """Serve the same database from processes of their own, with a key that may do all."""
    with app.database.transaction() as tx:
        scopes = [Scope.USAGE_WRITE, Scope.USAGE_IMPORT, Scope.QUOTA_WRITE]
        key = identity.create(tx, name="bench", scopes=scopes, now=app.clock.now()).secret
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGIO_")}
    environment = kept | {
        "CONVERGIO_HOME": str(app.settings.home_path),
        "DATABASE_URL": app.database.dsn,
    }
    console.say(f"bench: HTTP, {PROCESSES} server processes, load from a process of its own")
    with serving(key, environment) as server:
        yield server


def check(app: App) -> None:
    """Recompute every total. Raises: Fault when the bench counted wrongly."""
    with app.database.snapshot() as tx:
        differences = metering.verify(tx)
    if differences:
        raise Fault(f"the bench counted wrongly: {differences[0]}", code="bench")


def machine(app: App) -> str:
    """Return what the figures depend on, in words; no host, no user, no path."""
    postgres = app.database.server_version() // _POSTGRES_MAJOR
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" PostgreSQL {postgres} on the same machine"
    )
