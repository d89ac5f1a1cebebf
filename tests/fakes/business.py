"""A small business on a test's database: customers, plans, usage and runs in one line each.

It goes through the real actions, so that a test about invoices says only what is special in it.
"""

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing.model import Invoice
from convergio.billing.reporting import Report
from convergio.catalog import actions as catalog
from convergio.crypto import rules as crypto_rules
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.discounts import actions as discounts
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.settings import Seller
from convergio.kernel.errors import Difference
from convergio.kernel.periods import parse_instant
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Subscription

SELLER = Seller(name="Test Seller", net_days=14)


def at(text: str) -> datetime:
    """Return an instant; a day alone means its midnight in UTC."""
    return parse_instant(text if "T" in text else f"{text}T00:00:00Z")


def new_keyring(now: datetime) -> Keyring:
    """Return a keyring with a known key-encryption key."""
    text = base64.b64encode(bytes(range(32))).decode()
    return Keyring(crypto_rules.parse_keks(text), clock=VirtualClock(now))


class Business:
    """One seller with the example catalog, or with another one."""

    def __init__(self, database: Database, now: datetime, source: bytes | None = None) -> None:
        """Apply the catalog."""
        self.database = database
        self.now = now
        self.keyring = new_keyring(now)
        self.ingestor = Ingestor(database, back=None)
        self._numbers = count()
        with database.transaction() as tx:
            self.keyring.prepare(tx)
            if source is None:
                catalog.ensure_example(tx, now=now)
            else:
                catalog.apply(tx, source, now=now)

    def customer(self, key: str, **personal: str) -> UUID:
        """Make a customer."""
        with self.database.transaction() as tx:
            made = customers.create(tx, self.keyring, key=key, now=self.now, **personal)
        return made.customer_id

    def customers(self, keys: Sequence[str]) -> dict[str, UUID]:
        """Make many customers."""
        with self.database.transaction() as tx:
            return customers.create_many(tx, keys, now=self.now)

    def subscribe(
        self, customer_id: UUID, plan: str, start: str, *, time_zone: str = "UTC", seats: int = 1
    ) -> Subscription:
        """Put a customer on a plan."""
        begin = at(start)
        with self.database.transaction() as tx:
            return subscriptions.create(
                tx,
                customer_id=customer_id,
                plan_key=plan,
                start=begin,
                now=max(self.now, begin),
                time_zone=time_zone,
                seats=seats,
            )

    def cancel(self, customer_id: UUID, when: str, *, at_period_end: bool) -> Subscription:
        """End a subscription at an instant, or at the end of what is paid for."""
        with self.database.transaction() as tx:
            return subscriptions.cancel(
                tx, customer_id=customer_id, at_period_end=at_period_end, now=at(when)
            )

    def use(self, key: str, questions: int, when: str) -> None:
        """Count an event of so many questions."""
        event = Event(
            id=f"event-{next(self._numbers)}",
            source="test",
            type="ai.request",
            subject=key,
            time=at(when),
            data={"quantity": questions, "status": "succeed"},
        )
        moment = max(self.now, at(when)) + timedelta(seconds=1)
        verdicts = self.ingestor.ingest([event], now=moment, importing=True)
        assert [verdict.status for verdict in verdicts] == ["accepted"], verdicts

    def bill(self, as_of: str, **options: Any) -> Report:  # noqa: ANN401 - what `run` takes
        """Run the billing."""
        return billing.run(
            self.database,
            as_of=at(as_of),
            now=options.pop("now", self.now),
            seller=options.pop("seller", SELLER),
            keyring=self.keyring,
            **options,
        )

    def invoices(self, customer_id: UUID | None = None) -> list[Invoice]:
        """Return the invoices by number."""
        with self.database.transaction() as tx:
            found = billing.page(tx, customer_id=customer_id, limit=10_000)
        return sorted(found, key=lambda one: (one.series, one.year, one.number))

    def lines(self, invoice: Invoice) -> list[tuple[str, str, int]]:
        """Return kind, reason and amount of an invoice's lines."""
        with self.database.transaction() as tx:
            view = billing.read(tx, self.keyring, invoice)
        return [(line.kind, line.reason, line.amount) for line in view.lines]

    def verify(self) -> list[Difference]:
        """Return what does not add up, in every room that this business uses."""
        with self.database.transaction() as tx:
            return [
                *metering.verify(tx),
                *subscriptions.verify(tx),
                *ledger.verify(tx),
                *billing.verify(tx),
                *discounts.verify(tx),
            ]
