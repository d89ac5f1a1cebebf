"""The queries of taxes: one function each."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.rating.taxing import GroupKey, Rate, Registration, TaxRow, Treatment
from convergio.taxes.model import (
    DocumentTax,
    Evidence,
    EvidenceKind,
    Exchange,
    Kept,
    NumberCheck,
    Placed,
    ReferenceRate,
    Stored,
)

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class StateRow:
    """The one row: where the seller is."""

    version: int
    seller_country: str
    one_stop_shop: bool
    currency: str | None
    fatturapa: bool
    evidence_min: int


def begin_state(tx: Tx, *, seller_country: str, now: datetime) -> None:
    """Make the one row that an apply locks."""
    tx.run(QUERIES["begin_state"], seller_country=seller_country, now=now)


def lock_state(tx: Tx) -> int:
    """Let one apply run at a time; return the version."""
    version: int = tx.value(QUERIES["lock_state"])
    return version


def save_state(tx: Tx, state: Stored, *, now: datetime) -> None:
    """Store the version that an apply ends with, and where the seller is."""
    tx.run(
        QUERIES["save_state"],
        version=state.version,
        seller_country=state.book.seller_country,
        one_stop_shop=state.book.one_stop_shop,
        currency=state.currency,
        fatturapa=state.fatturapa,
        evidence_min=state.book.evidence_min,
        now=now,
    )


def find_state(tx: Tx) -> StateRow | None:
    """Return where the seller is; None before the first apply."""
    return tx.one(QUERIES["find_state"], StateRow)


def list_registrations(tx: Tx) -> list[Registration]:
    """Return where the seller is registered."""
    return tx.many(QUERIES["list_registrations"], Registration)


def list_rates(tx: Tx) -> list[Rate]:
    """Return every rate."""
    return tx.many(QUERIES["list_rates"], Rate)


def clear_registrations(tx: Tx) -> None:
    """Forget the registrations."""
    tx.run(QUERIES["clear_registrations"])


def clear_rates(tx: Tx) -> None:
    """Forget the rates."""
    tx.run(QUERIES["clear_rates"])


def copy_registrations(tx: Tx, registrations: Sequence[Registration]) -> None:
    """Load registrations."""
    rows = ((r.country, r.region, r.valid_from, r.valid_to) for r in registrations)
    tx.copy(QUERIES["copy_registrations"], rows)


def copy_rates(tx: Tx, rates: Sequence[Rate]) -> None:
    """Load rates."""
    rows = (
        (r.country, r.region, r.category, r.valid_from, r.valid_to, r.percent, r.is_exempt,
         r.reason)
        for r in rates
    )  # fmt: skip
    tx.copy(QUERIES["copy_rates"], rows)


def insert_check(tx: Tx, check: NumberCheck) -> None:
    """Keep a check of a customer's tax number."""
    tx.run(QUERIES["insert_check"], **asdict(check))


def list_checks(tx: Tx, customer_id: UUID, *, limit: int) -> list[NumberCheck]:
    """Return the checks of a customer's tax number, the newest first."""
    return tx.many(QUERIES["list_checks"], NumberCheck, customer_id=customer_id, limit=limit)


def list_credited(
    tx: Tx, customer_ids: Sequence[UUID]
) -> dict[tuple[UUID, GroupKey], tuple[int, int]]:
    """Return what credit notes took back of each invoice's tax groups: as priced, and the tax."""
    rows = tx.tuples(QUERIES["list_credited"], customer_ids=list(customer_ids))
    return {
        (row[0], GroupKey(row[1], row[2], Treatment(row[3]), row[4])): (row[5], row[6])
        for row in rows
    }


def copy_invoice_taxes(tx: Tx, rows: Iterable[DocumentTax]) -> None:
    """Load the taxes of invoices."""
    tx.copy(QUERIES["copy_invoice_taxes"], map(_values, rows))


def copy_credit_note_taxes(tx: Tx, rows: Iterable[DocumentTax]) -> None:
    """Load the taxes of credit notes."""
    tx.copy(QUERIES["copy_credit_note_taxes"], map(_values, rows))


def list_invoice_taxes(
    tx: Tx, customer_ids: Sequence[UUID], invoice_id: UUID | None
) -> list[DocumentTax]:
    """Return the taxes of invoices, of one where it is given."""
    values = {"customer_ids": list(customer_ids), "invoice_id": invoice_id}
    return [_document_tax(row) for row in tx.tuples(QUERIES["list_invoice_taxes"], **values)]


