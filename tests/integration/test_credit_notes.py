"""Credit notes, void and given-up invoices: capped, numbered, posted, and never billed twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting
from convergio.billing.model import CreditKind, CreditNote, Invoice, Status, Voiding
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid, NotFound, Rejected
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from tests.fakes.business import SELLER, Business, at


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


@pytest.fixture
def acme(shop: Business) -> UUID:
    """A customer with one invoice of 6.99, and one of 6.99 and 1.00 of usage."""
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-12-01")
    shop.use("acme", 600, "2024-12-05")
    shop.bill("2025-01-02")
    return acme


def issuer(shop: Business) -> billing.Issuer:
    return billing.Issuer(SELLER, shop.keyring, shop.now, shop.now)


def credit(
    shop: Business,
    number: int,
    *,
    amount: str | None = None,
    lines: dict[int, str] | None = None,
    kind: CreditKind = CreditKind.CONCESSION,
    reason: str = "goodwill",
) -> CreditNote:
    with shop.database.transaction() as tx:
        return correcting.credit(
            tx,
            issuer(shop),
            invoice=shop.invoices()[number - 1],
            reason=reason,
            kind=kind,
            amount=None if amount is None else Money.parse(amount, "usd"),
            lines=None
            if lines is None
            else {line: Money.parse(text, "usd") for line, text in lines.items()},
        )


def pay(shop: Business, invoice: Invoice, amount: int) -> None:
    with shop.database.transaction() as tx:
        billing.apply_payment(
            tx,
            customer_id=invoice.customer_id,
            invoice_id=invoice.invoice_id,
            amount=Money(amount, "usd"),
            now=shop.now,
        )


def credit_balance(shop: Business, customer_id: UUID) -> int:
    with shop.database.transaction() as tx:
        return ledger.customer_credit(tx, [customer_id]).get(customer_id, 0)


def balance(shop: Business, customer_id: UUID, account: Account) -> int:
    with shop.database.transaction() as tx:
        return ledger.balance(tx, customer_id, account, "usd").minor


def test_a_credit_note_goes_to_what_is_due_first(shop: Business, acme: UUID) -> None:
    note = credit(shop, 2, amount="2.99")
    assert (note.number_text, note.total, note.applied) == ("CVG-CN-2025-000001", 299, 299)
    invoice = shop.invoices()[1]
    assert (invoice.status, invoice.credited, invoice.due) == (
        Status.OPEN,
        299,
        Money(500, "usd"),
    )
    assert balance(shop, acme, Account.RECEIVABLE) == 699 + 500
    assert credit_balance(shop, acme) == 0
    assert shop.verify() == []


def test_a_full_credit_closes_an_open_invoice(shop: Business, acme: UUID) -> None:
    credit(shop, 2)
    invoice = shop.invoices()[1]
    assert (invoice.status, invoice.due.minor, invoice.paid) == (Status.PAID, 0, 0)
    assert balance(shop, acme, Account.USAGE_REVENUE) == 0
    assert balance(shop, acme, Account.DEFERRED_REVENUE) == -699
    with pytest.raises(Conflict):
        credit(shop, 2)
    assert shop.verify() == []


def test_what_was_paid_goes_to_the_balance_which_pays_the_next_invoice(
    shop: Business, acme: UUID
) -> None:
    for invoice in shop.invoices():
        pay(shop, invoice, invoice.total)
    note = credit(shop, 2)
    assert (note.applied, credit_balance(shop, acme)) == (0, 799)
    shop.bill("2025-02-02")
    *_, last = shop.invoices()
    assert (last.total, last.from_balance, last.due.minor, last.status) == (
        699,
        699,
        0,
        Status.PAID,
    )
    assert last.number_text == "CVG-2025-000003"
    shop.bill("2025-03-02")
    *_, last = shop.invoices()
    assert (last.from_balance, last.due.minor, last.status) == (100, 599, Status.OPEN)
    assert credit_balance(shop, acme) == 0
    assert shop.verify() == []


def test_a_concession_is_never_billed_again_and_a_correction_is(shop: Business, acme: UUID) -> None:
    credit(shop, 1, amount="1.00", kind=CreditKind.CONCESSION)
    credit(shop, 1, amount="2.00", kind=CreditKind.CORRECTION)
    shop.bill("2025-02-02")
    *_, last = shop.invoices()
    assert shop.lines(last) == [
        ("fixed", "late fee for 2024-12-01 to 2024-12-31", 200),
        ("fixed", "fee", 699),
    ]
    assert shop.verify() == []


def test_no_line_is_credited_beyond_what_is_left_of_it(shop: Business, acme: UUID) -> None:
    credit(shop, 2, lines={2: "0.60"})
    for wrong in ({2: "0.41"}, {1: "7.00"}, {3: "0.01"}, {1: "-1.00"}):
        with pytest.raises(Rejected):
            credit(shop, 2, lines=wrong)
    for text in ("7.40", "0.00", "-1.00"):
        with pytest.raises(Rejected):
            credit(shop, 2, amount=text)
    with shop.database.transaction() as tx:
        assert len(correcting.notes(tx)) == 1
    rest = credit(shop, 2)
    assert rest.total == 739
    with shop.database.transaction() as tx:
        lines = correcting.note_lines(tx, rest)
    assert [(line.invoice_line, line.amount) for line in lines] == [(1, 699), (2, 40)]
    assert shop.verify() == []


def test_an_amount_is_shared_over_the_lines_by_what_is_left(shop: Business, acme: UUID) -> None:
    note = credit(shop, 2, amount="0.80")
    with shop.database.transaction() as tx:
        lines = correcting.note_lines(tx, note)
    assert [(line.invoice_line, line.amount) for line in lines] == [(1, 70), (2, 10)]


@pytest.mark.parametrize("reason", ["", "   ", "a\x00b", "x" * 501])
def test_a_credit_note_says_why(shop: Business, acme: UUID, reason: str) -> None:
    with pytest.raises(Invalid):
        credit(shop, 1, reason=reason)
    with shop.database.transaction() as tx:
        assert correcting.notes(tx) == []


def test_credits_at_once_never_exceed_the_invoice(shop: Business, acme: UUID) -> None:
    def give(_: int) -> int:
        try:
            return credit(shop, 1, amount="3.00").total
        except Conflict:
            return 0

    with ThreadPoolExecutor(4) as pool:
        given = sum(pool.map(give, range(4)))
    assert given == 600
    assert shop.verify() == []


def test_credit_notes_have_numbers_without_gaps_of_their_own(shop: Business, acme: UUID) -> None:
    for _ in range(3):
        credit(shop, 1, amount="0.10")
    with shop.database.transaction() as tx:
        numbers = sorted(n.number_text for n in correcting.notes(tx, customer_id=acme))
        assert numbers == [f"CVG-CN-2025-00000{n}" for n in (1, 2, 3)]
        assert correcting.find_note(tx, numbers[1]).number == 2
        with pytest.raises(NotFound):
            correcting.find_note(tx, "CVG-CN-2025-000009")
        with pytest.raises(Invalid):
            correcting.find_note(tx, "CVG-2025-000001")


def test_only_an_open_unpaid_invoice_can_be_voided(shop: Business, acme: UUID) -> None:
    first, second = shop.invoices()
    pay(shop, first, 100)
    with shop.database.transaction() as tx:
        with pytest.raises(Conflict):
            correcting.void(tx, issuer(shop), invoice=first, how=Voiding.WAIVE)
        done = correcting.void(tx, issuer(shop), invoice=second, how=Voiding.WAIVE)
        with pytest.raises(Conflict):
            correcting.void(tx, issuer(shop), invoice=second, how=Voiding.WAIVE)
        told = tx.tuples("SELECT type FROM outbox_event WHERE subject = %(id)s", id=done.invoice_id)
    assert done.status == Status.VOID
    assert {row[0] for row in told} == {"invoice.finalized", "invoice.voided"}
    assert balance(shop, acme, Account.RECEIVABLE) == 699
    with pytest.raises(Conflict):
        credit(shop, 2)
    assert shop.verify() == []


def test_what_nobody_will_pay_is_written_off_and_regained_when_it_comes(
    shop: Business, acme: UUID
) -> None:
    first, _ = shop.invoices()
    with shop.database.transaction() as tx:
        given_up = correcting.give_up(tx, issuer(shop), invoice=first)
        assert given_up.status == Status.UNCOLLECTIBLE
        with pytest.raises(Conflict):
            correcting.give_up(tx, issuer(shop), invoice=first)
    assert balance(shop, acme, Account.WRITE_OFF) == 699
    assert shop.bill("2025-01-10").invoices == 0
    pay(shop, first, 700)
    assert balance(shop, acme, Account.WRITE_OFF) == 0
    assert credit_balance(shop, acme) == 1
    assert shop.invoices()[0].status == Status.PAID
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE credit_note SET number = 9", "numbers of series CVG-CN"),
        ("UPDATE credit_note_line SET amount = amount - 1", "total of credit note"),
        ("UPDATE invoice SET credited = credited - 1 WHERE credited > 0", "credited of"),
        ("DELETE FROM ledger_transfer WHERE kind = 'credit_note'", "transfers of credit note"),
        (
            (
                "UPDATE ledger_transfer SET credit_account = 'receivable',"
                " debit_account = 'customer_credit' WHERE credit_account = 'customer_credit'"
            ),
            "credit balance of",
        ),
    ],
)
def test_verify_names_what_was_tampered_with(
    shop: Business, acme: UUID, change: str, where: str
) -> None:
    pay(shop, shop.invoices()[0], 500)
    credit(shop, 1)
    assert shop.verify() == []
    with shop.database.transaction() as tx:
        tx.raw.execute(change.encode())
    assert any(one.where.startswith(where) for one in shop.verify()), shop.verify()


def test_a_credit_by_hand_waits_for_a_run_that_takes_back_from_the_same_lines(
    shop: Business, acme: UUID
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with shop.database.transaction() as tx:
            subscriptions.for_customers(tx, [acme], until=shop.now, now=shop.now)  # as a run does
            by_hand = pool.submit(credit, shop, 1)
            with pytest.raises(TimeoutError):
                by_hand.result(timeout=0.5)
        assert by_hand.result(timeout=30).total == 699
    assert shop.verify() == []


def test_an_invoice_that_a_later_one_took_a_part_back_of_cannot_be_voided(shop: Business) -> None:
    beta = shop.customer("beta")
    shop.subscribe(beta, "pro", "2024-11-01")
    shop.bill("2024-11-02")
    with shop.database.transaction() as tx:
        changes.change(tx, customer_id=beta, plan_key="team", when=When.NOW, now=at("2024-11-16"))
    shop.bill("2024-11-17")
    first = shop.invoices(beta)[0]
    assert any(amount < 0 for _, _, amount in shop.lines(shop.invoices(beta)[1]))
    with shop.database.transaction() as tx, pytest.raises(Conflict, match="later invoice"):
        correcting.void(tx, issuer(shop), invoice=first, how=Voiding.REISSUE)
    assert balance(shop, beta, Account.RECEIVABLE) == sum(
        one.due.minor for one in shop.invoices(beta)
    )
    assert shop.verify() == []


@pytest.mark.usefixtures("acme")
def test_an_invoice_with_more_notes_than_a_page_is_credited_all_the_same(shop: Business) -> None:
    credit(shop, 1, amount="0.01")
    with shop.database.transaction() as tx:
        copied = """
            INSERT INTO credit_note (customer_id, credit_note_id, invoice_id, series, year, number,
                kind, reason, currency, total, applied, issued_on, finalized_at, sealed_buyer)
            SELECT customer_id, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
                invoice_id, 'OLD', year, n, kind, reason, currency, total, applied, issued_on,
                finalized_at, sealed_buyer
            FROM credit_note, generate_series(1, 1001) AS n
        """
        assert tx.raw.execute(copied).rowcount == 1_001
    assert credit(shop, 1, amount="0.02").total == 2
