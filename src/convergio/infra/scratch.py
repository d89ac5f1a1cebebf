"""A database that is dropped and made anew, for work that must begin with nothing.

Two things keep anyone's data safe: its name always ends with what it is for (`_demo`, `_bench`),
and a database of that name which this module did not make is left alone. One user at a time; a
second one is turned away.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from convergio.kernel.errors import Conflict, Invalid, Unavailable, require

SUFFIX: Final = "_demo"
COPY_SUFFIX: Final = "_copy"
_LOCK: Final = 7_303_014_612
_NAME_SIZE_MAX: Final = 63

_Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a scratch database is for: `suffix` ends its name.

    One that is not `durable` does not wait for the disk; one that is `kept` stays when its user
    is done, for whoever wants to look around in it.
    """

    suffix: str
    durable: bool
    kept: bool

    @property
    def word(self) -> str:
        """The command that uses it."""
        return self.suffix.removeprefix("_")

    @property
    def mark(self) -> str:
        """The comment by which a database is known to be this module's own."""
        return f"made by convergio {self.word}, which drops it at its next start"


DEMO: Final = Purpose(SUFFIX, durable=False, kept=True)
BENCH: Final = Purpose("_bench", durable=True, kept=False)
SIMULATE: Final = Purpose("_simulate", durable=False, kept=False)


@contextmanager
def scratch(dsn: str, purpose: Purpose = DEMO) -> Iterator[str]:
    """Make `<database><suffix>` anew beside a database and return its connection string.

    Raises: Unavailable, Conflict, Invalid; each names the mend.
    """
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=10, application_name=f"convergio {purpose.word}"
        )
    except psycopg.ProgrammingError:  # its text may repeat the string, password and all
        detail = "write a connection string such as postgresql://user@host/database"
        raise Invalid(detail, code="bad_settings", field="DATABASE_URL") from None
    except psycopg.Error as error:
        raise _unavailable(error, purpose) from None
    with connection:
        name = f"{connection.info.dbname}{purpose.suffix}"
        try:
            _make(connection, name, purpose)
        except pg.InsufficientPrivilege:
            detail = (
                f"this role may not create the database {name}: give it CREATEDB, or unset"
                " DATABASE_URL to use the embedded server"
            )
            raise Unavailable(detail, code="no_database") from None
        except psycopg.Error as error:
            raise _unavailable(error, purpose) from None
        try:
            yield make_conninfo(dsn, dbname=name)
        finally:
            if not purpose.kept:
                connection.execute(_drop(name))


@contextmanager
def copied(dsn: str, url: str, label: str) -> Iterator[str]:
    """Copy the scratch database at `url` and return the copy's connection string.

    `dsn` is where it was made from. Nobody may be connected to the scratch database meanwhile.
    The copy is dropped at the end. Raises: Unavailable.
    """
    template = str(conninfo_to_dict(url)["dbname"])
    name = f"{template}_{label}{COPY_SUFFIX}"
    copy = sql.Identifier(name)
    steps = [
        _drop(name),
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            copy, sql.Identifier(template)
        ),
        sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(copy),
    ]
    _do(dsn, steps)
    try:
        yield make_conninfo(dsn, dbname=name)
    finally:
        _do(dsn, [_drop(name)])


def _do(dsn: str, steps: Sequence[sql.Composed]) -> None:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            for step in steps:
                connection.execute(step)
    except psycopg.Error as error:
        raise _unavailable(error, SIMULATE) from None


def _make(connection: _Connection, name: str, purpose: Purpose) -> None:
    if len(name.encode()) > _NAME_SIZE_MAX:
        detail = (
            f"with {purpose.suffix} at its end the database's name is too long; use a shorter one"
        )
        raise Invalid(detail, code="bad_settings", field="DATABASE_URL")
    if not _one(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
        detail = "another demo or bench runs beside this database; wait for its end"
        raise Unavailable(detail, code="busy")
    mark = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database"
    found = _one(connection, f"{mark} WHERE datname = %s", name)
    if found not in {None, purpose.mark}:
        own = f"the {purpose.word}'s own"
        detail = f"the database {name} is not {own}; drop or rename it, then try again"
        raise Conflict(detail, code="not_ours", field="DATABASE_URL")
    database = sql.Identifier(name)
    steps = [
        _drop(name),
        sql.SQL("CREATE DATABASE {}").format(database),
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(purpose.mark)),
    ]
    if not purpose.durable:  # nobody will miss its last second
        steps.append(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(database))
    for step in steps:
        connection.execute(step)


def _drop(name: str) -> sql.Composed:
    ends = (DEMO.suffix, BENCH.suffix, SIMULATE.suffix, COPY_SUFFIX)
    require(name.endswith(ends), "only a scratch database is dropped")
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))


def _one(connection: _Connection, query: str, value: object) -> Any:  # noqa: ANN401 - any column
    row = connection.execute(query.encode(), [value]).fetchone()
    return row[0] if row else None


def _unavailable(error: psycopg.Error, purpose: Purpose) -> Unavailable:
    said = str(error).strip().splitlines()
    detail = f"no database for the {purpose.word}: {said[0] if said else type(error).__name__}"
    return Unavailable(detail, code="no_database")
