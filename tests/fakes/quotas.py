"""Customers with a quota, and gates on it: each gate has caches of its own, as a process has."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.entitlements import actions as entitlements
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Allowed, Ask, Decision, Denied, Lease, Leased
from convergio.infra.db import Database
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event
from convergio.subscriptions import actions as subscriptions

T = TypeVar("T")
HOLD_SECONDS = 300
LIMIT = Decimal(50)  # of the example's free plan
METER = "questions"


def gate(database: Database) -> Gate:
    """Return a gate with empty caches."""
    return Gate(database, Ingestor(database), hold_seconds=HOLD_SECONDS)


def subscribed(
    database: Database, now: datetime, *keys: str, plan: str = "free", days: int = 1
) -> dict[str, UUID]:
    """Return customers on a plan of the example catalog since some days ago."""
    with database.transaction() as tx:
        catalog.ensure_example(tx, now=now)
        ids = customers.create_many(tx, list(keys), now=now)
        subscriptions.create_many(
            tx,
            customer_ids=sorted(ids.values()),
            plan_key=plan,
            start=now - timedelta(days=days),
            now=now,
        )
    return ids


def used_up(opened: Gate, key: str, quantity: str, now: datetime) -> None:
    """Let a customer have used so much."""
    [decision] = opened.authorize([Ask(key, METER, Decimal(quantity))], now=now)
    opened.commit(key, allowed(decision).reservation_id, actual=None, now=now)


def event(key: str, event_id: str, quantity: str, at: datetime) -> Event:
    """Return an event that the example's questions meter counts."""
    data = {"status": "succeeded", "quantity": quantity}
    return Event(
        id=event_id, source="test", type="ai.request", subject=key, time=at, data=dict(data)
    )


def allowed(decision: Decision) -> Allowed:
    """Return the yes that a decision must be."""
    assert isinstance(decision, Allowed), decision
    return decision


def denied(decision: Decision | Leased) -> Denied:
    """Return the no that a decision must be."""
    assert isinstance(decision, Denied), decision
    return decision


def leased(found: Leased | Denied) -> Lease:
    """Return the lease that was granted."""
    assert isinstance(found, Leased), found
    return found.lease


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """Do everything in threads of its own, and return the answers in order."""
    with ThreadPoolExecutor(len(work)) as threads:
        return [done.result() for done in [threads.submit(one) for one in work]]


def assert_sound(database: Database) -> None:
    """Assert that used and reserved are what events, reservations and leases say."""
    with database.transaction() as tx:
        assert metering.verify(tx) == []
        assert entitlements.verify(tx) == []
