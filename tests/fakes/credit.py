"""A shop that sells seats, limits per seat and prepaid units, for tests about what is shared."""

from datetime import datetime
from decimal import Decimal
from itertools import count
from uuid import UUID

from convergio.entitlements import actions as entitlements
from convergio.entitlements import grants
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Allowed, Ask, Category, CreditGrant, GrantTerms, QuotaState
from convergio.infra.db import Database
from convergio.kernel.errors import Difference
from convergio.kernel.quantity import quantity_text
from convergio.metering.model import Event
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Subscription, Trial, When
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events:
  - {type: ai.request, keep: [status]}
  - {type: ai.peak}
meters:
  - {key: questions, name: Questions, event: ai.request, aggregation: sum, value: quantity}
  - {key: peak, name: Peak, event: ai.peak, aggregation: max, value: size}
plans:
  - key: free
    name: Free
    prices:
      - {key: free_questions, name: Questions, meter: questions,
         quota: {limit: 50, hard: true}, charge: {model: unit, unit: 0}}
  - key: pro
    name: Pro
    prices:
      - {key: pro_fee, name: Pro, charge: {model: flat, amount: 31.00}}
      - {key: pro_questions, name: Questions, meter: questions,
         charge: {model: unit, unit: 0.01, included: 310}}
  - key: big
    name: Big
    prices:
      - {key: big_fee, name: Big, charge: {model: flat, amount: 62.00}}
      - {key: big_questions, name: Questions, meter: questions,
         charge: {model: unit, unit: 0.01, included: 620}}
  - key: capped
    name: Capped
    prices:
      - {key: capped_fee, name: Capped, charge: {model: flat, amount: 31.00}}
      - {key: capped_questions, name: Questions, meter: questions,
         quota: {limit: 310, hard: true}, charge: {model: unit, unit: 0.01, included: 310}}
  - key: capped_big
    name: Capped big
    prices:
      - {key: capped_big_fee, name: Capped big, charge: {model: flat, amount: 62.00}}
      - {key: capped_big_questions, name: Questions, meter: questions,
         quota: {limit: 620, hard: true}, charge: {model: unit, unit: 0.01, included: 620}}
  - key: team
    name: Team
    prices:
      - {key: team_seat, name: Seats, charge: {model: seat, unit: 31.00}}
      - {key: team_questions, name: Questions, meter: questions,
         quota: {limit: 310, hard: true, per_seat: true},
         charge: {model: unit, unit: 0.01, included: 31, included_per_seat: true}}
      - {key: team_peak, name: Peak, meter: peak, charge: {model: unit, unit: 0.01}}
"""


class Shop(Business):
    """A business with a gate, whose clock is given to each call."""

    def __init__(self, database: Database, now: datetime, source: bytes = CATALOG) -> None:
        """Open it."""
        super().__init__(database, now, source)
        self.gate = Gate(database, self.ingestor, hold_seconds=300)
        self._events = count()

    def grant(
        self, key: str, quantity: str, when: str, *, name: str = "acme", starts: str | None = None,
        expires: str | None = None, priority: int = 100,
    ) -> CreditGrant:  # fmt: skip
        """Grant questions."""
        terms = GrantTerms(
            key=key,
            category=Category.PURCHASED,
            meter_key="questions",
            quantity=Decimal(quantity),
            priority=priority,
            starts_at=None if starts is None else at(starts),
            expires_at=None if expires is None else at(expires),
        )
        with self.database.transaction() as tx:
            return grants.create(tx, name, terms, now=at(when))

    def void(self, grant: CreditGrant, when: str, *, name: str = "acme") -> CreditGrant:
        """Take back what is left."""
        with self.database.transaction() as tx:
            return grants.void(tx, name, grant.grant_id, now=at(when))

    def drawn(self, customer_id: UUID, when: str) -> dict[str, str]:
        """Return what is drawn of each grant, by key."""
        with self.database.transaction() as tx:
            found = grants.page(tx, customer_id, now=at(when))
        return {one.grant.key: quantity_text(one.drawn) for one in found}

    def change(
        self, customer_id: UUID, when: str, *, plan: str | None = None, seats: int | None = None,
        at_end: bool = False, now: bool = False,
    ) -> Subscription:  # fmt: skip
        """Put a customer on another plan or other seats."""
        with self.database.transaction() as tx:
            return changes.change(
                tx, customer_id=customer_id, plan_key=plan, seats=seats,
                when=When.PERIOD_END if at_end else When.NOW if now else None, now=at(when),
            )  # fmt: skip

    def trial(self, customer_id: UUID, plan: str, start: str, *, days: int) -> Subscription:
        """Put a customer on a plan that is free for some days."""
        with self.database.transaction() as tx:
            return subscriptions.create(
                tx, customer_id=customer_id, plan_key=plan, start=at(start), now=at(start),
                trial=Trial(days),
            )  # fmt: skip

    def pause(self, customer_id: UUID, when: str) -> None:
        """Stop a subscription."""
        with self.database.transaction() as tx:
            changes.pause(tx, customer_id=customer_id, now=at(when))

    def resume(self, customer_id: UUID, when: str) -> None:
        """Go on with it."""
        with self.database.transaction() as tx:
            changes.resume(tx, customer_id=customer_id, now=at(when))

    def quota(self, when: str, *, name: str = "acme") -> QuotaState:
        """Return the quota of questions."""
        return self.gate.quota(name, "questions", now=at(when))

    def left(self, when: str, *, name: str = "acme") -> Decimal | None:
        """Return what may still be reserved."""
        return self.quota(when, name=name).remaining

    def ask(self, quantity: str, when: str, *, name: str = "acme") -> UUID | None:
        """Ask to use so much; return the reservation, None when it is denied."""
        found = self.gate.authorize([Ask(name, "questions", Decimal(quantity))], now=at(when))[0]
        return found.reservation_id if isinstance(found, Allowed) else None

    def send(self, type_: str, when: str, data: dict[str, object], **other: str) -> str:
        """Count an event, late or not; return its id."""
        number = other.get("id") or f"sent-{next(self._events)}"
        event = Event(
            id=number, source="test", type=type_, subject=other.get("name", "acme"), time=at(when),
            data=data,
        )  # fmt: skip
        (verdict,) = self.ingestor.ingest([event], now=at(other.get("now", when)), importing=True)
        assert verdict.status == "accepted", verdict
        return number

    def verify(self) -> list[Difference]:
        """Return what does not add up, grants and reservations included."""
        with self.database.transaction() as tx:
            return [*super().verify(), *entitlements.verify(tx)]
