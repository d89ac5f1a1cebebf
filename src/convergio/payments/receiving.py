"""Money that comes outside of a gateway: a bank transfer, in part or in whole, as someone saw it.

A receipt names its reference, which is what makes entering it twice one receipt. It pays the
invoice that it was meant for, or the oldest that are due; what is left is the customer's balance,
which the next invoice takes from. Money that came is never refused.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing.model import Invoice, Status
from convergio.customers import actions as customers
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id, typeid
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.payments import errors, following, rules, store
from convergio.payments.model import Receipt, ReceiptMethod
from convergio.subscriptions import actions as subscriptions

_OPEN_MAX: Final = 500


def record(
    tx: Tx,
    *,
    customer_id: UUID,
    amount: Money,
    method: ReceiptMethod,
    reference: str,
    received_on: date,
    now: datetime,
    invoice: Invoice | None = None,
) -> Receipt:
    """Enter a receipt once: the same reference again returns the one that there is.

    Locks: the customer's subscription, the receipt, its invoices and collections. Emits:
    payment.received, invoice.paid, and what follows for the subscription. Raises: Invalid; Conflict
    for another currency, or for a reference that stands for something else.
    """
    rules.check_receipt(amount, reference, received_on, today=now.astimezone(UTC).date())
    account = customers.get_many(tx, [customer_id])[customer_id]
    if amount.currency != account.currency:
        raise errors.other_currency(account.currency)
    subscriptions.hold(tx, customer_id)
    made = Receipt(
        customer_id, new_id(now), method, reference, amount.minor, amount.currency, received_on,
        None if invoice is None else invoice.invoice_id, now,
    )  # fmt: skip
    if not store.insert_receipt(tx, made):
        return _same(store.find_receipt(tx, made), made)
    _spread(tx, made, _meant(tx, made, invoice), now=now)
    data = {"amount": amount.text(), "currency": amount.currency, "method": method.value}
    outbox.emit(
        tx, "payment.received", customer_id=customer_id, subject=made.receipt_id, data=data, now=now
    )
    return made


def receipts(tx: Tx, customer_id: UUID, *, after: UUID | None = None, limit: int) -> list[Receipt]:
    """Return a page of a customer's receipts, the oldest entry first."""
    return store.page_receipts(tx, customer_id, after=after, limit=limit)


def value(one: Receipt) -> dict[str, object]:
    """Return a receipt as JSON takes it."""
    return {
        "id": typeid("rec", one.receipt_id),
        "customer": typeid("cus", one.customer_id),
        "method": one.method.value,
        "reference": one.reference,
        "amount": Money(one.amount, one.currency).text(),
        "currency": one.currency,
        "received_on": one.received_on.isoformat(),
        "invoice": None if one.invoice_id is None else typeid("inv", one.invoice_id),
    }


def _same(known: Receipt, made: Receipt) -> Receipt:
    wanted = replace(made, receipt_id=known.receipt_id, recorded_at=known.recorded_at)
    if known != wanted:
        raise errors.other_receipt(made.reference)
    return known


def _meant(tx: Tx, receipt: Receipt, invoice: Invoice | None) -> Sequence[Invoice]:
    """Return what a receipt pays, in order: the invoice that it names, or all that are open."""
    if invoice is not None:
        return [invoice]
    return sorted(
        billing.page(tx, customer_id=receipt.customer_id, status=Status.OPEN, limit=_OPEN_MAX),
        key=lambda one: (one.due_on, one.series, one.year, one.number),
    )


def _spread(tx: Tx, receipt: Receipt, meant: Sequence[Invoice], *, now: datetime) -> None:
    """Pay invoices in order, as far as it reaches; the rest goes to the customer's balance."""
    left = Money(receipt.amount, receipt.currency)
    parts: list[tuple[UUID, Money]] = []
    for one in meant:
        if not left.minor:
            break
        locked = billing.lock_invoice(tx, receipt.customer_id, one.invoice_id)
        part = min(left, rules.payable(locked))
        left = left - part
        if part.minor:
            parts.append((one.invoice_id, part))
    for invoice_id, part in parts:  # collections only once every invoice is ours, as payments do
        store.insert_receipt_part(tx, receipt, invoice_id, part.minor)
        _post(tx, receipt, Account.RECEIVABLE, part, now=now)
        paid = billing.apply_payment(
            tx, customer_id=receipt.customer_id, invoice_id=invoice_id, amount=part, now=now
        )
        following.settled_elsewhere(tx, paid, now=now)
    if left.minor:
        _post(tx, receipt, Account.CUSTOMER_CREDIT, left, now=now)


def _post(tx: Tx, receipt: Receipt, account: Account, amount: Money, *, now: datetime) -> None:
    ledger.post_many(
        tx,
        [
            Transfer(
                receipt.customer_id, new_id(now), Kind.PAYMENT, receipt.receipt_id,
                Account.BANK, account, amount, now,
            )
        ],
    )  # fmt: skip
