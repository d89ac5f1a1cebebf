"""The ledger's queries: one function each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.ledger.model import Posted, Transfer

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))
_TRANSFER: Final = "uuid uuid text uuid text text int8 text timestamptz".split()


@dataclass(frozen=True, slots=True)
class TotalRow:
    """One account's balance over all customers."""

    account: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class StrangeRow:
    """A transfer that verify cannot explain."""

    customer_id: UUID
    transfer_id: UUID
    debit_account: str
    credit_account: str
    currency: str


def copy_transfers(tx: Tx, transfers: Iterable[Transfer]) -> None:
    """Load transfers in bulk."""
    tx.copy(
        QUERIES["copy_transfers"],
        (
            (t.customer_id, t.transfer_id, t.kind, t.source_id, t.debit_account,
             t.credit_account, t.amount.minor, t.amount.currency, t.occurred_at)
            for t in transfers
        ),
        types=_TRANSFER,
    )  # fmt: skip


def sum_balance(tx: Tx, customer_id: UUID, account: str, currency: str) -> int:
    """Return debits less credits."""
    return int(
        tx.value(
            QUERIES["sum_balance"], customer_id=customer_id, account=account, currency=currency
        )
    )


def sum_customer_credit(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return what the seller owes these customers, by customer: they have one currency each."""
    rows = tx.tuples(QUERIES["sum_customer_credit"], customer_ids=list(customer_ids))
    return {customer_id: amount for customer_id, _, amount in rows}


def find_overdrawn(tx: Tx) -> list[tuple[UUID, str, int]]:
    """Return credit balances below zero."""
    rows = tx.tuples(QUERIES["find_overdrawn"])
    return [(customer_id, currency, amount) for customer_id, currency, amount in rows]


def sum_totals(tx: Tx) -> list[TotalRow]:
    """Return every account's balance over all customers."""
    return tx.many(QUERIES["sum_totals"], TotalRow)


def sum_by_source(tx: Tx, customer_ids: Sequence[UUID], kind: str) -> list[Posted]:
    """Return what each source posted."""
    return tx.many(QUERIES["sum_by_source"], Posted, customer_ids=list(customer_ids), kind=kind)


def find_strange(tx: Tx, accounts: Sequence[str]) -> list[StrangeRow]:
    """Return transfers with an unknown account or a customer's second currency."""
    return tx.many(QUERIES["find_strange"], StrangeRow, accounts=list(accounts))
