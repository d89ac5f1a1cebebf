"""A value that a correction forgets while an event brings it again is counted."""

import threading
import time
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.db import Database, Tx
from convergio.metering import actions as metering
from convergio.metering import rules, store, windows
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Correction, Event

CATALOG = b"""
currency: usd
events:
  - type: job
meters:
  - {key: users, name: Users, event: job, aggregation: unique_count, value: user}
"""
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def ingestor(database: Database, now: datetime) -> Ingestor:
    with database.transaction() as tx:
        catalog.apply(tx, CATALOG, now=now - timedelta(days=2))
        customers.create_many(tx, ["acme"], now=now)
    return Ingestor(database)


def job(number: str, now: datetime) -> Event:
    return Event(id=number, source="s", type="job", subject="acme", time=now, data={"user": "ann"})


def void(tx: Tx, number: str, now: datetime) -> None:
    """Take an event back under the lock of its window, as a correction does."""
    (customer,) = customers.ids_by_key(tx, ["acme"]).values()
    key = UUID(bytes=rules.event_key(b"s", number))
    store.save_correction(tx, Correction(customer, key, "void", {}, now, key))
    windows.recount(tx, store.Span(customer, now - timedelta(days=40), now, None))


def test_an_event_that_waits_for_a_void_of_the_same_value_counts_it_again(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest([job("one", now)], now=now)
    second = threading.Thread(target=lambda: ingestor.ingest([job("two", now)], now=now))
    with database.transaction() as tx:
        tx.value("SELECT used FROM usage_total FOR UPDATE")
        second.start()
        with database.transaction() as watch:
            while not watch.value(WAITING):
                time.sleep(0.01)
        void(tx, "one", now)
    second.join()
    with database.transaction() as tx:
        assert metering.verify(tx) == []
        assert tx.value("SELECT used FROM usage_total") == 1
