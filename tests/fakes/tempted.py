"""Small drawn worlds in which everything that moves a bill happens.

Changes, add-ons, agreed prices and ramps, coupons, credit in units and in money, prices by
dimension, tax, late and voided usage.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from random import Random
from uuid import UUID

from convergio.billing import redeeming
from convergio.discounts import actions as discounts
from convergio.discounts.model import Duration, Terms
from convergio.entitlements import grants
from convergio.entitlements.model import Category, GrantTerms
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Rejected
from convergio.kernel.money import Money
from convergio.metering.model import VOID, Event
from convergio.rating.model import Flat, Unit
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import adding, changes, negotiating
from convergio.subscriptions.model import When
from convergio.taxes import actions as taxes
from tests.fakes.business import Business, at

START = at("2024-01-31T06:00:00Z")
MONTHS = 7
CATALOG = b"""
currency: usd
events: [{type: ai.request, keep: [model]}]
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity, group_by: [model],
     where: {quantity: {exists: true}}}
  - {key: storage, name: Storage, event: ai.request, aggregation: max, value: size,
     where: {size: {exists: true}}}
plans:
  - key: free
    name: Free
    prices:
      - {key: free_questions, name: Questions, meter: questions,
         quota: {limit: 50, hard: true}, charge: {model: unit, unit: 0}}
  - key: basic
    name: Basic
    prices:
      - {key: basic_fee, name: Basic, charge: {model: flat, amount: 9.95}}
      - {key: basic_questions, name: Questions, meter: questions,
         charge: {model: unit, unit: 0.037, included: 30}}
      - {key: basic_storage, name: Storage, meter: storage, tax_category: reduced,
         charge: {model: unit, unit: 0.25, included: 5}}
  - key: pro
    name: Pro
    prices:
      - {key: pro_fee, name: Pro, tax_inclusive: true, charge: {model: flat, amount: 49.99}}
      - key: pro_questions
        name: Questions
        meter: questions
        by: model
        charge: {model: unit, unit: 0.02, included: 10}
        charges:
          large: {model: unit, unit: 0.333, included: 10}
          small: {model: graduated, tiers: [{up_to: 20, flat: 1, unit: 0.05}, {unit: 0.01}]}
  - key: team
    name: Team
    prices:
      - {key: team_setup, name: Setup, once: true, charge: {model: flat, amount: 12.50}}
      - {key: team_seats, name: Seats, charge: {model: seat, unit: 7.77}}
      - {key: team_questions, name: Questions, meter: questions,
         charge: {model: package, package_size: 20, package_price: 2.50, included: 10,
                  included_per_seat: true}}
  - key: yearly
    name: Yearly
    prices:
      - {key: yearly_fee, name: Yearly, interval: year, charge: {model: flat, amount: 365.55}}
      - {key: yearly_questions, name: Questions, meter: questions,
         charge: {model: volume, tiers: [{up_to: 60, unit: 0.10}, {unit: 0.05}]}}
  - key: support
    name: Support
    add_on: true
    prices: [{key: support_fee, name: Support, charge: {model: flat, amount: 19.19}}]
  - key: lines
    name: Lines
    add_on: true
    prices: [{key: lines_fee, name: Lines, charge: {model: seat, unit: 3.33}}]
"""
TAXES = b"""
seller: IT
one_stop_shop: true
registrations: [{country: IT}]
rates:
  - {country: IT, percent: "22"}
  - {country: IT, category: reduced, percent: "10", to: 2024-05-01}
  - {country: IT, category: reduced, percent: "5", from: 2024-05-01}
  - {country: FR, percent: "20"}
  - {country: FR, category: reduced, percent: "5.5"}
