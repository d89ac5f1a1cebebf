"""The ledger on a real database: balanced, above zero, and honest about what it does not know."""

from datetime import datetime
from uuid import UUID, uuid4

import psycopg
import pytest

from convergio.infra.db import Tx
from convergio.kernel.errors import Fault
from convergio.kernel.money import Money
from convergio.ledger import actions
from convergio.ledger.model import Account, Kind, Transfer

CUSTOMER, INVOICE, ATTEMPT = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.fixture
def sale(now: datetime) -> Transfer:
    return Transfer(
        CUSTOMER, uuid4(), Kind.INVOICE, INVOICE, Account.RECEIVABLE, Account.USAGE_REVENUE,
        Money(664, "usd"), now,
    )  # fmt: skip


@pytest.fixture
def payment(sale: Transfer) -> Transfer:
    return sale._replace(
        transfer_id=uuid4(),
        kind=Kind.PAYMENT,
        source_id=ATTEMPT,
        debit_account=Account.GATEWAY_CLEARING,
        credit_account=Account.RECEIVABLE,
        amount=Money(600, "usd"),
    )


def test_balances_are_debits_less_credits_and_sum_to_zero(
    tx: Tx, sale: Transfer, payment: Transfer
) -> None:
    actions.post_many(tx, [sale, payment])
    found = {one: actions.balance(tx, CUSTOMER, one, "usd").minor for one in Account}
    assert found == {
        Account.RECEIVABLE: 64,
        Account.USAGE_REVENUE: -664,
        Account.GATEWAY_CLEARING: 600,
        Account.DEFERRED_REVENUE: 0,
        Account.GATEWAY_FEES: 0,
        Account.CUSTOMER_CREDIT: 0,
        Account.WRITE_OFF: 0,
        Account.TAX_PAYABLE: 0,
        Account.BANK: 0,
    }
    assert sum(one.minor for one in actions.totals(tx).values()) == 0
    assert actions.balance(tx, UUID(int=9), Account.RECEIVABLE, "usd") == Money.zero("usd")


def test_what_a_source_posted_is_read_by_kind(tx: Tx, sale: Transfer, payment: Transfer) -> None:
    actions.post_many(tx, [sale, sale._replace(transfer_id=uuid4()), payment])
    (invoiced,) = actions.posted(tx, [CUSTOMER], kind=Kind.INVOICE)
    assert (invoiced.source_id, invoiced.amount) == (INVOICE, 1_328)
    (paid,) = actions.posted(tx, [CUSTOMER], kind=Kind.PAYMENT)
    assert (paid.source_id, paid.credit_account) == (ATTEMPT, Account.RECEIVABLE)


@pytest.mark.parametrize("minor", [0, -1])
def test_a_transfer_of_nothing_or_less_is_refused_with_all_beside_it(
    tx: Tx, sale: Transfer, payment: Transfer, minor: int
) -> None:
    with pytest.raises(Fault):
        actions.post_many(tx, [payment, sale._replace(amount=Money(minor, "usd"))])
    assert actions.totals(tx) == {}


def test_a_transfer_needs_two_accounts_and_an_id_of_its_own(tx: Tx, sale: Transfer) -> None:
    with pytest.raises(Fault):
        actions.post_many(tx, [sale._replace(credit_account=Account.RECEIVABLE)])
    with pytest.raises(psycopg.errors.UniqueViolation), tx.savepoint():
        actions.post_many(tx, [sale, sale])
    assert actions.totals(tx) == {}


def test_verify_names_an_unknown_account_and_a_second_currency(tx: Tx, sale: Transfer) -> None:
    other = sale._replace(transfer_id=uuid4(), amount=Money(1, "eur"))
    actions.post_many(tx, [sale])
    assert actions.verify(tx) == []
    actions.post_many(tx, [other])
    assert [str(sale.transfer_id) in one.where for one in actions.verify(tx)] == [True]
    tx.raw.execute("UPDATE ledger_transfer SET debit_account = 'petty_cash'")
    assert len(actions.verify(tx)) == 2
