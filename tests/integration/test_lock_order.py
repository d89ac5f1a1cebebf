"""Locks are taken in one order (docs/adr/0018), so that those who meet wait and never deadlock."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, issuing
from convergio.entitlements.model import Leased
from convergio.infra.clock import VirtualClock, pause
from convergio.infra.db import Database
from convergio.kernel.money import Money
from convergio.payments import actions as payments
from convergio.payments import checking, receiving
from convergio.payments.gateways.sandbox import Sandbox
from convergio.payments.model import CollectReport, ReceiptMethod
from tests.fakes.business import SELLER, Business, at
from tests.fakes.credit import Shop
from tests.integration.test_meeting import deadlocks, is_waiting

SUBSCRIPTION: LiteralString = "SELECT 1 FROM subscription WHERE customer_id = %s FOR UPDATE"
INVOICE: LiteralString = "SELECT 1 FROM invoice WHERE customer_id = %s FOR UPDATE"
ROUNDS, CUSTOMERS = 12, 2
START, FIRST_CUT, SECOND_CUT = "2025-01-01", "2025-01-08", "2025-01-11"


class Till(Business):
    """A business that collects with a card that is always declined."""

    def __init__(self, database: Database, now: datetime, names: list[str]) -> None:
        """Bill each customer's November."""
        super().__init__(database, now)
        self.clock = VirtualClock(now)
        self.sandbox = Sandbox(database, self.clock)
        self.ids = [self.customer(name) for name in names]
        for each in self.ids:
            self.subscribe(each, "pro", "2024-11-01")
            self.renew_card(each)
        self.bill("2024-11-02")

    def collect(self, now: datetime) -> CollectReport:
        """Try to collect what is due at an instant."""
        clock = VirtualClock(now)
        return payments.collect_due(self.database, {"sandbox": self.sandbox}, clock=clock)

    def renew_card(self, customer_id: UUID) -> None:
        """Have another card of the kind, so that all is tried again."""
        self.database.insist(
            lambda tx: payments.add_method(
                tx, customer_id, gateway="sandbox", token="tok_declined", now=self.now
            )
        )

    def receive(self, customer_id: UUID, reference: str, amount: str = "0.01") -> None:
        """Enter a transfer."""
        self.database.insist(
            lambda tx: receiving.record(
                tx, customer_id=customer_id, amount=Money.parse(amount, "usd"),
                method=ReceiptMethod.BANK_TRANSFER, reference=reference,
                received_on=date(2025, 1, 14), now=self.now,
            )
        )  # fmt: skip

    def credit(self, customer_id: UUID) -> None:
        """Give a cent of the first invoice back."""
        by = issuing.Issuer(SELLER, self.keyring, self.now, self.now)
        invoice = self.invoices(customer_id)[0]
        cent = Money(1, "usd")
        self.database.insist(
            lambda tx: correcting.credit(tx, by, invoice=invoice, reason="late", amount=cent)
        )

    def collect_all(self, day: int) -> None:
        """Have new cards, and collect some days later."""
        for each in self.ids:
            self.renew_card(each)
        self.collect(self.now + timedelta(days=day))

    def credit_all(self, _: int) -> None:
        """Give each customer a cent back."""
        for each in self.ids:
            self.credit(each)

    def receive_all(self, number: int) -> None:
        """Enter a cent of each customer."""
        for each in self.ids:
            self.receive(each, f"TRF {number}")

    def bill_month(self, month: int) -> None:
        """Bill a month of the next year."""
        self.bill(f"2025-{month + 1:02}-02")


def again(work: Callable[[int], None]) -> None:
    """Do the same work so many times."""
    for number in range(ROUNDS):
        work(number)