def list_credit_note_taxes(
    tx: Tx, customer_ids: Sequence[UUID], credit_note_id: UUID | None
) -> list[DocumentTax]:
    """Return the taxes of credit notes, of one where it is given."""
    values = {"customer_ids": list(customer_ids), "credit_note_id": credit_note_id}
    return [_document_tax(row) for row in tx.tuples(QUERIES["list_credit_note_taxes"], **values)]


def _values(one: DocumentTax) -> tuple[object, ...]:
    row = one.row
    return (
        one.customer_id, one.document_id, row.category, row.rate, row.treatment, row.inclusive,
        row.net, row.tax, row.reason, row.stated_net, row.stated_tax,
    )  # fmt: skip


def _document_tax(row: tuple[Any, ...]) -> DocumentTax:
    found = TaxRow(row[2], row[3], Treatment(row[4]), *row[5:])
    return DocumentTax(row[0], row[1], found)


def list_other_rates(tx: Tx, rates: Sequence[ReferenceRate]) -> list[tuple[Any, ...]]:
    """Return a stored rate that differs from these, if there is one: and what it would be."""
    return tx.tuples(QUERIES["list_other_rates"], **_columns(rates))


def save_rates(tx: Tx, rates: Sequence[ReferenceRate], *, source: str, now: datetime) -> int:
    """Store rates; return how many were new or differed."""
    return tx.run(QUERIES["save_rates"], **_columns(rates), source=source, now=now)


def _columns(rates: Sequence[ReferenceRate]) -> dict[str, object]:
    return {
        "currencies": [one.currency for one in rates],
        "days": [one.day for one in rates],
        "rates": [one.rate for one in rates],
    }


def list_last_rates(
    tx: Tx, currencies: Iterable[str], *, since: date, day: date
) -> dict[str, tuple[date, Decimal, str]]:
    """Return the last rate of each currency on or before a day: its day, the rate, its source."""
    values = {"currencies": sorted(currencies), "since": since, "day": day}
    return {row[0]: row[1:] for row in tx.tuples(QUERIES["list_last_rates"], **values)}


def copy_exchanges(tx: Tx, rows: Iterable[tuple[UUID, UUID, Exchange]]) -> None:
    """Load how invoices were converted."""
    tx.copy(QUERIES["copy_exchanges"], ((who, what, *by) for who, what, by in rows))


def copy_places(tx: Tx, rows: Iterable[tuple[UUID, UUID, Placed]]) -> None:
    """Load where invoices were taxed."""
    written = (
        (who, what, at.country, msgspec.json.encode(at.evidence).decode()) for who, what, at in rows
    )
    tx.copy(QUERIES["copy_places"], written)


def list_exchanges(
    tx: Tx, customer_ids: Sequence[UUID], invoice_ids: Sequence[UUID]
) -> dict[UUID, Exchange]:
    """Return how these invoices were converted, by their ids."""
    values = {"customer_ids": list(customer_ids), "invoice_ids": list(invoice_ids)}
    rows = tx.tuples(QUERIES["list_exchanges"], **values)
    return {row[0]: Exchange(*row[1:]) for row in rows}


def list_stated(
    tx: Tx, customer_ids: Sequence[UUID]
) -> dict[tuple[UUID, GroupKey], tuple[int, int, int, int]]:
    """Return what credit notes gave back of each group: net, tax, and both as stated."""
    rows = tx.tuples(QUERIES["list_stated"], customer_ids=list(customer_ids))
    return {(row[0], GroupKey(row[1], row[2], Treatment(row[3]), row[4])): row[5:] for row in rows}


def find_kept(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Kept:
    """Return what an invoice keeps beside its taxes."""
    values = {"customer_id": customer_id, "invoice_id": invoice_id}
    (row,) = tx.tuples(QUERIES["find_kept"], **values)
    exchange = None if row[0] is None else Exchange(*row[:5])
    if row[5] is None:
        return Kept(exchange)
    return Kept(exchange, Placed(row[6], tuple((kind, where) for kind, where in row[7])))


def save_evidence(tx: Tx, evidence: Evidence) -> None:
    """Keep what was seen of where a customer is."""
    tx.run(QUERIES["save_evidence"], **asdict(evidence))


def list_evidence(tx: Tx, customer_ids: Sequence[UUID]) -> list[Evidence]:
    """Return what was seen of where these customers are."""
    rows = tx.tuples(QUERIES["list_evidence"], customer_ids=list(customer_ids))
    return [Evidence(row[0], EvidenceKind(row[1]), *row[2:]) for row in rows]
