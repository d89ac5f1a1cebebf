"""Attempts, receipts, transfers and invoices must say the same of every payment."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeVar
from uuid import UUID

from convergio.billing import actions as billing
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import Difference
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind
from convergio.payments import store

_Key = TypeVar("_Key")
_FIRST: Final = UUID(int=0)
_PAGE: Final = 500


def verify(tx: Tx) -> list[Difference]:
    """Return where attempts, transfers and invoices disagree, and collections that are stuck.

    What succeeded = what the ledger says was paid and kept as fees = what the invoices say is
    paid, for each attempt and invoice, and in all.
    """
    found = [
        Difference(
            where=f"collection of {typeid('inv', row.invoice_id)}",
            expected="a date or a pending attempt",
            found=f"{row.state} without either",
        )
        for row in store.find_stuck(tx)
    ]
    after = _FIRST
    while page := store.page_customers(tx, after=after, size=_PAGE):
        found += _differences(tx, page)
        after = page[-1]
    return found + _sums(tx)


def _differences(tx: Tx, customer_ids: list[UUID]) -> list[Difference]:
    succeeded = store.list_succeeded(tx, customer_ids)
    paid: Counter[UUID] = Counter()
    for row in succeeded:
        paid[row.invoice_id] += row.amount
    received = store.list_receipts(tx, customer_ids)
    for invoice_id, amount in store.list_receipt_parts(tx, customer_ids):
        paid[invoice_id] += amount
    invoices = {one.invoice_id: one.paid for one in billing.paid_amounts(tx, customer_ids)}
    return (
        _compare("payment", {r.attempt_id: r.amount for r in succeeded} | received,
                 _posted(tx, customer_ids, Kind.PAYMENT))
        + _compare("fee", {r.attempt_id: r.fee for r in succeeded if r.fee},
                   _posted(tx, customer_ids, Kind.FEE))
        + _compare("paid of invoice", paid, invoices)
    )  # fmt: skip


def _posted(tx: Tx, customer_ids: list[UUID], kind: Kind) -> Mapping[UUID, int]:
    sums: Counter[UUID] = Counter()
    for row in ledger.posted(tx, customer_ids, kind=kind):
        sums[row.source_id] += row.amount
    return sums


def _compare(
    what: str, expected: Mapping[_Key, int], found: Mapping[_Key, int]
) -> list[Difference]:
    return [
        Difference(f"{what} {key}", str(expected.get(key, 0)), str(found.get(key, 0)))
        for key in dict.fromkeys((*expected, *found))
        if expected.get(key, 0) != found.get(key, 0)
    ]


def _sums(tx: Tx) -> list[Difference]:
    expected: dict[tuple[str, str], int] = {}
    for row in store.sum_succeeded(tx):
        expected[Account.GATEWAY_CLEARING, row.currency] = row.amount - row.fee
        expected[Account.GATEWAY_FEES, row.currency] = row.fee
    for currency, amount in store.sum_receipts(tx).items():
        expected[Account.BANK, currency] = amount
    accounts = {Account.GATEWAY_CLEARING, Account.GATEWAY_FEES, Account.BANK}
    found = {key: sum_.minor for key, sum_ in ledger.totals(tx).items() if key[0] in accounts}
    return _compare("balance", expected, found)
