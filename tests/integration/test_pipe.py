"""Statements that travel together: one round trip, one fate, and a connection that stays good."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from convergio.infra.db import AlreadyThere, Database, Tx
from convergio.infra.pipe import Question, Values
from convergio.kernel.errors import Fault, Unavailable

PLUS = "SELECT $1::integer + 1, $1::text"


def plus(number: int) -> Question[list[Values]]:
    return Question(PLUS, (b"%d" % number,), list)


def put(number: int) -> Question[int]:
    return Question("INSERT INTO piped VALUES ($1::integer)", (b"%d" % number,), len)


@pytest.fixture
def table(database: Database) -> Database:
    """A database with a table whose rows are unique."""
    with database.transaction() as tx:
        tx.raw.execute("CREATE TABLE piped (number integer PRIMARY KEY)")
    return database


def fail(database: Database, *questions: Question[int]) -> None:
    """Ask, and leave the block by an exception when nothing else has failed."""
    with database.pipelined() as tx:
        tx.together(*questions)
        raise ZeroDivisionError


def stored(database: Database) -> list[int]:
    with database.transaction() as tx:
        return [row[0] for row in tx.raw.execute("SELECT number FROM piped ORDER BY 1")]


def test_answers_come_in_the_order_of_the_questions(database: Database) -> None:
    with database.pipelined() as tx:
        assert tx.together(plus(1), plus(41)) == [[(b"2", b"1")], [(b"42", b"41")]]
        assert tx.together() == []


def test_more_is_sent_than_a_socket_holds_and_every_answer_comes(database: Database) -> None:
    long = Question("SELECT $1::text", (b"x" * 500_000,), list)
    with database.pipelined() as tx:
        found = tx.together(*[long] * 40)
    assert [len(rows[0][0]) for rows in found] == [500_000] * 40


def test_binary_values_and_nulls_arrive_as_they_are(database: Database) -> None:
    values = ((7).to_bytes(4, "big"), None)
    whole = Question("SELECT $1::integer, $2::text", values, list, is_binary=True)
    with database.pipelined() as tx:
        assert tx.together(whole) == [[(b"7", None)]]


def test_what_is_asked_together_with_commit_is_kept_and_the_rest_with_the_block(
    table: Database,
) -> None:
    with table.pipelined() as tx:
        tx.together(put(1), commit=True)
        assert stored(table) == [1]
    with table.pipelined() as tx:
        tx.together(put(2))
        assert stored(table) == [1]
    assert stored(table) == [1, 2]


def test_one_failure_undoes_all_and_the_connection_goes_on(table: Database) -> None:
    with pytest.raises(AlreadyThere), table.pipelined() as tx:
        tx.together(put(1), put(1), put(3), commit=True)
    assert stored(table) == []
    for _ in range(3):
        with table.pipelined() as tx:
            assert tx.together(plus(1), put(5), commit=True)[0] == [(b"2", b"1")]
        with pytest.raises(AlreadyThere):
            fail(table, put(5))
        with table.transaction() as tx:
            tx.raw.execute("DELETE FROM piped")


def test_an_exception_in_the_block_undoes_it(table: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(table, put(1))
    assert stored(table) == []


def test_ordinary_statements_share_the_transaction(table: Database) -> None:
    with table.pipelined() as tx:
        tx.raw.execute("INSERT INTO piped VALUES (1)")
        tx.together(put(2))
        tx.raw.execute("INSERT INTO piped VALUES (3)")
        assert stored(table) == []
    assert stored(table) == [1, 2, 3]


def test_statements_are_prepared_again_when_the_driver_has_dropped_them(dsn: str) -> None:
    def once(tx: Tx) -> None:
        assert tx.together(plus(1)) == [[(b"2", b"1")]]
        for _ in range(7):  # so often that psycopg prepares it itself
            tx.raw.execute("SELECT 1 + %s", [1])

    def undone(database: Database) -> None:
        with database.transaction() as tx:
            with suppress(ZeroDivisionError), tx.savepoint():
                once(tx)
                raise ZeroDivisionError
            once(tx)
            raise ZeroDivisionError

    with Database(dsn, size_max=1) as database:
        for _ in range(3):
            with database.transaction() as tx:
                once(tx)
            with pytest.raises(ZeroDivisionError):
                undone(database)
        with database.transaction() as tx:
            once(tx)
            tx.raw.execute("DEALLOCATE ALL")
        with pytest.raises(Unavailable), database.pipelined() as tx:
            tx.together(plus(1))
        with database.pipelined() as tx:
            assert tx.together(plus(1)) == [[(b"2", b"1")]]


def test_a_connection_that_is_lost_is_unavailable_and_is_not_used_again(database: Database) -> None:
    with pytest.raises(Unavailable), database.pipelined() as tx:
        tx.together(plus(1), Question("SELECT pg_terminate_backend(pg_backend_pid())", (), len))
    with database.pipelined() as tx:
        assert tx.together(plus(1)) == [[(b"2", b"1")]]


def test_other_threads_run_while_one_waits(database: Database) -> None:
    slow = Question("SELECT pg_sleep(0.5)", (), len)
    ran = threading.Event()

    def wait() -> bool:
        with database.pipelined() as tx:
            tx.together(slow)
        return ran.is_set()

    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(wait)
        pool.submit(ran.set)
        assert found.result(30)


def test_a_savepoint_never_begins_the_transaction(database: Database) -> None:
    with pytest.raises(Fault), database.pipelined() as tx, tx.savepoint():
        pass
