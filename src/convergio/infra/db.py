"""One pool, and transactions that only the edge can open or end.

`Tx` is what stores get: it runs queries and has no `commit`. psycopg's own connection is behind
`raw`, for this package and for procrastinate. Connections time out instead of waiting for ever.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from random import SystemRandom
from typing import Any, LiteralString, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg import pq
from psycopg.rows import class_row, scalar_row
from psycopg_pool import ConnectionPool, PoolTimeout

from convergio.infra import pipe
from convergio.infra.clock import pause, stopwatch
from convergio.infra.pipe import Question
from convergio.kernel.errors import Conflict, Unavailable, require

Row = TypeVar("Row")
Raw = pipe.Connection

SETTINGS = (
    "-c timezone=UTC -c datestyle=ISO -c lock_timeout=10s -c statement_timeout=600s"
    " -c idle_in_transaction_session_timeout=120s -c jit=off"
)


def _bound(values: dict[str, object]) -> dict[str, object]:
    """Write lists of UUIDs, instants and numbers as the array text that Postgres reads.

    psycopg looks at every element of a list for characters to quote, which cost a billing run a
    fifth of its time; these have none.
    """
    for name, value in values.items():
        if type(value) is list and value:
            write = _PLAIN.get(type(value[0]))
            if write is not None:
                texts = ",".join(["NULL" if one is None else write(one) for one in value])
                values[name] = "{" + texts + "}"
    return values


_PLAIN: Mapping[type, Callable[[Any], str]] = {
    UUID: attrgetter("hex"),
    datetime: datetime.isoformat,
    Decimal: str,
    int: str,
}


_BEGUN = frozenset({pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR})
_HELD = "another change holds the same rows; try again"
_TRIES = 8
_PAUSE_SECONDS = 0.005
_PAUSE_SECONDS_MAX = 0.25
_BLOCKED_SECONDS_MAX = 15  # one lock time-out is waited for again, not eight of them
_chance = SystemRandom()


class Contended(Unavailable):
    """Two transactions met (SQLSTATE 40P01, 40001) and this one was undone: do it again at once."""


class Blocked(Unavailable):
    """A lock did not come in its time (SQLSTATE 55P03): somebody is long at the same rows."""


def stand_back(tries: int) -> None:
    """Wait before a next try, for a time of chance that grows: two that met do not meet again."""
    pause(_chance.uniform(0, min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS * 2**tries)))


class AlreadyThere(Exception):
    """A row with the same key is stored."""


class Overlapping(Conflict):
    """A time overlaps one that is stored (SQLSTATE 23P01)."""


class Tx:
    """An open transaction."""

    __slots__ = ("__weakref__", "raw")  # weakly referred to by caches that outlive it

    def __init__(self, raw: Raw) -> None:
        """Wrap the connection whose transaction the edge has begun."""
        self.raw = raw

    def many(self, query: LiteralString, row: type[Row], **values: object) -> list[Row]:
        """Return every row, as `row(**columns)`."""
        with self.raw.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(query, _bound(values)).fetchall()

    def one(self, query: LiteralString, row: type[Row], **values: object) -> Row | None:
        """Return the first row, or None."""
        with self.raw.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(query, _bound(values)).fetchone()

    def value(self, query: LiteralString, **values: object) -> Any:  # noqa: ANN401 - any column
        """Return the first column of the first row, or None."""
        with self.raw.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(query, _bound(values)).fetchone()

    def tuples(self, query: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        """Return every row as a tuple: for bulk reads whose rows are unpacked at once."""
        with self.raw.cursor() as cursor:
            return cursor.execute(query, _bound(values)).fetchall()

    def planned(self, query: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        """Return every row, of a plan for these very values: where one for any would be bad.

        The server keeps a plan for any values once it looks cheaper, and to it an array has ten.
        """
        with self.raw.cursor() as cursor:
            return cursor.execute(query, _bound(values), prepare=False).fetchall()

    def stream(
        self, name: str, query: LiteralString, *, size: int = 5000, **values: object
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows as tuples from a server-side cursor, with flat memory."""
        with self.raw.cursor(name=name) as cursor:
            cursor.itersize = size
            yield from cursor.execute(query, values)

    def placed(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run a query with the server's places `$1` (see `sql.repeated`) and return its rows."""
        with psycopg.RawCursor(self.raw) as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def run(self, query: LiteralString, **values: object) -> int:
        """Run a statement; return how many rows it touched."""
        return self.raw.execute(query, _bound(values)).rowcount

    def run_many(self, query: LiteralString, rows: Sequence[Mapping[str, object]]) -> int:
        """Run a statement once a row, pipelined; return how many rows were touched in all."""
        if not rows:
            return 0
        with self.raw.cursor() as cursor:
            if len(rows) == 1:  # a pipeline for one costs five times as much
                cursor.execute(query, rows[0])
            else:
                cursor.executemany(query, rows)
            return cursor.rowcount

    def copy(
        self,
        statement: LiteralString,
        rows: Iterable[Sequence[object]],
        *,
        types: Sequence[str] = (),
    ) -> None:
        """Load rows with `COPY table (columns) FROM STDIN`.

        With the `types` of the columns the statement ends with `(FORMAT BINARY)`, which costs half
        of it on both sides. A `jsonb` is then a `bytea`: the version, 1, and the text.
        """
        with self.raw.cursor() as cursor, cursor.copy(statement) as copy:
            if types:
                copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def copy_bytes(self, statement: LiteralString, data: bytes | bytearray) -> None:
        """Load a ready-made buffer with `COPY ... FROM STDIN (FORMAT BINARY)`."""
        with self.raw.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(data)

    def together(self, *questions: Question[Any], commit: bool = False) -> list[Any]:
        """Ask several things in one round trip; return what each one read (see `pipe`).

        With `commit` the transaction ends in the same round trip: nothing may follow. Raises:
        AlreadyThere; the transaction must then be given up.
        """
        is_first = self.raw.pgconn.transaction_status == pq.TransactionStatus.IDLE
        asked = [*((pipe.BEGIN,) if is_first else ()), *questions]
        try:
            found = pipe.ask(self.raw, [*asked, pipe.COMMIT] if commit else asked)
        except pg.UniqueViolation as error:
            raise AlreadyThere from error
        return found[is_first : is_first + len(questions)]

    def stop_after(self, seconds: int) -> None:
        """Let no statement of the rest of this transaction run longer than so many seconds.

        One that does ends the transaction as Unavailable, code `too_slow`.
        """
        self.raw.execute("SELECT set_config('statement_timeout', %s, true)", [f"{seconds}s"])

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run a block that may fail without losing the transaction.

        Raises: Unavailable, also for another transaction that it met; anything else as it is.
        """
        is_begun = self.raw.pgconn.transaction_status != pq.TransactionStatus.IDLE
        require(is_begun, "a savepoint is inside a transaction")
        with _unavailable(), _forgetful(self.raw), self.raw.transaction():
            yield


class Database:
    """A pool of connections to one Postgres."""

    def __init__(self, dsn: str, *, size_max: int = 8, application: str = "convergio") -> None:
        """Prepare the pool; connections open on first use.

        Raises: Unavailable when a transaction is asked for and no server answers.
        """
        self.dsn = dsn
        self._pool: ConnectionPool[Raw] = ConnectionPool(
            dsn,
            connection_class=pipe.Connection,
            min_size=0,
            max_size=size_max,
            open=False,
            timeout=20,
            reconnect_timeout=20,
            kwargs={"options": SETTINGS, "application_name": application, "connect_timeout": 10},
        )
        self._opened = False

    def __enter__(self) -> Self:
        """Open the pool."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def open(self) -> None:
        """Open the pool; harmless when it is open."""
        if not self._opened:
            self._pool.open()
            self._opened = True

    def close(self) -> None:
        """Close every connection."""
        if self._opened:
            self._pool.close()
            self._opened = False

    def server_version(self) -> int:
        """Return the server's version as a number: 150018 for 15.18. Raises: Unavailable."""
        with self.transaction() as tx:
            return tx.raw.info.server_version

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """Open one read-only transaction that sees one moment throughout. Raises: Unavailable."""
        with self.transaction() as tx:
            tx.raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield tx

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Open one transaction: committed at the end of the block, rolled back by any exception.

        Raises: Unavailable when no connection can be had or the server goes away, and for a
        deadlock or a lock that did not come: nothing was done, try again. A connection that is
        lost in COMMIT itself also ends here: whether it took effect is for the caller's own key
        (event id, idempotency key) to find out on the next try, which is safe by design.
        """
        self.open()
        with _translated(), self._pool.connection() as raw, _forgetful(raw), raw.transaction():
            yield Tx(raw)

    def insist(self, work: Callable[[Tx], Row]) -> Row:
        """Return what `work` does in a transaction of its own; again when it met another one.

        The one place where that is done again: eight tries in all where each ends in a deadlock or
        a serialization failure, with pauses of chance length, so that two do not meet twice; and no
        new one after 15 seconds where a lock does not come. `work` may run several times, each
        from the start: what it keeps outside must bear that. Raises: Unavailable.
        """
        begun = stopwatch()
        for number in range(_TRIES - 1):
            try:
                with self.transaction() as tx:
                    return work(tx)
            except Contended:
                pass
            except Blocked:
                if stopwatch() - begun > _BLOCKED_SECONDS_MAX:
                    raise
            stand_back(number)
        with self.transaction() as tx:
            return work(tx)

    @contextmanager
    def pipelined(self) -> Iterator[Tx]:
        """Open a transaction that begins with its first statement, for `Tx.together`.

        It saves the round trip of BEGIN, and `together(commit=True)` that of COMMIT. Otherwise as
        `transaction`.
        """
        self.open()
        with _translated(), self._pool.connection() as raw:
            try:
                yield Tx(raw)
            except BaseException:
                if raw.pgconn.transaction_status in _BEGUN:  # psycopg's own drops all plans
                    pipe.ask(raw, [pipe.ROLLBACK])
                raise


@contextmanager
def _forgetful(raw: Raw) -> Iterator[None]:
    """Forget what was prepared when the driver rolls back: it drops all of it then."""
    try:
        yield
    except BaseException:
        pipe.forget(raw)
        raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the driver raises into the house's errors."""
    try:
        with _unavailable():
            yield
    except pg.ExclusionViolation as error:
        raise Overlapping(f"it overlaps what is stored ({_name(error)})") from error


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn what is of the moment, and not of the rows, into Unavailable."""
    try:
        yield
    except PoolTimeout:
        raise Unavailable("no database connection is free; try again", code="busy") from None
    except (pg.DeadlockDetected, pg.SerializationFailure, pipe.Unprepared) as error:
        raise Contended(_HELD, code="contended") from error
    except pg.LockNotAvailable as error:
        raise Blocked(_HELD, code="contended") from error
    except pg.QueryCanceled as error:
        detail = "this took too long and was stopped; ask for less at once"
        raise Unavailable(detail, code="too_slow") from error
    except pg.DiskFull as error:
        detail = "the database has no disk space left; free some and try again"
        raise Unavailable(detail, code="no_disk") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable("the database is not there; try again", code="no_database") from error


def _name(error: psycopg.Error) -> str:
    """Name the constraint only: Postgres's own text may hold the row's values."""
    return error.diag.constraint_name or "constraint"
