"""What went between a customer and us, in its order: invoices, payments and credit notes.

The documents are billing's and the payments are ours; each is read a page deep and the two are
merged, so that a page costs two reads however long the history is.
"""

from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any
from uuid import UUID

from convergio.billing import actions as billing
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.payments import store

_PREFIXES = {"invoice": "inv", "credit_note": "cn", "payment": "pay"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. A payment and a credit note name the invoice that they are for.

    `state` is an invoice's status, a credit note's kind, or how a payment came.
    """

    at: datetime
    entry_id: UUID
    what: str
    number: str | None
    state: str
    amount: Money
    invoice_id: UUID | None


def page(
    tx: Tx, customer_id: UUID, *, after: tuple[datetime, UUID] | None = None, limit: int = 100
) -> list[Entry]:
    """Return the next entries of a customer's history behind a moment and id."""
    documents = billing.documents_of(tx, customer_id, after=after, limit=limit)
    payments = store.page_payments(tx, customer_id, after=after, limit=limit)
    both = merge(
        [
            Entry(
                at=row.at,
                entry_id=row.entry_id,
                what=row.what,
                number=f"{row.series}-{row.year}-{row.number:06d}",
                state=row.status,
                amount=Money(row.total, row.currency),
                invoice_id=None if row.what == "invoice" else row.invoice_id,
            )
            for row in documents
        ],
        [
            Entry(
                at=row.at,
                entry_id=row.entry_id,
                what="payment",
                number=None,
                state=row.what,
                amount=Money(row.amount, row.currency),
                invoice_id=row.invoice_id,
            )
            for row in payments
        ],
        key=lambda entry: (entry.at, entry.entry_id),
    )
    return list(islice(both, limit))


def value(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON takes it."""
    return {
        "at": instant_text(entry.at),
        "type": entry.what,
        "id": typeid(_PREFIXES[entry.what], entry.entry_id),
        "number": entry.number,
        "state": entry.state,
        "amount": entry.amount.text(),
        "currency": entry.amount.currency,
        "invoice": None if entry.invoice_id is None else typeid("inv", entry.invoice_id),
    }
