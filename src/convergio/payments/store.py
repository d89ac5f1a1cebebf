"""The queries of payments: one function each, of the same name."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.kernel.errors import require
from convergio.payments.model import (
    Attempt,
    AttemptState,
    Collection,
    CollectionState,
    Method,
    Receipt,
    ReceiptMethod,
)

_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """Something that was paid; `what` is the gateway, or how the money came without one."""

    at: datetime
    entry_id: UUID
    what: str
    amount: int
    currency: str
    invoice_id: UUID | None


@dataclass(frozen=True, slots=True)
class DueRow:
    """A collection whose time has come."""

    customer_id: UUID
    invoice_id: UUID


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A customer from whom something was collected."""

    customer_id: UUID


@dataclass(frozen=True, slots=True)
class SucceededRow:
    """One attempt that moved money; minor units."""

    customer_id: UUID
    attempt_id: UUID
    invoice_id: UUID
    gateway: str
    amount: int
    fee: int
    currency: str


@dataclass(frozen=True, slots=True)
class SumRow:
    """What succeeded in one currency; minor units."""

    currency: str
    amount: int
    fee: int


@dataclass(frozen=True, slots=True)
class StuckRow:
    """A collection that nothing will ever move."""

    customer_id: UUID
    invoice_id: UUID
    state: str


def clear_default_method(tx: Tx, customer_id: UUID) -> None:
    """Take the default from the method that has it."""
    tx.run(_QUERIES["clear_default_method"], customer_id=customer_id)


def insert_method(tx: Tx, method: Method) -> None:
    """Keep a gateway's token."""
    tx.run(_QUERIES["insert_method"], **asdict(method))


def list_methods(tx: Tx, customer_id: UUID) -> list[Method]:
    """Return a customer's methods, the default first, then the newest."""
    return tx.many(_QUERIES["list_methods"], Method, customer_id=customer_id)


def find_usable_method(tx: Tx, customer_id: UUID) -> Method | None:
    """Return the default method, unless it was refused for ever."""
    return tx.one(_QUERIES["find_usable_method"], Method, customer_id=customer_id)


