"""Bring a database to the newest revision: forward only, one runner at a time.

Each revision is a plain SQL file that runs in one transaction under a session advisory lock, with
time-outs, so that a migration that cannot get its locks gives up instead of stopping the product.
"""

from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command, op
from alembic.config import Config
from psycopg import errors as pg
from sqlalchemy import Connection, text

from convergio.infra import sql
from convergio.infra.db import Database
from convergio.kernel.errors import Unavailable

_FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 7_303_014_611
_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
NEWEST: Final = "0015"


def opened(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open the runner's connection."""
    return psycopg.connect(dsn, connect_timeout=10, application_name="convergio migrate")


def guarded(connection: Connection) -> None:
    """Set the time-outs and take the lock for this session. Raises: Unavailable."""
    limits = (
        "SELECT set_config('lock_timeout', '5s', false),"
        " set_config('statement_timeout', '60s', false),"
        " set_config('idle_in_transaction_session_timeout', '60s', false)"
    )
    connection.execute(text(limits))
    connection.execute(text("SELECT set_config('lock_timeout', '60s', false)"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text("SELECT set_config('lock_timeout', '5s', false)"))
    connection.commit()


def run_sql(script: bytes) -> None:
    """Send a script as it stands, so that `%`, `:name` and `$$` survive."""
    driver = op.get_bind().connection.driver_connection
    if driver is not None:
        driver.execute(script)


def run_sql_beside(revision_file: str) -> None:
    """Run the SQL file that has the revision's name."""
    run_sql(Path(revision_file).with_suffix(".sql").read_bytes())


def upgrade(dsn: str) -> None:
    """Run every revision that the database lacks. Raises: Unavailable."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["dsn"] = dsn
    try:
        command.upgrade(config, "head")
    except pg.LockNotAvailable:
        detail = "another migration holds the lock; wait for it and try again"
        raise Unavailable(detail, code="migrating") from None
    except psycopg.OperationalError as error:
        detail = f"cannot migrate: {str(error).splitlines()[0]}"
        raise Unavailable(detail, code="no_database") from None


def revision(database: Database) -> str | None:
    """Return the revision the database is at, or None for an empty one."""
    try:
        with database.transaction() as tx:
            found = tx.value(_QUERIES["schema_version"])
    except pg.UndefinedTable:
        return None
    return str(found) if found else None
