"""A small AI business lived from its first day: everything it does goes through the real rooms.

The world is an agenda a day under the virtual clock. People sign up, pay, ask, run into their
limit, upgrade, mend a card and leave; by night the business bills, collects and asks its gateway.
One seeded source of chance decides everything, and nothing in the order of events depends on ids,
which are random: so the same seed gives the same figures.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random
from typing import Final
from uuid import UUID

from convergio.billing import actions as billing
from convergio.customers import actions as customers
from convergio.entitlements import actions as entitlements
from convergio.entitlements.model import Allowed, Ask, Denied
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import Fault, require
from convergio.kernel.periods import Period
from convergio.metering.model import Event
from convergio.payments import actions as payments
from convergio.payments.gateways.sandbox import Sandbox, Token
from convergio.payments.model import AttemptState
from convergio.simulation import demand, people
from convergio.simulation.demand import Session
from convergio.simulation.people import Person
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status
from convergio.wiring import App

METER: Final = "questions"
CURRENCY: Final = "usd"
_DAY: Final = timedelta(days=1)
_BILLS_AT: Final = timedelta(hours=5, minutes=30)
_ANSWERS_AT: Final = timedelta(hours=8)
_MENDS_AT: Final = timedelta(hours=12)
_QUARTER: Final = timedelta(hours=6)
_AUTHORISES_BEFORE: Final = timedelta(seconds=60)
_SETTLES_BEFORE: Final = timedelta(seconds=30)
_DELIVERS_BEFORE: Final = timedelta(seconds=1)
_FAILING: Final = frozenset({Status.PAST_DUE, Status.UNPAID})
_BATCH_MAX: Final = 500
_LATE: Final = 0.004
_RESENT_BATCH: Final = 0.015
_RESENT_BATCHES: Final = 0.15
_RESENT_EVENTS: Final = 0.06
_TRIES_WHILE_SUSPENDED: Final = 1
_UPGRADES: Final = 0.3
_CONFIRMS: Final = 0.85


@dataclass(slots=True)
class Tally:
    """What the world saw, as the product answered it."""

    verdicts: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    settled: Counter[str] = field(default_factory=Counter)
    payments: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Life:
    """What becomes of a person as time goes by."""

    person: Person
    customer_id: UUID
    plan: str
    ends: datetime | None = None
    failing_since: datetime | None = None
    mends: int | None = None
    upgrades_on: datetime | None = None
    tempted: bool = False


@dataclass(order=True, slots=True)
class _Moment:
    """Something on the agenda; what is planned first happens first at the same instant."""

    at: datetime
    number: int
    act: Callable[[], None] = field(compare=False)


class World:
    """One business, from the clock's present until it has lived `during`."""

    def __init__(
        self, product: App, clock: VirtualClock, *, seed: int, size: int, during: Period
    ) -> None:
        """Draw everyone who will ever sign up. The product runs under this same clock."""
        require(product.clock is clock, "the world and the product share one clock")
        require(clock.now() <= during.start, "a world begins in its clock's future")
        sandbox = product.gateways["sandbox"]
        if not isinstance(sandbox, Sandbox):
            raise Fault("a world pays through the sandbox")
        self.tally = Tally()
        self._product, self._clock, self._during = product, clock, during
        self._sandbox = sandbox
        self._chance = Random(seed)
        self._people = people.population(self._chance, size, during)
        self._lives: dict[str, _Life] = {}
        self._sessions: list[Session] = []
        self._held: list[tuple[Session, Allowed]] = []
        self._events: list[Event] = []
        self._late: list[tuple[datetime, Event]] = []
        self._resent: list[Event] = []

    @property
    def days(self) -> int:
        """How many times `live` reports progress."""
        return (self._during.end - self._during.start).days + 1

    def live(self, progress: Callable[[int], None]) -> Tally:
        """Live every day, then the night after the last one; `progress` hears of each."""
        day = self._during.start
        while day < self._during.end:
            self._live(sorted(self._agenda(day)))
            progress(1)
            day += _DAY
        self._events += [event for _, event in self._late]
        self._clock.advance_to(day)
        self._deliver()
        self._live(sorted(self._nights_work(day)))
        progress(1)
        return self.tally

    def _live(self, agenda: list[_Moment]) -> None:
        for moment in agenda:
            self._clock.advance_to(moment.at)
            moment.act()

    def _agenda(self, day: datetime) -> Iterator[_Moment]:
        yield from self._nights_work(day)
        statuses = self._statuses()
        number = 10
        for person in self._people:
            if day <= person.joins_at < day + _DAY:
                yield _Moment(person.joins_at, number, partial(self._join, person))
            life = self._lives.get(person.key)
            if life is not None:
                for at, act in self._plans(life, day, statuses.get(life.customer_id)):
                    yield _Moment(at, number, act)
            self._ask(person, life, day, statuses)
            number += 1
        for quarter in range(1, 5):
            end = day + quarter * _QUARTER
            yield _Moment(end - _AUTHORISES_BEFORE, number, self._authorise)
            yield _Moment(end - _SETTLES_BEFORE, number, self._settle)
            yield _Moment(end - _DELIVERS_BEFORE, number, self._deliver)

    def _nights_work(self, day: datetime) -> Iterator[_Moment]:
        yield _Moment(day + _BILLS_AT, 1, self._bill)
        yield _Moment(day + _ANSWERS_AT, 2, self._answer_the_bank)

    def _statuses(self) -> dict[UUID, Status]:
        ids = [life.customer_id for life in self._lives.values()]
        with self._product.database.transaction() as tx:
            return subscriptions.live_status(tx, ids)

    def _plans(
        self, life: _Life, day: datetime, status: Status | None
    ) -> Iterator[tuple[datetime, Callable[[], None]]]:
        """Yield what someone does today about their plan or their card."""
        if life.ends is not None:
            return
        leaves = life.person.leaves_at
        if leaves is not None and day <= leaves < day + _DAY:
            yield leaves, partial(self._leave, life)
        elif life.upgrades_on == day:
            yield day + _MENDS_AT, partial(self._upgrade, life)
        life.failing_since = (life.failing_since or day) if status in _FAILING else None
        if life.failing_since is None or life.mends is None:
            return
        if day >= life.failing_since + timedelta(days=life.mends):
            yield day + _MENDS_AT, partial(self._mend, life)

    def _ask(
        self, person: Person, life: _Life | None, day: datetime, statuses: dict[UUID, Status]
    ) -> None:
        """Draw a day's requests: Free and suspended customers are authorised, others metered."""
        end = day + _DAY
        leaves = person.leaves_at if person.leaves_at_once else None
        if life is not None and life.ends is not None:
            leaves = life.ends
        active_from, active_to = max(day, person.joins_at), min(end, leaves or end)
        if active_from >= active_to:
            return
        active = Period(active_from, active_to)
        if (life.plan if life else person.plan) == "free":
            self._sessions += demand.sessions(self._chance, person, active)
            return
        if life is not None and statuses.get(life.customer_id) is Status.UNPAID:
            self._sessions += demand.sessions(self._chance, person, active)[:_TRIES_WHILE_SUSPENDED]
            return
        for event in demand.events(self._chance, person, active):
            if self._chance.random() < _LATE:
                delay = timedelta(days=1 + int(self._chance.random() * 3))
                self._late.append((day + delay, event))
            else:
                self._events.append(event)

    def _join(self, person: Person) -> None:
        now = self._clock.now()
        with self._product.database.transaction() as tx:
            made = customers.create(
                tx,
                self._product.keyring,
                key=person.key,
                now=now,
                currency=CURRENCY,
                name=person.name,
                email=person.email,
                street=person.street,
                postal_code=person.postal_code,
                city=person.city,
                region=person.region,
                tax_id=person.tax_id,
                sdi_code=person.sdi_code,
                purchase_order=person.purchase_order,
                country=person.country,
                locale=person.locale,
            )
            if person.token is not None:
                _pay_with(tx, made.customer_id, person.token, now=now)
            _subscribe(tx, made.customer_id, person, person.plan, now=now)
        life = _Life(person, made.customer_id, person.plan, mends=person.mends_after_days)
        self._lives[person.key] = life
        self.tally.moves["signed_up"] += 1

    def _leave(self, life: _Life) -> None:
        now, at_once = self._clock.now(), life.person.leaves_at_once
        with self._product.database.transaction() as tx:
            ended = subscriptions.cancel(
                tx, customer_id=life.customer_id, at_period_end=not at_once, now=now
            )
        life.ends = ended.canceled_at or ended.cancel_at
        self.tally.moves["left_at_once" if at_once else "left_at_period_end"] += 1

    def _upgrade(self, life: _Life) -> None:
        """Move from Free to Pro: a new agreement from now on, with its full fee (RULES 10)."""
        now = self._clock.now()
        with self._product.database.transaction() as tx:
            _pay_with(tx, life.customer_id, Token.OK, now=now)
            subscriptions.cancel(tx, customer_id=life.customer_id, at_period_end=False, now=now)
            _subscribe(tx, life.customer_id, life.person, "pro", now=now)
        life.plan = "pro"
        self.tally.moves["upgraded"] += 1

    def _mend(self, life: _Life) -> None:
        with self._product.database.transaction() as tx:
            _pay_with(tx, life.customer_id, Token.OK, now=self._clock.now())
        life.mends = None
        self.tally.moves["new_card"] += 1

    def _authorise(self) -> None:
        """Ask for every waiting session at once, as the requests of one moment are."""
        now = self._clock.now()
        waiting = sorted(one for one in self._sessions if one.at <= now)
        self._sessions = [one for one in self._sessions if one.at > now]
        asks = [Ask(one.customer_key, METER, Decimal(one.wanted)) for one in waiting]
        decisions = self._product.gate.authorize(asks, now=now) if asks else []
        for one, decision in zip(waiting, decisions, strict=True):
            if isinstance(decision, Allowed):
                self.tally.decisions["allowed"] += 1
                self._held.append((one, decision))
            else:
                told = decision.reason if isinstance(decision, Denied) else decision.error.code
                self.tally.decisions[told] += 1
                self._tempt(self._lives[one.customer_key])

    def _tempt(self, life: _Life) -> None:
        """Let someone who was refused on Free think once about Pro."""
        if life.plan == "free" and not life.tempted:
            life.tempted = True
            if self._chance.random() < _UPGRADES:
                today = self._clock.now().replace(hour=0, minute=0, second=0)
                life.upgrades_on = today + _DAY

    def _settle(self) -> None:
        now, gate = self._clock.now(), self._product.gate
        held, self._held = self._held, []
        for one, allowed in held:
            key, reservation = one.customer_key, allowed.reservation_id
            if one.used is None:
                continue
            if one.used:
                gate.commit(key, reservation, actual=Decimal(one.used), now=now)
            else:
                gate.release(key, reservation, now=now)
            self.tally.settled["committed" if one.used else "released"] += 1

    def _deliver(self) -> None:
        """Send what has happened since the last time in batches, as a product's servers do."""
        now = self._clock.now()
        self.tally.settled["expired"] += entitlements.sweep(self._product.database, now=now)
        due = [one for one in self._events if one.time is not None and one.time <= now]
        self._events = [one for one in self._events if one.time is None or one.time > now]
        due += [event for at, event in self._late if at <= now]
        self._late = [(at, event) for at, event in self._late if at > now]
        due.sort(key=lambda one: (str(one.time), one.id))
        for first in range(0, len(due), _BATCH_MAX):
            self._send(due[first : first + _BATCH_MAX])

    def _send(self, events: list[Event]) -> None:
        """Ingest a batch, and what a client sends again because it never heard the answer."""
        chance = self._chance
        batch = demand.spoilt(chance, events + self._resent)
        self._resent = []
        if chance.random() < _RESENT_BATCHES:
            self._resent = [one for one in events if chance.random() < _RESENT_EVENTS]
        for _ in range(2 if chance.random() < _RESENT_BATCH else 1):
            verdicts = self._product.ingestor.ingest(batch, now=self._clock.now())
            self.tally.verdicts.update(verdict.status for verdict in verdicts)

    def _bill(self) -> None:
        product, now = self._product, self._clock.now()
        self.tally.settled["expired"] += entitlements.sweep(product.database, now=now)
        report = billing.run(
            product.database,
            as_of=now,
            now=now,
            seller=product.settings.seller,
            keyring=product.keyring,
            grace=product.grace,
            can_pay=payments.payable,
        )
        self.tally.problems += [
            f"{typeid('cus', one.customer_id)}: {one.reason}" for one in report.problems
        ]
        collected = payments.collect_due(product.database, product.gateways, clock=self._clock)
        self.tally.problems += collected.problems
        for state in ("succeeded", "declined", "requires_action", "unknown"):
            self.tally.payments[state] += getattr(collected, state)

    def _answer_the_bank(self) -> None:
        """Confirm what waits for its customer, and ask the gateway about what had no answer."""
        for life in self._lives.values():
            if life.person.token == Token.REQUIRES_ACTION:
                self._confirm(life.customer_id)
        product = self._product
        asked = payments.reconcile(product.database, product.gateways, now=self._clock.now())
        self.tally.problems += asked.problems
        self.tally.payments["succeeded"] += asked.succeeded
        self.tally.payments["declined"] += asked.declined

    def _confirm(self, customer_id: UUID) -> None:
        since = self._clock.now() - _ANSWERS_AT
        with self._product.database.transaction() as tx:
            waiting = [
                one
                for one in payments.attempts(tx, customer_id)
                if one.state is AttemptState.REQUIRES_ACTION and one.made_at > since
            ]
        for one in waiting:
            if self._chance.random() < _CONFIRMS:
                self._sandbox.confirm(typeid("pay", one.attempt_id))


def _pay_with(tx: Tx, customer_id: UUID, token: str, *, now: datetime) -> None:
    payments.add_method(
        tx, customer_id, gateway="sandbox", token=token, brand="visa", last_four="4242", now=now
    )


def _subscribe(tx: Tx, customer_id: UUID, person: Person, plan: str, *, now: datetime) -> None:
    subscriptions.create(
        tx,
        customer_id=customer_id,
        plan_key=plan,
        start=now,
        now=now,
        time_zone=person.time_zone,
        seats=person.seats,
    )
