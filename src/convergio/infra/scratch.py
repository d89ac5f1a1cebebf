"""A database that is dropped and made anew, for work that must begin with nothing.

Two things keep anyone's data safe: its name always ends with `_demo`, and a database of that name
which this module did not make is left alone. One user at a time; a second one is turned away.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from convergio.kernel.errors import Conflict, Invalid, Unavailable, require

SUFFIX: Final = "_demo"
_MARK: Final = "made by convergio demo, which drops it at its next start"
_LOCK: Final = 7_303_014_612
_NAME_SIZE_MAX: Final = 63

_Connection = psycopg.Connection[tuple[Any, ...]]


@contextmanager
def scratch(dsn: str) -> Iterator[str]:
    """Make `<database>_demo` anew beside a database and return its connection string.

    It stays afterwards, for whoever wants to look around in it, until it is made the next time.
    Raises: Unavailable, Conflict, Invalid; each names the mend.
    """
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=10, application_name="convergio demo"
        )
    except psycopg.ProgrammingError:  # its text may repeat the string, password and all
        detail = "write a connection string such as postgresql://user@host/database"
        raise Invalid(detail, code="bad_settings", field="DATABASE_URL") from None
    except psycopg.Error as error:
        raise _unavailable(error) from None
    with connection:
        name = f"{connection.info.dbname}{SUFFIX}"
        try:
            _make(connection, name)
        except pg.InsufficientPrivilege:
            detail = (
                f"this role may not create the database {name}: give it CREATEDB, or unset"
                " DATABASE_URL to use the embedded server"
            )
            raise Unavailable(detail, code="no_database") from None
        except psycopg.Error as error:
            raise _unavailable(error) from None
        yield make_conninfo(dsn, dbname=name)


def _make(connection: _Connection, name: str) -> None:
    require(name.endswith(SUFFIX), "only a scratch database is dropped")
    if len(name.encode()) > _NAME_SIZE_MAX:
        detail = f"with {SUFFIX} at its end the database's name is too long; use a shorter one"
        raise Invalid(detail, code="bad_settings", field="DATABASE_URL")
    if not _one(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
        detail = "another demo runs beside this database; wait for its end"
        raise Unavailable(detail, code="busy")
    mark = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database"
    found = _one(connection, f"{mark} WHERE datname = %s", name)
    if found not in {None, _MARK}:
        detail = f"the database {name} is not the demo's own; drop or rename it, then try again"
        raise Conflict(detail, code="not_ours", field="DATABASE_URL")
    database = sql.Identifier(name)
    steps = [
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database),
        sql.SQL("CREATE DATABASE {}").format(database),
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(_MARK)),
        # nobody will miss a demo's last second, so it need not wait for the disk
        sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(database),
    ]
    for step in steps:
        connection.execute(step)


def _one(connection: _Connection, query: str, value: object) -> Any:  # noqa: ANN401 - any column
    row = connection.execute(query.encode(), [value]).fetchone()
    return row[0] if row else None


def _unavailable(error: psycopg.Error) -> Unavailable:
    said = str(error).strip().splitlines()
    detail = f"no database for the demo: {said[0] if said else type(error).__name__}"
    return Unavailable(detail, code="no_database")
