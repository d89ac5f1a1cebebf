"""Collecting: every invoice is paid at most once, whatever the network, the bank and kill -9 do."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.ids import new_id, typeid
from convergio.kernel.errors import Invalid, OutcomeUnknown, Unavailable
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.payments import actions, checking
from convergio.payments.gateways.protocol import ChargeRequest, ChargeResult, Gateway
from convergio.payments.gateways.sandbox import Sandbox
from convergio.payments.model import CollectReport

ORPHAN = (
    "INSERT INTO ledger_transfer SELECT gen_random_uuid(), transfer_id, kind, source_id,"
    " debit_account, credit_account, amount, currency, occurred_at"
    " FROM ledger_transfer WHERE kind = 'payment'"
)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """Customers with one live subscription each, invoices, a sandbox and one clock for all."""

    database: Database
    clock: VirtualClock
    sandbox: Sandbox

    @property
    def gateways(self) -> dict[str, Gateway]:
        return {"sandbox": self.sandbox}

    def run(self, statement: str, *values: object) -> None:
        with self.database.transaction() as tx:
            tx.raw.execute(statement.encode(), values)

    def value(self, statement: str, *values: object) -> Any:  # noqa: ANN401 - any column
        with self.database.transaction() as tx:
            row = tx.raw.execute(statement.encode(), values).fetchone()
            return row and row[0]

    def customer(self, token: str | None, status: str = "active") -> UUID:
        customer_id = new_id(self.clock.now())
        self.run(
            "INSERT INTO customer (customer_id, customer_key, currency, created_at, updated_at)"
            " VALUES (%s, %s, 'usd', %s, %s)",
            customer_id, str(customer_id), START, START,
        )  # fmt: skip
        self.run(
            "INSERT INTO subscription (customer_id, subscription_id, plan_key, status, currency,"
            " time_zone, anchor_at, started_at, created_at)"
            " VALUES (%s, %s, 'pro', %s, 'usd', 'UTC', %s, %s, %s)",
            customer_id, new_id(START), status, START, START, START,
        )  # fmt: skip
        if token is not None:
            self.method(customer_id, token)
        return customer_id

    def method(self, customer_id: UUID, token: str) -> None:
        with self.database.transaction() as tx:
            actions.add_method(
                tx, customer_id, gateway="sandbox", token=token, brand="visa", last_four="4242",
                now=self.clock.now(),
            )  # fmt: skip

    def invoice(self, customer_id: UUID, minor: int = 699) -> UUID:
        """Issue an invoice that is due 14 days later, with its transfer."""
        now = self.clock.now()
        invoice_id = new_id(now)
        number = self.value("SELECT count(*) + 1 FROM invoice")
        self.run(
            "INSERT INTO invoice (customer_id, invoice_id, boundary_at, series, year, number,"
            " status, currency, total, paid, issued_on, due_on, finalized_at, sealed_buyer)"
            " VALUES (%s, %s, %s, 'CVG', 2025, %s, 'open', 'usd', %s, 0, %s, %s, %s, '')",
            customer_id, invoice_id, START + number * DAY, number, minor, now.date(),
            now.date() + 14 * DAY, now,
        )  # fmt: skip
        with self.database.transaction() as tx:
            amount = Money(minor, "usd")
            ledger.post_many(tx, [Transfer(
                customer_id, new_id(now), Kind.INVOICE, invoice_id, Account.RECEIVABLE,
                Account.USAGE_REVENUE, amount, now,
            )])  # fmt: skip
        return invoice_id

    def collect(self, gateway: Gateway | None = None) -> CollectReport:
        gateways = self.gateways if gateway is None else {"sandbox": gateway}
        return actions.collect_due(self.database, gateways, clock=self.clock)

    def reconcile(self, gateway: Gateway | None = None) -> CollectReport:
        gateways = self.gateways if gateway is None else {"sandbox": gateway}
        return actions.reconcile(self.database, gateways, now=self.clock.now())

    def later(self, time: timedelta) -> None:
        self.clock.advance_to(self.clock.now() + time)

    def status(self, customer_id: UUID) -> str:
        found = self.value("SELECT status FROM subscription WHERE customer_id = %s", customer_id)
        return str(found)

    def states(self, customer_id: UUID) -> list[str]:
        """Return the states of the attempts, in their order."""
        with self.database.transaction() as tx:
            return [one.state.value for one in actions.attempts(tx, customer_id)]

    def collection(self, customer_id: UUID) -> tuple[str, datetime | None]:
        with self.database.transaction() as tx:
            (one,) = actions.collections(tx, customer_id)
        return one.state.value, one.next_at

    def paid(self, invoice_id: UUID) -> tuple[int, str]:
        row = "SELECT ARRAY[paid::text, status] FROM invoice WHERE invoice_id = %s"
        paid, status = self.value(row, invoice_id)
        return int(paid), str(status)

    def charges(self) -> int:
        """Return how often the processor really took money."""
        taken = "SELECT count(*) FROM sandbox.charge WHERE outcome = 'succeeded'"
        return int(self.value(taken))

    def owes(self, customer_id: UUID) -> int:
        with self.database.transaction() as tx:
            return ledger.balance(tx, customer_id, Account.RECEIVABLE, "usd").minor

    def differences(self) -> list[str]:
        with self.database.transaction() as tx:
            return [str(one) for one in checking.verify(tx)]


@pytest.fixture
def world(database: Database, now: datetime) -> World:
    clock = VirtualClock(now)
    made = World(database, clock, Sandbox(database, clock))
    made.run("INSERT INTO plan (plan_key, name, position) VALUES ('pro', 'Pro', 1)")
    return made


class KilledError(Exception):
    """The process is gone at this line."""


@dataclass
class Dying:
    """The sandbox, called by a process that dies before or after the call."""

    sandbox: Sandbox
    after_call: bool

    def charge(self, request: ChargeRequest) -> ChargeResult:
        if self.after_call:
            self.sandbox.charge(request)
        raise KilledError

    def find(self, idempotency_key: str) -> ChargeResult | None:
        return self.sandbox.find(idempotency_key)


@dataclass
class Silent:
    """A gateway that does not answer at all."""

    error: Callable[[str], Exception]

    def charge(self, request: ChargeRequest) -> ChargeResult:
        raise self.error(f"no answer for {request.idempotency_key}")

    def find(self, idempotency_key: str) -> ChargeResult | None:
        raise self.error(f"no answer for {idempotency_key}")


@dataclass
class Slow:
    """The sandbox, behind a call that lasts while something else happens, once."""

    sandbox: Sandbox
    meanwhile: Callable[[], None]
    waits: bool = True

    def charge(self, request: ChargeRequest) -> ChargeResult:
        if self.waits:
            self.waits = False
            self.meanwhile()
        return self.sandbox.charge(request)

    def find(self, idempotency_key: str) -> ChargeResult | None:
        return self.sandbox.find(idempotency_key)


def test_a_payment_closes_the_invoice_and_balances_the_ledger(world: World) -> None:
    customer = world.customer("tok_ok")
    invoice = world.invoice(customer)
    report = world.collect()
    assert (report.succeeded, report.collected, report.problems) == (1, {"usd": "6.99"}, ())
    assert world.paid(invoice) == (699, "paid")
    assert world.collection(customer) == ("paid", None)
    assert world.owes(customer) == 0
    with world.database.transaction() as tx:
        clearing = ledger.balance(tx, customer, Account.GATEWAY_CLEARING, "usd")
        fees = ledger.balance(tx, customer, Account.GATEWAY_FEES, "usd")
    assert (clearing.minor, fees.minor) == (649, 50)
    assert world.status(customer) == "active"
    assert world.differences() == []


def test_collecting_again_charges_nothing(world: World) -> None:
    world.invoice(world.customer("tok_ok"))
    world.collect()
    world.later(30 * DAY)
    assert world.collect().succeeded == 0
    assert world.reconcile().succeeded == 0
    assert world.charges() == 1


def test_declines_follow_the_schedule_to_unpaid_and_a_new_method_recovers(world: World) -> None:
    customer = world.customer("tok_declined")
    invoice = world.invoice(customer)
    first, tries = world.clock.now(), []
    for _ in range(10 * 24):
        if world.collect().declined:
            tries.append((world.clock.now() - first) / DAY)
            expected = "past_due" if len(tries) < 5 else "unpaid"
            assert world.status(customer) == expected
        world.later(HOUR)
    assert tries == [0, 1, 3, 5, 7]
    assert world.collection(customer) == ("exhausted", None)
    assert (world.paid(invoice), world.charges()) == ((0, "open"), 0)
    world.method(customer, "tok_ok")
    assert world.collect().succeeded == 1
    assert (world.paid(invoice), world.status(customer)) == ((699, "paid"), "active")
    assert world.differences() == []


def test_a_payment_in_the_middle_of_the_schedule_makes_the_customer_active(world: World) -> None:
    customer = world.customer("tok_declined_twice")
    world.invoice(customer)
    world.collect()
    assert world.status(customer) == "past_due"
    world.later(DAY)
    world.collect()
    world.later(2 * DAY)
    world.collect()
    assert world.states(customer) == ["declined", "declined", "succeeded"]
    assert world.status(customer) == "active"
    assert world.differences() == []


def test_a_method_with_a_hard_decline_is_never_charged_again(world: World) -> None:
    customer = world.customer("tok_stolen")
    world.invoice(customer)
    assert world.collect().waiting_for_method == 1
    assert world.status(customer) == "past_due"
    world.invoice(customer, 100)
    for _ in range(8):
        world.later(DAY)
        world.collect()
    assert world.states(customer) == ["declined"]
    assert world.status(customer) == "unpaid"
    world.method(customer, "tok_ok")
    assert world.collect().succeeded == 2
    assert world.status(customer) == "active"
    assert world.differences() == []


def test_who_has_no_method_becomes_past_due_only_when_the_invoice_is_overdue(world: World) -> None:
    customer = world.customer(None)
    world.invoice(customer)
    assert world.collect().waiting_for_method == 1
    assert world.status(customer) == "active"
    world.later(14 * DAY)
    world.collect()
    assert world.status(customer) == "active"
    world.later(DAY)
    world.collect()
    assert world.status(customer) == "past_due"
    world.later(7 * DAY)
    assert world.collect().exhausted == 1
    assert world.status(customer) == "unpaid"
    assert world.states(customer) == []
    assert world.differences() == []


def test_a_question_to_the_customer_is_no_failure_and_no_second_charge(world: World) -> None:
    customer = world.customer("tok_requires_action")
    invoice = world.invoice(customer)
    assert world.collect().requires_action == 1
    assert world.status(customer) == "active"
    world.method(customer, "tok_ok")
    world.later(HOUR)
    assert world.collect().succeeded == 0
    assert world.reconcile().requires_action == 1
    assert world.states(customer) == ["requires_action"]
    with world.database.transaction() as tx:
        (attempt,) = actions.attempts(tx, customer)
    world.sandbox.confirm(typeid("pay", attempt.attempt_id))
    assert world.reconcile().succeeded == 1
    assert world.paid(invoice) == (699, "paid")
    assert world.charges() == 1
    assert world.differences() == []


def test_a_question_that_is_never_answered_becomes_a_decline(world: World) -> None:
    customer = world.customer("tok_requires_action")
    world.invoice(customer)
    world.collect()
    world.later(DAY)
    assert world.reconcile().declined == 1
    assert world.status(customer) == "past_due"
    world.later(DAY)
    assert world.collect().requires_action == 1
    assert world.states(customer) == ["declined", "requires_action"]


def test_a_lost_answer_is_unknown_then_paid_once(world: World) -> None:
    customer = world.customer("tok_timeout_charged")
    invoice = world.invoice(customer)
    report = world.collect()
    assert (report.unknown, report.declined) == (1, 0)
    assert world.status(customer) == "active"
    world.later(timedelta(minutes=5))
    assert world.collect() == world.reconcile()  # too early to ask, and nothing is tried again
    assert world.states(customer) == ["unknown"]
    world.later(HOUR)
    assert world.reconcile().succeeded == 1
    assert world.paid(invoice) == (699, "paid")
    assert (world.states(customer), world.charges()) == (["succeeded"], 1)
    assert world.differences() == []


def test_a_lost_question_is_asked_again_under_the_same_key(world: World) -> None:
    customer = world.customer("tok_timeout_lost")
    world.invoice(customer)
    assert world.collect().unknown == 1
    assert world.charges() == 0
    world.later(HOUR)
    assert world.reconcile().succeeded == 1
    assert (world.states(customer), world.charges()) == (["succeeded"], 1)
    with world.database.transaction() as tx:
        (attempt,) = actions.attempts(tx, customer)
    key = world.value("SELECT idempotency_key FROM sandbox.charge")
    assert key == typeid("pay", attempt.attempt_id)
    assert world.differences() == []


@pytest.mark.parametrize("after_call", [False, True])
def test_a_process_killed_around_the_call_leaves_one_charge(
    world: World, *, after_call: bool
) -> None:
    customer = world.customer("tok_ok")
    invoice = world.invoice(customer)
    with pytest.raises(KilledError):
        world.collect(Dying(world.sandbox, after_call))
    assert world.states(customer) == ["intent"]
    assert world.collect().succeeded == 0  # another try has to wait for the answer to this one
    world.later(HOUR)
    assert world.reconcile().succeeded == 1
    assert world.paid(invoice) == (699, "paid")
    assert (world.states(customer), world.charges()) == (["succeeded"], 1)
    assert world.differences() == []


def test_a_process_killed_while_recording_leaves_nothing_half_done(world: World) -> None:
    customer = world.customer("tok_ok")
    world.invoice(customer)
    world.run("ALTER TABLE ledger_transfer ADD CONSTRAINT broken CHECK (kind <> 'fee') NOT VALID")
    with pytest.raises(Exception, match="broken"):
        world.collect()
    assert (world.states(customer), world.owes(customer)) == (["intent"], 699)
    world.run("ALTER TABLE ledger_transfer DROP CONSTRAINT broken")
    world.later(HOUR)
    assert world.reconcile().succeeded == 1
    assert (world.owes(customer), world.charges()) == (0, 1)
    assert world.differences() == []


@pytest.mark.parametrize("error", [OutcomeUnknown, Unavailable])
def test_a_silent_gateway_leaves_everything_unknown_until_it_answers(
    world: World, error: Callable[[str], Exception]
) -> None:
    customer = world.customer("tok_ok")
    world.invoice(customer)
    assert world.collect(Silent(error)).unknown == 1
    for _ in range(3):
        world.later(DAY)
        assert world.reconcile(Silent(error)).unknown == 1
        assert world.collect().succeeded == 0
    assert world.status(customer) == "active"
    assert world.reconcile().succeeded == 1
    assert world.charges() == 1


def test_two_collectors_at_once_charge_each_invoice_once(world: World) -> None:
    customers = [world.customer("tok_ok") for _ in range(12)]
    for customer in customers:
        world.invoice(customer)
        world.invoice(customer, 100)
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: world.collect(), range(4)))
    assert sum(report.succeeded for report in reports) == 24
    assert [report.problems for report in reports] == [()] * 4
    assert world.charges() == 24
    assert world.differences() == []


def test_two_reconcilers_at_once_record_each_answer_once(world: World) -> None:
    for _ in range(6):
        world.invoice(world.customer("tok_timeout_charged"))
        world.invoice(world.customer("tok_timeout_lost"))
    world.collect()
    world.later(HOUR)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: world.reconcile(), range(4)))
    world.reconcile()
    assert world.charges() == 12
    assert world.differences() == []


def test_an_invoice_that_is_void_is_not_collected(world: World) -> None:
    customer = world.customer("tok_declined")
    invoice = world.invoice(customer)
    world.collect()
    world.run("UPDATE invoice SET status = 'void' WHERE invoice_id = %s", invoice)
    world.later(DAY)
    assert world.collect().declined == 0
    assert world.collection(customer) == ("closed", None)
    assert world.status(customer) == "active"


def test_an_attempt_that_never_arrived_is_dropped_when_the_invoice_is_void(world: World) -> None:
    customer = world.customer("tok_ok")
    invoice = world.invoice(customer)
    with pytest.raises(KilledError):
        world.collect(Dying(world.sandbox, after_call=False))
    world.run("UPDATE invoice SET status = 'void' WHERE invoice_id = %s", invoice)
    world.later(HOUR)
    world.reconcile()
    world.collect()
    assert (world.states(customer), world.charges()) == (["declined"], 0)
    assert (world.collection(customer), world.status(customer)) == (("closed", None), "active")
    assert world.differences() == []


def dropped(world: World, *, more: Callable[[], None] = lambda: None) -> Slow:
    """Return a gateway whose call outlasts the limit: its attempt is dropped, then it arrives."""

    def meanwhile() -> None:
        world.later(timedelta(minutes=20))
        world.run("UPDATE invoice SET credited = 100")
        world.reconcile()
        more()

    return Slow(world.sandbox, meanwhile)


def test_an_attempt_begins_at_its_claim_however_long_the_pass_has_lasted(world: World) -> None:
    first, second = world.customer("tok_ok"), world.customer("tok_ok")
    one, two = sorted([first, second])
    world.invoice(one, 500)
    invoice = world.invoice(two)
    begun = world.clock.now()

    def credited() -> None:
        world.run("UPDATE invoice SET credited = 100 WHERE invoice_id = %s", invoice)
        world.reconcile()

    inner = Slow(world.sandbox, credited)
    slow = Slow(world.sandbox, lambda: world.later(timedelta(minutes=20)))

    class Both:
        def charge(self, request: ChargeRequest) -> ChargeResult:
            return (slow if request.amount.minor == 500 else inner).charge(request)

        find = world.sandbox.find

    assert world.collect(Both()).succeeded == 2
    with world.database.transaction() as tx:
        made = {who: actions.attempts(tx, who)[0] for who in (one, two)}
    assert made[one].made_at == begun
    assert made[two].made_at == made[one].settled_at == begun + timedelta(minutes=20)
    assert (world.collect().succeeded, world.charges()) == (0, 2)
    assert world.differences() == []


def test_what_an_attempt_took_that_was_dropped_is_booked_and_taken_once(world: World) -> None:
    customer = world.customer("tok_ok")
    invoice = world.invoice(customer)
    assert world.collect(dropped(world)).succeeded == 1
    assert (world.states(customer), world.paid(invoice)) == (["succeeded"], (699, "paid"))
    assert world.collection(customer) == ("paid", None)
    for _ in range(2):
        world.later(HOUR)
        assert (world.reconcile().succeeded, world.collect().succeeded) == (0, 0)
    assert world.charges() == 1
    with world.database.transaction() as tx:
        credit = ledger.balance(tx, customer, Account.CUSTOMER_CREDIT, "usd")
    assert abs(credit.minor) == 100  # what was too much is the customer's
    assert world.differences() == []


def test_what_a_dropped_attempt_took_ends_the_one_that_took_its_place(world: World) -> None:
    customer = world.customer("tok_ok")
    world.invoice(customer)

    def another() -> None:
        with pytest.raises(KilledError):
            world.collect(Dying(world.sandbox, after_call=False))

    assert world.collect(dropped(world, more=another)).succeeded == 1
    assert world.states(customer) == ["succeeded", "intent"]
    world.later(HOUR)
    world.reconcile()
    world.collect()
    assert (world.states(customer), world.charges()) == (["succeeded", "declined"], 1)
    assert world.differences() == []


def test_a_dropped_attempt_whose_call_had_no_answer_is_asked_about_again(world: World) -> None:
    customer = world.customer("tok_timeout_charged")
    invoice = world.invoice(customer)
    assert world.collect(dropped(world)).unknown == 1
    assert (world.states(customer), world.collection(customer)) == (["unknown"], ("due", None))
    assert world.collect().succeeded == 0  # nothing is tried under another key meanwhile
    world.later(HOUR)
    assert world.reconcile().succeeded == 1
    assert (world.paid(invoice), world.charges()) == ((699, "paid"), 1)
    assert world.differences() == []


def test_a_question_of_a_dropped_attempt_waits_for_its_customer(world: World) -> None:
    customer = world.customer("tok_requires_action")
    world.invoice(customer)
    assert world.collect(dropped(world)).requires_action == 1
    assert world.collection(customer) == ("requires_action", None)
    assert world.states(customer) == ["requires_action"]
    assert world.differences() == []


def test_a_decline_of_a_dropped_attempt_is_no_failure(world: World) -> None:
    customer = world.customer("tok_declined")
    world.invoice(customer)
    assert world.collect(dropped(world)).declined == 0
    assert (world.states(customer), world.status(customer)) == (["declined"], "active")
    assert world.collect().declined == 1
    assert world.differences() == []


def test_two_attempts_without_an_answer_are_a_problem_that_names_the_key(world: World) -> None:
    customer = world.customer("tok_timeout_charged")
    world.invoice(customer)

    def another() -> None:
        with pytest.raises(KilledError):
            world.collect(Dying(world.sandbox, after_call=False))

    report = world.collect(dropped(world, more=another))
    with world.database.transaction() as tx:
        first, second = actions.attempts(tx, customer)
    (problem,) = report.problems
    assert typeid("pay", first.attempt_id) in problem
    assert (first.state, second.state) == ("declined", "intent")


@pytest.mark.parametrize(
    ("settled", "status", "state"),
    [
        ("UPDATE invoice SET status = 'void'", "active", "closed"),
        ("UPDATE invoice SET status = 'paid', credited = total", "active", "paid"),
        ("UPDATE invoice SET status = 'uncollectible'", "unpaid", "exhausted"),
        ("UPDATE invoice SET credited = 100", "unpaid", "exhausted"),
    ],
)
def test_whoever_was_given_up_is_let_in_again_once_nothing_is_owed(
    world: World, settled: str, status: str, state: str
) -> None:
    customers = [world.customer("tok_declined") for _ in range(3)]
    *others, owes_more = customers
    world.invoice(owes_more, 100)
    invoices = [world.invoice(customer) for customer in customers]
    for _ in range(8):
        world.collect()
        world.later(DAY)
    assert {world.status(customer) for customer in customers} == {"unpaid"}
    told = world.value("SELECT count(*) FROM outbox_event WHERE type = 'subscription.updated'")
    for invoice in invoices:
        world.run(settled + " WHERE invoice_id = %s", invoice)
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: world.collect(), range(4)))
    assert [report.problems for report in reports] == [()] * 4
    assert [world.status(customer) for customer in others] == [status] * 2
    assert [world.collection(customer) for customer in others] == [(state, None)] * 2
    assert world.status(owes_more) == "unpaid"
    after = world.value("SELECT count(*) FROM outbox_event WHERE type = 'subscription.updated'")
    assert after - told == (2 if status == "active" else 0)
    assert world.differences() == []


def test_a_gateway_that_is_not_configured_is_a_problem_of_its_invoices_only(world: World) -> None:
    stranger, customer = world.customer(None), world.customer("tok_ok")
    with world.database.transaction() as tx:
        actions.add_method(tx, stranger, gateway="stripe", token="pm_1", now=world.clock.now())
    named = world.invoice(stranger)
    world.invoice(customer)
    report = world.collect()
    assert report.succeeded == 1
    (problem,) = report.problems
    assert problem.startswith(typeid("inv", named))
    assert "stripe" in problem


def test_a_limit_is_kept_and_progress_is_told(world: World) -> None:
    for _ in range(3):
        world.invoice(world.customer("tok_ok"))
    heard: list[int] = []
    report = actions.collect_due(
        world.database, world.gateways, clock=world.clock, limit=2, progress=heard.append
    )
    assert (report.succeeded, heard) == (2, [1, 2])
    assert world.collect().succeeded == 1


def test_a_card_number_is_refused_and_nothing_changes(world: World) -> None:
    customer = world.customer("tok_ok")
    with pytest.raises(Invalid), world.database.transaction() as tx:
        actions.add_method(
            tx, customer, gateway="sandbox", token="4242424242424242", now=world.clock.now()
        )
    with world.database.transaction() as tx:
        (method,) = actions.methods(tx, customer)
    assert (method.token, method.is_default) == ("tok_ok", True)


def test_the_newest_method_is_the_default(world: World) -> None:
    customer = world.customer("tok_declined")
    world.method(customer, "tok_ok")
    with world.database.transaction() as tx:
        newest, oldest = actions.methods(tx, customer)
    assert (newest.token, newest.is_default, oldest.is_default) == ("tok_ok", True, False)


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ("UPDATE payment_attempt SET amount = amount + 1", "payment"),
        ("UPDATE payment_attempt SET fee = fee - 1", "fee"),
        ("DELETE FROM ledger_transfer WHERE kind = 'payment'", "payment"),
        ("DELETE FROM payment_attempt", "payment"),
        ("UPDATE invoice SET paid = paid - 1", "invoice"),
        ("UPDATE collection SET state = 'due'", "collection"),
        (ORPHAN, "balance"),
    ],
)
def test_verify_names_what_was_tampered_with(world: World, damage: str, where: str) -> None:
    world.invoice(world.customer("tok_ok"))
    world.collect()
    assert world.differences() == []
    world.run(damage)
    assert any(where in one for one in world.differences())


def test_what_happened_is_told_to_other_systems_without_personal_data(world: World) -> None:
    customer = world.customer("tok_stolen")
    world.invoice(customer)
    world.collect()
    world.method(customer, "tok_ok")
    world.collect()
    told = world.value("SELECT array_agg(type ORDER BY outbox_id) FROM outbox_event")
    assert [type_ for type_ in told if not type_.startswith("invoice.")] == [
        "payment_method.added",
        "payment.declined",
        "subscription.updated",
        "collection.waiting_for_method",
        "payment_method.added",
        "payment.succeeded",
        "subscription.updated",
    ]
    data = world.value("SELECT string_agg(data::text, '') FROM outbox_event")
    assert "tok_" not in data
    assert "4242" not in data
