"""Statements that travel together: one round trip for several, on psycopg's own connection.

psycopg's pipeline mode spares the server's waiting, and costs four times the work of a plain round
trip in this process. The hot path asks the same few questions thousands of times a second, so it
speaks to libpq itself: statements are prepared once a connection, values go as ready-made bytes,
rows come back as the bytes that the server wrote. Everything else belongs to psycopg.
"""

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg
from psycopg import errors, pq

Answer = TypeVar("Answer")
Values = tuple[bytes | None, ...]
_FAILED: Final = frozenset({pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE})
_LOST: Final = "the connection was lost"


@dataclass(frozen=True, slots=True)
class Question(Generic[Answer]):
    """A statement with places `$1`, its values, and how its rows are read.

    Values are the server's own text, or with `is_binary` its binary form, all of them alike.
    """

    text: str
    values: Sequence[bytes | None]
    read: Callable[[list[Values]], Answer]
    is_binary: bool = False


BEGIN: Final = Question("BEGIN", (), len)
COMMIT: Final = Question("COMMIT", (), len)
ROLLBACK: Final = Question("ROLLBACK", (), len)


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that knows which statements were prepared on it, by their text."""

    plans: dict[str, bytes]
    plans_made: int


class Unprepared(Exception):
    """Somebody else has dropped what was prepared; nothing was done, and asking again helps."""


def ask(raw: Connection, questions: Sequence[Question[Any]]) -> list[Any]:
    """Send all, wait once, and return what each one read.

    Raises: what psycopg raises for the first one that failed; those behind it did not happen.
    Unprepared.
    """
    pgconn = raw.pgconn
    plans = _plans(raw)
    fresh: dict[str, bytes] = {}
    awaited: list[str | None] = []  # of each result: the text that it prepares, None for an answer
    try:
        pgconn.enter_pipeline_mode()
        for one in questions:
            name = plans.get(one.text) or fresh.get(one.text)
            if name is None:
                raw.plans_made += 1
                name = fresh[one.text] = b"convergio_%d" % raw.plans_made
                pgconn.send_prepare(name, one.text.encode())
                awaited.append(one.text)
            formats = [1] * len(one.values) if one.is_binary else None
            pgconn.send_query_prepared(name, one.values, formats)
            awaited.append(None)
        pgconn.pipeline_sync()
        results = _results(pgconn)
        pgconn.exit_pipeline_mode()
    except BaseException:
        raw.close()  # answers may be on their way that nobody waits for
        raise
    for result, text in zip(results, awaited, strict=False):
        if text is not None and result.status == pq.ExecStatus.COMMAND_OK:
            plans[text] = fresh[text]
    try:
        _check(results, len(awaited))
    except errors.InvalidSqlStatementName as error:
        plans.clear()
        raise Unprepared from error
    found = (result for result, text in zip(results, awaited, strict=True) if text is None)
    return [one.read(_rows(result)) for one, result in zip(questions, found, strict=True)]


def _plans(raw: Connection) -> dict[str, bytes]:
    """Return the connection's prepared statements; a new connection has none."""
    try:
        return raw.plans
    except AttributeError:
        raw.plans, raw.plans_made = {}, 0
        return raw.plans


def forget(raw: Connection) -> None:
    """Prepare all statements anew, under new names."""
    _plans(raw).clear()


def _results(pgconn: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    """Return the results up to the end of the pipeline. Other threads run while this one waits."""
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():  # the server may be sending already, and wait until that is read
        poller.poll()
        pgconn.consume_input()
    poller.modify(pgconn.socket, select.POLLIN)
    found: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            poller.poll()
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:  # the end of one statement
            if pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError(_LOST)
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            return found
        else:
            found.append(result)


def _check(results: Sequence[pq.abc.PGresult], count: int) -> None:
    for result in results:
        if result.status in _FAILED:
            raise errors.error_from_result(result)
    if len(results) != count or any(
        result.status == pq.ExecStatus.PIPELINE_ABORTED for result in results
    ):
        raise psycopg.OperationalError(_LOST)


def _rows(result: pq.abc.PGresult) -> list[Values]:
    columns = range(result.nfields)
    value = result.get_value
    return [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]
