"""A product with hard and soft limits, and its gate, for tests about quotas."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from convergio.entitlements import actions as entitlements
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Allowed, Ask, Decision, Denied
from convergio.infra.db import Database
from convergio.metering.ingest import Ingestor
from convergio.subscriptions import actions as subscriptions
from tests.fakes import usage
from tests.fakes.meters import NOW

CATALOG = b"""
currency: usd
events:
  - {type: ai.request, keep: [status, model]}
meters:
  - {key: questions, name: Questions, event: ai.request, aggregation: sum, value: quantity,
     default: 1, where: {status: {not_in: [failed]}}}
  - {key: images, name: Images, event: ai.request, aggregation: sum, value: images,
     where: {images: {exists: true}}}
plans:
  - key: thousand
    name: Thousand
    prices:
      - {key: thousand_questions, name: Questions, meter: questions, interval: month,
         quota: {limit: 1000, hard: true}, charge: {model: unit, unit: 0, included: 1000}}
  - key: ten
    name: Ten
    prices:
      - {key: ten_questions, name: Questions, meter: questions, interval: month,
         quota: {limit: 10, hard: true}, charge: {model: unit, unit: 0, included: 10}}
  - key: soft
    name: Soft
    prices:
      - {key: soft_questions, name: Questions, meter: questions, interval: month,
         quota: {limit: 10, hard: false}, charge: {model: unit, unit: 0.01, included: 10}}
"""


class Desk:
    """One server process in front of a database: its ingestor and its gate."""

    def __init__(
        self, database: Database, *, hold_seconds: int = 300, source: bytes = CATALOG
    ) -> None:
        """Apply the catalog where it is not yet there."""
        usage.with_catalog(database, source)
        self.database = database
        self.ingestor = Ingestor(database)
        self.gate = Gate(database, self.ingestor, hold_seconds=hold_seconds)

    def subscribe(
        self, plan: str | None, *names: str, start: datetime = NOW, now: datetime = NOW
    ) -> list[UUID]:
        """Make customers and put them on a plan."""
        ids = usage.make(self.database, *names)
        if plan is not None:
            with self.database.transaction() as tx:
                subscriptions.create_many(tx, customer_ids=ids, plan_key=plan, start=start, now=now)
        return ids

    def end(self, customer_id: UUID, now: datetime = NOW) -> None:
        """Cancel at once."""
        with self.database.transaction() as tx:
            subscriptions.cancel(tx, customer_id=customer_id, at_period_end=False, now=now)

    def ask(
        self, quantity: str = "1", *, name: str = "acme", meter: str = "questions",
        now: datetime = NOW,
    ) -> Decision:  # fmt: skip
        """Ask once."""
        return self.gate.authorize([Ask(name, meter, Decimal(quantity))], now=now)[0]

    def hold(self, quantity: str = "1", *, name: str = "acme", now: datetime = NOW) -> UUID:
        """Ask, and expect to be allowed."""
        found = self.ask(quantity, name=name, now=now)
        assert isinstance(found, Allowed), found
        return found.reservation_id

    def reason(self, quantity: str = "1", *, name: str = "acme") -> str:
        """Ask, and expect to be denied."""
        found = self.ask(quantity, name=name)
        assert isinstance(found, Denied), found
        return str(found.reason)

    def commit(
        self, held: UUID, actual: str | None = None, *, name: str = "acme", now: datetime = NOW
    ) -> str:
        """Settle a reservation with what was really used; return its state."""
        quantity = None if actual is None else Decimal(actual)
        return self.gate.commit(name, held, actual=quantity, now=now).state

    def release(self, held: UUID, *, name: str = "acme", now: datetime = NOW) -> str:
        """Give a reservation back; return its state."""
        return self.gate.release(name, held, now=now).state

    def sweep(self, now: datetime = NOW) -> int:
        """Expire what is due; return how many."""
        return entitlements.sweep(self.database, now=now)

    def quota(
        self, *, name: str = "acme", meter: str = "questions", now: datetime = NOW
    ) -> Mapping[str, str]:
        """Return used, reserved and remaining as text."""
        found = self.gate.quota(name, meter, now=now)
        shown = (("used", found.used), ("reserved", found.reserved), ("remaining", found.remaining))
        return {key: "none" if value is None else f"{value.normalize():f}" for key, value in shown}

    def verify(self) -> list[str]:
        """Return what does not add up."""
        with self.database.transaction() as tx:
            reserved = [str(one) for one in entitlements.verify(tx)]
        return reserved + usage.differences(self.database)
