"""Post transfers and read balances. There is no verb here that changes or deletes one."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from convergio.infra.db import Tx
from convergio.kernel.errors import Difference, require
from convergio.kernel.money import Money
from convergio.ledger import store
from convergio.ledger.model import Account, Kind, Posted, Transfer


def post_many(tx: Tx, transfers: Sequence[Transfer]) -> None:
    """Append transfers, each balanced by construction. Raises: Fault for an amount of zero."""
    for transfer in transfers:
        require(transfer.amount.minor > 0, "a transfer moves an amount above zero")
        require(transfer.debit_account != transfer.credit_account, "a transfer has two accounts")
    store.copy_transfers(tx, transfers)


def balance(tx: Tx, customer_id: UUID, account: Account, currency: str) -> Money:
    """Return debits less credits: what a customer owes is their balance of `receivable`."""
    return Money(store.sum_balance(tx, customer_id, account, currency), currency)


def customer_credit(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return in minor units the credit balance of each customer who ever had one."""
    return store.sum_customer_credit(tx, customer_ids)


def totals(tx: Tx) -> Mapping[tuple[str, str], Money]:
    """Return (account, currency) -> balance over all customers; their sum is zero."""
    return {
        (row.account, row.currency): Money(int(row.amount), row.currency)
        for row in store.sum_totals(tx)
    }


def posted(tx: Tx, customer_ids: Sequence[UUID], *, kind: Kind) -> list[Posted]:
    """Return what each source of these customers posted, for a check against the source."""
    return store.sum_by_source(tx, customer_ids, kind)


def verify(tx: Tx) -> list[Difference]:
    """Return transfers in unknown accounts or in a second currency, and overdrawn balances."""
    overdrawn = [
        Difference(f"credit balance of customer {customer_id}", f"0 {currency} or more", str(minor))
        for customer_id, currency, minor in store.find_overdrawn(tx)
    ]
    return overdrawn + [
        Difference(
            where=f"ledger transfer {row.transfer_id} of customer {row.customer_id}",
            expected="known accounts and the customer's one currency",
            found=f"{row.debit_account} from {row.credit_account} in {row.currency}",
        )
        for row in store.find_strange(tx, list(Account))
    ]
