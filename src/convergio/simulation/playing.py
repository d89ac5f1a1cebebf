"""Play a script on the real product, and tell the oracle what the product agreed to.

Every step is an action of the product's own rooms, on real Postgres, under the virtual clock. What
is refused is not told; what the outside world decides, such as a card that is declined, is read
back and told. The amounts are compared, not told: the oracle has its own.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import msgspec

from convergio.billing import actions as billing
from convergio.billing.actions import Issuer
from convergio.billing.charging import TAX_UNKNOWN
from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.clock import VirtualClock
from convergio.kernel.errors import Rejected
from convergio.kernel.money import Money
from convergio.metering.model import AMEND, VOID, Event, Verdict
from convergio.payments import actions as payments
from convergio.simulation import assortment, deeds, deeds_parts
from convergio.simulation.deeds import numbered
from convergio.simulation.faults import FaultyDatabase, Killed, at_once, kill, patiently
from convergio.simulation.oracle import Account, Fact
from convergio.simulation.oracle_tax import Place
from convergio.simulation.script import NOBODY, Script, Step
from convergio.wiring import App

SOURCE: Final = "simulator"
_EVENTS: Final = frozenset({"use", "void", "amend"})
_NOT_DATA: Final = frozenset({"id", "time", "fix"})
_MONTH: Final = timedelta(days=30)
_BATCH_MAX: Final = 1_000
_INVOICES_MAX: Final = 100_000
_AGAIN: Final = 0.1
_KILLED: Final = 0.15
_TOGETHER: Final = 0.3
_NOBODY: Final = UUID(int=0)
_COUNTRY: Final = "US"


@dataclass(slots=True)
class Played:
    """What came of a script: the oracle's accounts, the ids, and what was counted."""

    accounts: dict[str, Account]
    ids: dict[str, UUID]
    tally: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Stage:
    """One world on one database, at a moving now."""

    def __init__(
        self, product: App, clock: VirtualClock, script: Script, *, chance: Random | None = None
    ) -> None:
        """Put the catalog on sale and make the customers; with `chance` things go wrong."""
        self._chance = chance
        self._product, self._clock, self._script = product, clock, script
        self._waiting: list[Step] = []
        self._paid: Counter[tuple[str, int]] = Counter()
        self._catalog = script.catalog
        with product.database.transaction() as tx:
            catalog.apply(tx, msgspec.json.encode(script.catalog), now=clock.now())
        plans = {plan["key"]: plan for plan in script.catalog["plans"]}
        meters = {meter["key"]: meter for meter in script.catalog["meters"]}
        yen = {
            s.who
            for s in script.steps
            if s.words.get("plan") in assortment.YEN or s.words.get("currency") == "jpy"
        }
        least = script.catalog.get("minimum_charge", {})
        accounts = {
            who: Account(
                plans,
                meters,
                currency,
                place=Place(_COUNTRY),
                least=Money.parse(least.get(currency, "0"), currency).minor,
            )
            for who in script.customers
            for currency in ("jpy" if who in yen else "usd",)
        }
        self.played = Played(accounts, self._customers(accounts))
        if isinstance(product.database, FaultyDatabase):
            product.database.armed = True

    def _customers(self, accounts: Mapping[str, Account]) -> dict[str, UUID]:
        with self._product.database.transaction() as tx:
            return {
                who: customers.create(
                    tx,
                    self._product.keyring,
                    key=who,
                    now=self._clock.now(),
                    currency=account.currency,
                    country=_COUNTRY,
                ).customer_id
                for who, account in accounts.items()
            }

    def play(self, checked: Callable[[Played], bool], progress: Callable[[int], None]) -> None:
        """Live every step; `checked` is asked about once a month and at the end, and may stop."""
        month = self._script.steps[0].at + _MONTH
        for step in self._script.steps:
            if step.at > month:
                self._deliver()
                if not checked(self.played):
                    return
                month += _MONTH
            self._clock.advance_to(max(step.at, self._clock.now()))
            self._step(step)
            progress(1)
        self._deliver()
        checked(self.played)

    def _step(self, step: Step) -> None:
        if step.verb in _EVENTS:
            self._waiting.append(step)
            if len(self._waiting) >= _BATCH_MAX:
                self._deliver()
            return
        self._deliver()
        if step.who == NOBODY and step.verb not in deeds.OF_THE_SELLER:
            try:
                getattr(self, f"_{step.verb}")(step)
            except Rejected as error:
                self.played.tally[f"{step.verb} refused: {error.code}"] += 1
            return
        product, now = self._product, self._clock.now()

        def deed() -> Step:
            by = Issuer(product.settings.seller, product.keyring, now, now)
            with product.database.transaction() as tx:
                customer_id = self.played.ids.get(step.who, _NOBODY)
                return deeds.do(tx, step, customer_id=customer_id, by=by)

        try:
            told = patiently(deed)
        except Rejected as error:
            self.played.tally[f"{step.verb} refused: {error.code}"] += 1
            return
        self.played.tally[step.verb] += 1
        for who in self.played.accounts if step.who == NOBODY else (step.who,):
            self._tell(who, told.verb, told.words)

    def _tell(self, who: str, verb: str, words: Mapping[str, str]) -> None:
        if verb == "paid":
            self._paid[who, int(words["invoice"])] += int(words.get("reached", words["amount"]))
        self.played.accounts[who].told(Fact(self._clock.now(), verb, words))

    def _deliver(self) -> None:
        """Send the waiting events in one batch, as a product's servers do."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        verdicts = self._sent(waiting)
        if self._chance and self._chance.random() < _AGAIN:
            self._sent(waiting)  # a client that never heard the answer
        for step, verdict in zip(waiting, verdicts, strict=True):
            self.played.tally[f"{step.verb} {verdict.status}"] += 1
            if verdict.status == "accepted":
                account = self.played.accounts[step.who]
                account.told(Fact(step.at, step.verb, step.words))

    def _sent(self, steps: Sequence[Step]) -> list[Verdict]:
        events, now = [_event(step) for step in steps], self._clock.now()
        return patiently(lambda: self._product.ingestor.ingest(events, now=now, importing=True))

    def _run(self, step: Step) -> None:
        grace = timedelta(seconds=int(step.words.get("grace", "3600")))
        now, fault = self._clock.now(), self._chance.random() if self._chance else 1.0
        if fault < _KILLED:
            with suppress(Killed):
                patiently(lambda: self._billed(grace, progress=kill))
        elif fault < _TOGETHER:
            at_once(lambda: self._billed(grace))
        patiently(lambda: self._billed(grace))
        self.played.tally["run"] += 1
        for who in self.played.accounts:
            self._tell(who, "run", {"closed": (now - grace).isoformat()})

    def _reprice(self, step: Step) -> None:
        """Sell a price in a new version; everyone hears of it."""
        newer, now = deeds_parts.repriced(self._catalog, step.words), self._clock.now()

        def apply() -> None:
            with self._product.database.transaction() as tx:
                catalog.apply(tx, msgspec.json.encode(newer), now=now)

        patiently(apply)
        self._catalog = newer
        self.played.tally["reprice"] += 1
        for who in self.played.accounts:
            self._tell(who, "reprice", step.words)

    def _migrate(self, step: Step) -> None:
        """Move those who have an older version of a price, but for whom the product leaves out."""
        database, now = self._product.database, self._clock.now()
        left = patiently(lambda: deeds_parts.migrate(database, step, now=now))
        for who, customer_id in self.played.ids.items():
            if customer_id not in left:
                self._tell(who, "migrate", step.words)
        self.played.tally["migrate"] += 1

    def _billed(self, grace: timedelta, progress: Callable[[int], None] | None = None) -> None:
        product, now = self._product, self._clock.now()
        report = billing.run(
            product.database,
            as_of=now,
            now=now,
            seller=product.settings.seller,
            keyring=product.keyring,
            grace=grace,
            progress=progress,
            can_pay=payments.payable,
        )
        self.played.problems += [o.reason for o in report.problems if o.code != TAX_UNKNOWN]
        self.played.tally["invoices"] += report.invoices
        self.played.tally["credit notes"] += report.credit_notes

    def _collect(self, _: Step) -> None:
        """Charge what is due, and tell what the gateway captured."""
        product, now = self._product, self._clock.now()
        report = patiently(
            lambda: payments.collect_due(product.database, product.gateways, clock=self._clock)
        )
        if self._chance:  # an attempt whose answer was undone is asked about at once
            patiently(
                lambda: payments.reconcile(
                    product.database, product.gateways, now=now, older_than=timedelta(0)
                )
            )
        self.played.problems += report.problems
        self.played.tally["declined"] += report.declined
        with product.database.snapshot() as tx:
            found = billing.page(tx, limit=_INVOICES_MAX)
        for who, customer_id in self.played.ids.items():
            mine = numbered([one for one in found if one.customer_id == customer_id])
            for number, invoice in enumerate(mine):
                more = invoice.paid - invoice.excess - self._paid[who, number]
                if more:
                    self._tell(who, "paid", {"invoice": str(number), "amount": str(more)})
                    self.played.tally["collected"] += 1


def _event(step: Step) -> Event:
    """Return a step as the event that the seller's system would send."""
    words = step.words
    if step.verb == "use":
        data = {name: value for name, value in words.items() if name not in _NOT_DATA}
        at = datetime.fromisoformat(words["time"])
        return Event(words["id"], SOURCE, assortment.EVENT, step.who, time=at, data=data)
    about: dict[str, object] = {"source": SOURCE, "id": words["id"]}
    if step.verb == "amend":
        about["data"] = {name: words[name] for name in words if name not in _NOT_DATA}
    kind = VOID if step.verb == "void" else AMEND
    return Event(words["fix"], SOURCE, kind, step.who, time=step.at, data=about)