def list_payable(tx: Tx, customer_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these customers have a method that can be charged."""
    rows = tx.tuples(_QUERIES["list_payable"], customer_ids=list(customer_ids))
    return {row[0] for row in rows}


def find_method(tx: Tx, customer_id: UUID, payment_method_id: UUID) -> Method | None:
    """Return one method."""
    return tx.one(
        _QUERIES["find_method"],
        Method,
        customer_id=customer_id,
        payment_method_id=payment_method_id,
    )


def refuse_method(
    tx: Tx, customer_id: UUID, payment_method_id: UUID, *, refused_at: datetime
) -> None:
    """Never charge this method again."""
    tx.run(
        _QUERIES["refuse_method"],
        customer_id=customer_id,
        payment_method_id=payment_method_id,
        refused_at=refused_at,
    )


def insert_collections(tx: Tx, invoices: Sequence[tuple[UUID, UUID]], *, next_at: datetime) -> int:
    """Begin to collect (customer, invoice) pairs; return how many are new."""
    return tx.run(
        _QUERIES["insert_collections"],
        customer_ids=[customer_id for customer_id, _ in invoices],
        invoice_ids=[invoice_id for _, invoice_id in invoices],
        next_at=next_at,
    )


def page_settled(tx: Tx, *, after: UUID, size: int) -> list[UUID]:
    """Return the next customers of whom something that had come to its end is settled since."""
    rows = tx.many(_QUERIES["page_settled"], CustomerRow, after=after, size=size)
    return [row.customer_id for row in rows]


def list_due(tx: Tx, *, now: datetime, after: tuple[UUID, UUID], size: int) -> list[DueRow]:
    """Return the next collections whose time has come."""
    customer_id, invoice_id = after
    return tx.many(
        _QUERIES["list_due"],
        DueRow,
        now=now,
        after_customer=customer_id,
        after_invoice=invoice_id,
        size=size,
    )


def list_collections(tx: Tx, customer_id: UUID) -> list[Collection]:
    """Return a customer's collections."""
    rows = tx.many(_QUERIES["list_collections"], Collection, customer_id=customer_id)
    return [replace(row, state=CollectionState(row.state)) for row in rows]


def lock_collections(tx: Tx, customer_id: UUID) -> list[Collection]:
    """Return a customer's collections, locked."""
    rows = tx.many(_QUERIES["lock_collections"], Collection, customer_id=customer_id)
    return [replace(row, state=CollectionState(row.state)) for row in rows]


def save_collection(tx: Tx, collection: Collection) -> None:
    """Save the state of a collection."""
    tx.run(_QUERIES["save_collection"], **asdict(collection))


def insert_attempt(tx: Tx, attempt: Attempt) -> None:
    """Write down an intent."""
    tx.run(_QUERIES["insert_attempt"], **asdict(attempt))


def lock_attempt(tx: Tx, customer_id: UUID, attempt_id: UUID) -> Attempt | None:
    """Return one attempt, locked."""
    row = tx.one(_QUERIES["lock_attempt"], Attempt, customer_id=customer_id, attempt_id=attempt_id)
    return None if row is None else _typed(row)


def save_attempt(tx: Tx, attempt: Attempt) -> None:
    """Save the answer to an attempt."""
    tx.run(_QUERIES["save_attempt"], **asdict(attempt))


def list_attempts(tx: Tx, customer_id: UUID) -> list[Attempt]:
    """Return every try for a customer's invoices."""
    rows = tx.many(_QUERIES["list_attempts"], Attempt, customer_id=customer_id)
    return [_typed(row) for row in rows]


def list_pending(tx: Tx, *, before: datetime, after: tuple[UUID, UUID], size: int) -> list[Attempt]:
    """Return the next attempts without a final answer that began by `before`."""
    customer_id, attempt_id = after
    rows = tx.many(
        _QUERIES["list_pending"],
        Attempt,
        before=before,
        after_customer=customer_id,
        after_attempt=attempt_id,
        size=size,
    )
    return [_typed(row) for row in rows]


def page_customers(tx: Tx, *, after: UUID, size: int) -> list[UUID]:
    """Return the next customers from whom anything was collected."""
    rows = tx.many(_QUERIES["page_customers"], CustomerRow, after=after, size=size)
    return [row.customer_id for row in rows]


def list_succeeded(tx: Tx, customer_ids: Sequence[UUID]) -> list[SucceededRow]:
    """Return what succeeded for these customers."""
    return tx.many(_QUERIES["list_succeeded"], SucceededRow, customer_ids=list(customer_ids))


def sum_succeeded(tx: Tx) -> list[SumRow]:
    """Return what succeeded in all."""
    return tx.many(_QUERIES["sum_succeeded"], SumRow)


def find_stuck(tx: Tx) -> list[StuckRow]:
    """Return collections that nothing will ever move."""
    return tx.many(_QUERIES["find_stuck"], StuckRow)


def _typed(row: Attempt) -> Attempt:
    """Return the row with its state as the enumeration: the driver gives text."""
    return replace(row, state=AttemptState(row.state))


def insert_receipt(tx: Tx, receipt: Receipt) -> bool:
    """Enter money that came; False when its reference is known already."""
    return tx.run(_QUERIES["insert_receipt"], **asdict(receipt)) == 1


def find_receipt(tx: Tx, like: Receipt) -> Receipt:
    """Return the receipt with the method and reference of this one."""
    found = tx.one(
        _QUERIES["find_receipt"],
        Receipt,
        customer_id=like.customer_id,
        method=like.method,
        reference=like.reference,
    )
    require(found is not None, "a receipt that conflicts is there")
    return replace(found or like, method=like.method)


def insert_receipt_part(tx: Tx, receipt: Receipt, invoice_id: UUID, amount: int) -> None:
    """Say what an invoice got of a receipt."""
    tx.run(
        _QUERIES["insert_receipt_part"],
        customer_id=receipt.customer_id,
        receipt_id=receipt.receipt_id,
        invoice_id=invoice_id,
        amount=amount,
    )


def page_receipts(tx: Tx, customer_id: UUID, *, after: UUID | None, limit: int) -> list[Receipt]:
    """Return a customer's receipts, the oldest entry first."""
    rows = tx.many(
        _QUERIES["page_receipts"], Receipt, customer_id=customer_id, after=after, limit=limit
    )
    return [replace(row, method=ReceiptMethod(row.method)) for row in rows]


def list_receipts(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return what came from these customers by receipt."""
    rows = tx.tuples(_QUERIES["list_receipts"], customer_ids=list(customer_ids))
    return {row[0]: row[1] for row in rows}


def list_receipt_parts(tx: Tx, customer_ids: Sequence[UUID]) -> list[tuple[UUID, int]]:
    """Return what invoices of these customers got of receipts."""
    rows = tx.tuples(_QUERIES["list_receipt_parts"], customer_ids=list(customer_ids))
    return [(row[0], row[1]) for row in rows]


def sum_receipts(tx: Tx) -> dict[str, int]:
    """Return what came in all, by currency."""
    return {row[0]: row[1] for row in tx.tuples(_QUERIES["sum_receipts"])}


def page_payments(
    tx: Tx, customer_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[PaymentRow]:
    """Return what a customer paid, by card or otherwise, in its order."""
    at, entry_id = after or (None, None)
    return tx.many(
        _QUERIES["page_payments"], PaymentRow,
        customer_id=customer_id, after_at=at, after_id=entry_id, limit=limit,
    )  # fmt: skip
