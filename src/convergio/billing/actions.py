"""Pay, find and check invoices; the run that makes them is `running`, and has its name here too."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

import msgspec

from convergio.billing import checking, errors, issuing, rules, running, store
from convergio.billing.model import (
    Amounts,
    Buyer,
    DocumentRow,
    Invoice,
    InvoiceView,
    ParkedRow,
    Status,
)
from convergio.crypto.actions import Keyring
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.subscriptions import actions as subscriptions
from convergio.taxes import actions as taxes
from convergio.taxes import stating

_FIRST: Final = UUID(int=0)
Issuer = issuing.Issuer
Progress = running.Progress
run = running.run
verify = checking.verify
report_value = running.report_value


def apply_payment(
    tx: Tx, *, customer_id: UUID, invoice_id: UUID, amount: Money, now: datetime
) -> Invoice:
    """Take a captured payment off what is due of an invoice; the rest is the customer's balance.

    The one that completes an invoice makes it paid, also one that was given up. Locks: the
    invoice. Emits: invoice.paid. Raises: NotFound; Conflict for another currency.
    """
    invoice = lock_invoice(tx, customer_id, invoice_id)
    paid, excess = rules.pay(invoice, amount)
    store.save_settled(tx, paid)
    moves = [(Kind.EXCESS, Account.RECEIVABLE, Account.CUSTOMER_CREDIT, excess)]
    if invoice.status == Status.UNCOLLECTIBLE:
        regained = amount - excess
        moves.append((Kind.WRITE_OFF, Account.RECEIVABLE, Account.WRITE_OFF, regained))
    ledger.post_many(
        tx,
        [
            Transfer(customer_id, new_id(now), kind, invoice_id, debit, credit, moved, now)
            for kind, debit, credit, moved in moves
            if moved.minor
        ],
    )
    if paid.status == Status.PAID and invoice.status != Status.PAID:
        outbox.emit(tx, "invoice.paid", customer_id=customer_id, subject=invoice_id, now=now)
    return paid


def lock_invoice(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Invoice:
    """Return one invoice. Locks: it. Raises: NotFound."""
    invoice = store.lock_invoice(tx, customer_id, invoice_id)
    if invoice is None:
        raise errors.unknown_invoice()
    return invoice


def find(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Invoice:
    """Return one invoice. Raises: NotFound."""
    invoice = store.find_invoice(tx, customer_id, invoice_id)
    if invoice is None:
        raise errors.unknown_invoice()
    return invoice


def find_numbered(tx: Tx, number_text: str) -> Invoice:
    """Return the invoice with a number such as CVG-2025-000123. Raises: Invalid, NotFound."""
    series, year, number = rules.parse_number(number_text)
    invoice = store.find_numbered(tx, series, year, number)
    if invoice is None:
        raise errors.unknown_invoice()
    return invoice


def find_identified(tx: Tx, invoice_id: UUID) -> Invoice:
    """Return the invoice with an id, whoever its customer is. Raises: NotFound."""
    invoice = store.find_identified(tx, invoice_id)
    if invoice is None:
        raise errors.unknown_invoice()
    return invoice


def page(
    tx: Tx,
    *,
    after: tuple[UUID, UUID] = (_FIRST, _FIRST),
    limit: int = 100,
    customer_id: UUID | None = None,
    status: Status | None = None,
    series: str | None = None,
    issued_from: date | None = None,
    issued_to: date | None = None,
) -> list[Invoice]:
    """Return the next invoices in the order of customer and time; `issued_to` is not included."""
    return store.page_invoices(
        tx,
        after=after,
        limit=limit,
        customer_id=customer_id,
        status=status,
        series=series,
        issued_from=issued_from,
        issued_to=issued_to,
    )


def documents_of(
    tx: Tx, customer_id: UUID, *, after: tuple[datetime, UUID] | None = None, limit: int = 100
) -> list[DocumentRow]:
    """Return a customer's next invoices and credit notes in the order of their issue."""
    return store.page_documents(tx, customer_id, after=after, limit=limit)


def open_invoices(
    tx: Tx, *, after: tuple[UUID, UUID] = (_FIRST, _FIRST), limit: int = 100
) -> list[Invoice]:
    """Return the next open invoices in the order of customer and id, for collecting them."""
    return store.page_open(tx, after=after, limit=limit)


def paid_amounts(tx: Tx, customer_ids: Sequence[UUID]) -> list[Amounts]:
    """Return the invoices of which anything is paid, for a check against payments."""
    return [one for one in store.list_amounts(tx, customer_ids) if one.paid]


def parked(tx: Tx) -> list[ParkedRow]:
    """Return the customers whom the run leaves out, and why, the longest first."""
    return store.list_parked(tx)


def read(tx: Tx, keyring: Keyring, invoice: Invoice) -> InvoiceView:
    """Return an invoice with its lines and the buyer as of its issue. Raises: Fault."""
    sealed = keyring.open_retained(
        tx, issuing.TABLE, issuing.BUYER, invoice.invoice_id, invoice.sealed_buyer
    )
    lines = store.list_lines(tx, invoice.customer_id, invoice.invoice_id)
    zones = {s.subscription_id: s.time_zone for s in subscriptions.history(tx, invoice.customer_id)}
    return InvoiceView(
        invoice=invoice,
        lines=tuple(lines),
        buyer=msgspec.json.decode(sealed, type=Buyer),
        time_zone=zones[lines[0].subscription_id] if lines else "UTC",
        taxes=taxes.of_invoice(tx, invoice.customer_id, invoice.invoice_id),
        kept=stating.kept(tx, invoice.customer_id, invoice.invoice_id),
        issued=store.find_issued(tx, invoice.customer_id, invoice.invoice_id),
    )


def billed_until(tx: Tx) -> datetime | None:
    """Return how far the furthest run has billed, its grace taken off; None if it never ended."""
    last = store.find_last_run(tx)
    return last.closed if last is not None else None
