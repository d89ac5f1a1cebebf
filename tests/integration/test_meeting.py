"""Transactions that meet: the one that the database undoes is done again, and nobody is told."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from convergio.entitlements import leases
from convergio.entitlements.model import Leased
from convergio.infra.clock import pause
from convergio.infra.db import Contended, Database, Tx
from convergio.kernel.errors import Unavailable
from tests.fakes import usage
from tests.fakes.meters import NOW, event
from tests.fakes.quota import CATALOG, Desk

LATER = NOW + timedelta(hours=1)
NEXT_YEAR = NOW + timedelta(days=366)
WINDOW: LiteralString = "SELECT 1 FROM usage_total WHERE customer_id = %s FOR UPDATE"
SCHEDULE: LiteralString = "SELECT 1 FROM usage_schedule WHERE customer_id = %s FOR UPDATE"
RESERVATION: LiteralString = "SELECT 1 FROM reservation WHERE customer_id = %s FOR UPDATE"


@pytest.fixture
def desk(database: Database) -> Desk:
    """A process with two customers, the first of whom is locked first."""
    made = Desk(database)
    made.subscribe("ten", "first", "second")
    return made


def customers(desk: Desk) -> list[UUID]:
    found = (desk.ingestor.customer(name, now=NOW) for name in ("first", "second"))
    return sorted(one for one in found if one is not None)


def is_waiting(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as look:
        row = look.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return row is not None and row[0] > 0


@contextmanager
def deadlocked(
    dsn: str, first: tuple[LiteralString, UUID], then: tuple[LiteralString, UUID]
) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Hold the first row, let work come to wait for it, and ask for the row that the work holds.

    The database undoes who has waited longest: the work.
    """
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:

        def meet(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
            other.execute(first[0], [first[1]])
            found: Future[Any] = pool.submit(work)
            while not is_waiting(dsn):
                assert not found.done(), found.result()
                pause(0.01)
            other.execute(then[0], [then[1]])
            other.rollback()
            return found.result(30)

        yield meet


def deadlocks(database: Database) -> int:
    """Return how many the database has ended."""
    with database.transaction() as tx:
        tx.raw.execute("SELECT pg_stat_force_next_flush()")
        return int(
            tx.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )


def test_the_sweeper_that_meets_another_writer_expires_all_the_same(dsn: str, desk: Desk) -> None:
    desk.hold("2", name="first")
    desk.hold("2", name="second")
    low, high = customers(desk)
    with deadlocked(dsn, (WINDOW, high), (WINDOW, low)) as meet:
        assert meet(lambda: desk.sweep(LATER)) == 2
    assert deadlocks(desk.database) == 1
    assert desk.verify() == []


def test_a_release_that_meets_another_writer_is_a_release(dsn: str, desk: Desk) -> None:
    held = desk.hold("2", name="first")
    who = desk.ingestor.customer("first", now=NOW)
    assert who is not None
    with deadlocked(dsn, (WINDOW, who), (RESERVATION, who)) as meet:
        assert meet(lambda: desk.release(held, name="first")) == "released"
    assert deadlocks(desk.database) == 1
    assert desk.quota(name="first")["remaining"] == "10"


def test_a_commit_that_meets_another_writer_is_one_commit(dsn: str, desk: Desk) -> None:
    held = desk.hold("2", name="first")
    who = desk.ingestor.customer("first", now=NOW)
    assert who is not None
    with deadlocked(dsn, (WINDOW, who), (RESERVATION, who)) as meet:
        done = meet(lambda: desk.gate.commit("first", held, actual=Decimal(3), now=NOW))
    assert deadlocks(desk.database) >= 1  # a slow machine may let the two meet once more
    assert (done.state, done.settled) == ("committed", 3)
    assert desk.quota(name="first")["remaining"] == "7"
    assert desk.verify() == []


def test_leases_that_ended_are_let_go_also_when_another_writer_is_met(dsn: str, desk: Desk) -> None:
    for name in ("first", "second"):
        found = desk.gate.leases.acquire(name, "questions", Decimal(1), now=NOW)
        assert isinstance(found, Leased)
    low, high = customers(desk)
    with deadlocked(dsn, (WINDOW, high), (WINDOW, low)) as meet:
        assert meet(lambda: leases.sweep(desk.database, now=NEXT_YEAR)) == 2
    assert deadlocks(desk.database) == 1
    assert desk.verify() == []


def test_a_batch_whose_windows_are_opened_meets_another_opener_and_is_counted(
    dsn: str, database: Database
) -> None:
    usage.with_catalog(database, CATALOG)
    desk = Desk(database)
    low, high = sorted(desk.subscribe("ten", "first", "second"))
    events = [event(f"e-{name}", subject=name) for name in ("first", "second")]
    with deadlocked(dsn, (SCHEDULE, high), (SCHEDULE, low)) as meet:
        assert meet(lambda: usage.send(desk.ingestor, *events)) == ["accepted", "accepted"]
    assert deadlocks(database) == 1
    assert desk.verify() == []


def test_who_never_gets_through_is_told_to_come_back(database: Database) -> None:
    tries: list[None] = []

    def never(_: Tx) -> None:
        tries.append(None)
        raise Contended("met again", code="contended")

    with pytest.raises(Unavailable) as caught:
        database.insist(never)
    assert (caught.value.code, len(tries)) == ("contended", 8)


def test_what_is_done_again_was_undone_before(database: Database) -> None:
    with database.transaction() as tx:
        tx.raw.execute("CREATE TABLE done (number integer)")
    tries: list[None] = []

    def second(tx: Tx) -> int:
        tries.append(None)
        tx.raw.execute("INSERT INTO done VALUES (1)")
        if len(tries) == 1:
            raise Contended("met", code="contended")
        return int(tx.value("SELECT count(*) FROM done"))

    assert database.insist(second) == 1


def test_what_takes_longer_than_it_may_is_told_so(database: Database) -> None:
    def dawdle(tx: Tx) -> None:
        tx.stop_after(1)
        tx.value("SELECT pg_sleep(30)")

    with pytest.raises(Unavailable) as caught:
        database.insist(dawdle)
    assert caught.value.code == "too_slow"


def test_a_server_that_writes_dates_its_own_way_is_read_all_the_same(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN EXECUTE format("
            "'ALTER DATABASE %I SET datestyle = ''SQL, DMY''', current_database()); END $$"
        )
    with Database(dsn) as database:
        desk = Desk(database)
        desk.subscribe("ten", "acme")
        desk.hold("3")
        assert usage.send(desk.ingestor, event("e1", subject="acme")) == ["accepted"]
        assert desk.quota()["remaining"] == "6"