"""
# Which units credit had paid when a document was written cannot be told once usage came late.
TIMELY = ("c3",)
PLANS = ("free", "basic", "pro", "team", "yearly")
COUPONS = (
    Terms("TENTH", "A tenth", percent=Decimal("10.5"), duration=Duration.FOREVER),
    Terms("THIRD", "A third", percent=Decimal("33.333333"), duration=Duration.REPEATING, periods=3),
    Terms("FIVE", "Five off", amount=555, currency="usd", duration=Duration.REPEATING, periods=4),
    Terms("PRO", "Off pro", amount=2000, currency="usd", plans=("pro",)),
)


class Tempted(Business):
    """A business that lives a drawn life; the same seed lives the same one."""

    def __init__(self, database: Database, seed: int, *, taxed: bool) -> None:
        """Open it, with coupons on offer."""
        super().__init__(database, START, CATALOG)
        self.chance = Random(seed)
        self.events = count()
        self.sent: list[tuple[str, str]] = []
        with database.transaction() as tx:
            if taxed:
                taxes.apply(tx, TAXES, now=START)
            for terms in COUPONS:
                discounts.create(tx, terms, now=START)
        countries = self.chance.choices(("IT", "FR", "US"), k=4)
        self.ids = {
            f"c{n}": self.customer(f"c{n}", country=country) for n, country in enumerate(countries)
        }

    def live(self) -> datetime:
        """Live some months, with a run every few days, and bill all of it; return until when."""
        for who in self.ids:
            self.act(who, self._subscribe)
        end = START + timedelta(days=30 * MONTHS)
        run_at = START + timedelta(days=3)
        while self.now < end:
            self.now += timedelta(seconds=self.chance.randrange(3_600, 90_000))
            who = self.chance.choice(list(self.ids))
            verb = self.chance.choice((self._use,) * 8 + self._verbs())
            self.act(who, verb)
            if self.now > run_at:
                self._run()
                run_at = self.now + timedelta(days=self.chance.choice((1, 2, 5, 40)))
        for _ in range(3):  # what waited for a next boundary finds one
            self.now += timedelta(days=32)
            self._run()
        return self.now - timedelta(hours=1)

    def act(self, who: str, verb: Callable[[Tx, str, UUID], None]) -> None:
        """Do what somebody does; what is refused has not happened."""
        with suppress(Rejected), self.database.transaction() as tx:
            verb(tx, who, self.ids[who])

    def _verbs(self) -> tuple[Callable[[Tx, str, UUID], None], ...]:
        return (
            self._change, self._change, self._seats, self._add_on, self._charge, self._agree,
            self._redeem, self._redeem, self._money, self._units, self._pause, self._resume,
            self._cancel, self._subscribe, self._void,
        )  # fmt: skip

    def _run(self) -> None:
        report = self.bill(self.now.isoformat().replace("+00:00", "Z"), now=self.now)
        assert not report.problems, report.problems

    def _subscribe(self, tx: Tx, _: str, who: UUID) -> None:
        subscriptions.create(
            tx, customer_id=who, plan_key=self.chance.choice(PLANS), start=self.now, now=self.now,
            time_zone=self.chance.choice(("UTC", "Europe/Rome")), seats=self.chance.choice((1, 3)),
        )  # fmt: skip

    def _change(self, tx: Tx, _: str, who: UUID) -> None:
        when = self.chance.choice((When.NOW, When.NOW, When.PERIOD_END))
        plan = self.chance.choice(PLANS)
        changes.change(tx, customer_id=who, plan_key=plan, when=when, now=self.now)

    def _seats(self, tx: Tx, _: str, who: UUID) -> None:
        changes.change(
            tx, customer_id=who, seats=self.chance.randrange(1, 6), when=When.NOW, now=self.now
        )

    def _add_on(self, tx: Tx, _: str, who: UUID) -> None:
        key, quantity = self.chance.choice((("support", 0), ("support", 1), ("lines", 4)))
        adding.set_add_on(tx, customer_id=who, key=key, quantity=quantity, now=self.now)

    def _charge(self, tx: Tx, _: str, who: UUID) -> None:
        adding.charge_once(
            tx, customer_id=who, description="Training", amount=Money(4321, "usd"), now=self.now
        )

    def _agree(self, tx: Tx, _: str, who: UUID) -> None:
        """Agree on a fee, on usage, or on a fee in two steps."""
        key, charge = self.chance.choice(
            (
                ("basic_fee", Flat(amount="7.77")),
                ("pro_fee", Flat(amount="39.39")),
                ("basic_questions", Unit(unit="0.011", included="50")),
            )
        )
        steps = [negotiating.Step(None, {key: negotiating.Terms(charge)})]
        if self.chance.random() < 0.5 and isinstance(charge, Flat):
            later = self.now + timedelta(days=40)
            steps.append(negotiating.Step(later, {key: negotiating.Terms(Flat(amount="5.55"))}))
        negotiating.agree(tx, customer_id=who, steps_=steps, now=self.now)

    def _redeem(self, tx: Tx, _: str, who: UUID) -> None:
        code = self.chance.choice(COUPONS).code
        redeeming.redeem(tx, customer_id=who, code=code, now=self.now)

    def _money(self, tx: Tx, name: str, _: UUID) -> None:
        terms = GrantTerms(
            key=f"money-{next(self.events)}", category=Category.PROMOTIONAL, amount="17.17",
            expires_at=self.now + timedelta(days=self.chance.choice((20, 90))),
        )  # fmt: skip
        grants.create(tx, name, terms, now=self.now)

    def _units(self, tx: Tx, name: str, _: UUID) -> None:
        terms = GrantTerms(
            key=f"units-{next(self.events)}", category=Category.PURCHASED, meter_key="questions",
            quantity=Decimal(25),
        )  # fmt: skip
        if name in TIMELY and not self._ever_sliced(tx, self.ids[name]):
            grants.create(tx, name, terms, now=self.now)

    def _ever_sliced(self, tx: Tx, who: UUID) -> bool:
        """Say whether somebody has or had prices by a dimension, which draw no units."""
        return any(one.plan_key == "pro" for one in subscriptions.history(tx, who))

    def _pause(self, tx: Tx, _: str, who: UUID) -> None:
        changes.pause(tx, customer_id=who, now=self.now)

    def _resume(self, tx: Tx, _: str, who: UUID) -> None:
        changes.resume(tx, customer_id=who, now=self.now)

    def _cancel(self, tx: Tx, _: str, who: UUID) -> None:
        subscriptions.cancel(
            tx, customer_id=who, at_period_end=self.chance.random() < 0.5,
            credit=self.chance.random() < 0.5, now=self.now,
        )  # fmt: skip

    def _use(self, _: Tx, name: str, __: UUID) -> None:
        late = timedelta(days=0 if name in TIMELY else self.chance.choice((0, 0, 0, 0, 3, 35)))
        data = {"quantity": str(self.chance.choice((1, 5, 20, 33.5))), "size": "7"}
        data["model"] = self.chance.choice(("large", "small", "tiny"))
        self._send(name, f"e-{next(self.events)}", max(START, self.now - late), "ai.request", data)

    def _void(self, _: Tx, __: str, ___: UUID) -> None:
        if self.sent:
            name, event_id = self.sent.pop(self.chance.randrange(len(self.sent)))
            data = {"source": "test", "id": event_id}
            self._send(name, f"v-{event_id}", self.now, VOID, data)

    def _send(self, name: str, id_: str, when: datetime, type_: str, data: dict[str, str]) -> None:
        event = Event(id_, "test", type_, name, time=when, data=data)
        [verdict] = self.ingestor.ingest([event], now=self.now, importing=True)
        assert verdict.status == "accepted", verdict
        if type_ != VOID and name not in TIMELY:
            self.sent.append((name, id_))