@contextmanager
def held(dsn: str, first: LiteralString, then: LiteralString, who: UUID) -> Iterator[Any]:
    """Hold one row, let work come to wait for it, and take the other row: it must be free."""
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:

        def meet(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
            other.execute(first, [who])
            found = pool.submit(work)
            while not is_waiting(dsn):
                assert not found.done(), found.result()
                pause(0.01)
            other.execute(then, [who])
            other.rollback()
            return found.result(30)

        yield meet


@pytest.mark.parametrize("what", ["collect", "receive", "record", "ask again", "let in"])
def test_payments_wait_for_the_subscription_before_they_have_an_invoice(
    dsn: str, database: Database, now: datetime, what: str
) -> None:
    till = Till(database, now, ["acme"])
    (who,) = till.ids
    if what == "ask again":  # an attempt without an answer is asked about and recorded
        with database.transaction() as tx:
            payments.add_method(tx, who, gateway="sandbox", token="tok_timeout_charged", now=now)
        till.collect(now)
    if what == "let in":  # all tries have failed, and then the invoice is void
        for day in range(8):
            till.collect(now + timedelta(days=day))
        with database.transaction() as tx:
            tx.raw.execute("UPDATE invoice SET status = 'void'")
    works: dict[str, Callable[[], Any]] = {
        "let in": lambda: till.collect(now + timedelta(days=8)),
        "collect": lambda: till.collect(now),
        "receive": lambda: till.receive(who, "TRF 1", "6.99"),
        "record": lambda: till.collect(now),
        "ask again": lambda: payments.reconcile(
            database, {"sandbox": till.sandbox}, now=now + timedelta(hours=1)
        ),
    }
    with held(dsn, SUBSCRIPTION, INVOICE, who) as meet:
        meet(works[what])
    assert deadlocks(database) == 0
    with database.transaction() as tx:
        assert checking.verify(tx) == []


def test_runs_credits_and_payments_hammer_the_same_customers_without_a_deadlock(
    database: Database, now: datetime
) -> None:
    till = Till(database, now, [f"c-{number}" for number in range(CUSTOMERS)])
    works = (till.collect_all, till.credit_all, till.receive_all, till.bill_month)
    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(again, works))
    assert deadlocks(database) == 0
    with database.transaction() as tx:
        assert [*checking.verify(tx), *till.verify()] == []
    assert [one.credited + one.paid for one in till.invoices()[:CUSTOMERS]] == [
        2 * ROUNDS
    ] * CUSTOMERS


def test_beginning_to_collect_waits_for_nobody_who_has_an_invoice(
    database: Database, now: datetime
) -> None:
    till = Till(database, now, ["acme"])
    (invoice,) = till.invoices()
    with database.transaction() as tx:
        billing.lock_invoice(tx, invoice.customer_id, invoice.invoice_id)
        with database.transaction() as other:
            other.raw.execute("SET LOCAL lock_timeout = '2s'")
            payments.open_collections(other, now=now)
    with database.transaction() as tx:
        assert len(payments.collections(tx, invoice.customer_id)) == 1


def test_late_events_decisions_and_corrections_of_a_cut_period_never_deadlock(
    database: Database,
) -> None:
    shop = Shop(database, at(START))
    who = shop.customer("acme")
    shop.subscribe(who, "capped", START)
    shop.use("acme", 100, "2025-01-05")
    shop.change(who, FIRST_CUT, plan="capped_big")
    shop.use("acme", 1, "2025-01-09")
    shop.change(who, SECOND_CUT, plan="capped", now=True)
    shop.left("2025-01-12")
    desks = [Shop(database, at(START)) for _ in range(3)]

    def late(desk: Shop, number: int) -> None:
        day = ("2025-01-06", "2025-01-09")[number % 2]
        desk.send("ai.request", day, {"quantity": 1}, now="2025-01-12", id=f"l-{number}")

    def timely(desk: Shop, number: int) -> None:
        desk.send("ai.request", "2025-01-12", {"quantity": 1}, now="2025-01-12", id=f"t-{number}")

    def ask(desk: Shop, number: int) -> None:
        held = desk.ask("1", "2025-01-12")
        if held is not None and number % 2:
            desk.gate.commit("acme", held, actual=Decimal(1), now=at("2025-01-12T00:00:01Z"))
        elif held is not None:
            desk.gate.release("acme", held, now=at("2025-01-12T00:00:01Z"))

    def correct(desk: Shop, number: int) -> None:
        event = desk.send("ai.request", "2025-01-07", {"quantity": 1}, id=f"c-{number}")
        desk.send("convergio.void", "2025-01-13", {"id": event, "source": "test"}, id=f"v-{number}")

    def lease(desk: Shop, number: int) -> None:
        moment = at("2025-01-12") + timedelta(microseconds=number)
        found = desk.gate.leases.acquire("acme", "questions", Decimal(1), now=moment)
        assert isinstance(found, Leased)
        desk.gate.leases.settle(
            "acme", found.lease.lease_id, used=Decimal(1), now=at("2025-01-12T00:00:01Z")
        )

    def work(number: int) -> None:
        (late, timely, ask, correct, lease)[number % 5](desks[number % 3], number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(150)))
    assert deadlocks(database) == 0
    assert shop.verify() == []
