"""The queries of billing: one function each."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import msgspec
from psycopg import errors as pg

from convergio.billing import sellers
from convergio.billing.auditing import NumberingRow, RevenueRow, StrangeRow, UnequalRow
from convergio.billing.model import (
    Amounts,
    Billed,
    ChargeKey,
    CollectionMethod,
    Creditable,
    CreditDraft,
    CreditKind,
    CreditNote,
    CreditNoteLine,
    DocumentRow,
    Draft,
    Invoice,
    InvoiceLine,
    Kind,
    Numbers,
    ParkedRow,
    PastLine,
    Problem,
    RunRow,
    Status,
    Terms,
)
from convergio.billing.reporting import Order, Page, PageRow, Report
from convergio.billing.rules import FRESH
from convergio.infra import sql
from convergio.infra.db import Contended, Tx

QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


# The types of what is loaded in bulk, in the order of its columns; the bytea of a line is jsonb.
_LINE: Final = (
    "uuid uuid int4 uuid uuid timestamptz text text timestamptz uuid text text numeric int8 text"
    " bytea uuid int4"
).split()
_CHARGED: Final = [*_LINE, "int8", "text", "numeric", "text", "bool"]
_INVOICE: Final = (
    "uuid uuid timestamptz text int4 int8 text text int8 int8 date date timestamptz bytea int8"
    " int8 int8 int8 int8 int8 uuid"
).split()
_KINDS: Final = {kind.value: kind for kind in Kind}


def sum_billed(
    tx: Tx, customer_ids: Sequence[UUID], *, floors: Mapping[UUID, datetime] | None = None
) -> dict[UUID, dict[ChargeKey, Billed]]:
    """Return by customer what the lines of each charge key add up to.

    Periods that begin before their subscription's floor are left out.
    """
    billed: dict[UUID, dict[ChargeKey, Billed]] = {}
    known = floors or {}
    rows = tx.tuples(
        QUERIES["sum_billed"],
        customer_ids=list(customer_ids),
        subscription_ids=list(known),
        floors=list(known.values()),
    )
    for customer_id, item_id, start, kind, dimensions, end, amount, quantity in rows:
        key = ChargeKey(item_id, start, _KINDS[kind], dimensions)
        billed.setdefault(customer_id, {})[key] = Billed(amount, quantity, end)
    return billed


def list_last_boundaries(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """Return the last invoiced boundary of each customer who has one."""
    return dict(tx.tuples(QUERIES["list_last_boundaries"], customer_ids=list(customer_ids)))


def copy_lines(tx: Tx, drafts: Sequence[Draft], ids: Sequence[UUID]) -> None:
    """Load the lines of drafts under the ids that their invoices will have."""
    tx.copy(
        QUERIES["copy_lines"],
        (
            (draft.customer_id, invoice_id, number, line.subscription_id, line.key.item_id,
             line.key.period_start, line.key.kind, line.key.dimensions, line.period_end,
             line.price_id, line.reason, line.description, line.quantity, line.amount.minor,
             line.amount.currency, b"\x01" + line.detail.encode(), *(line.origin or (None, None)))
            for draft, invoice_id in zip(drafts, ids, strict=True)
            for number, line in enumerate(draft.lines, 1)
        ),
        types=_LINE,
    )  # fmt: skip


def copy_charged_lines(tx: Tx, drafts: Sequence[Draft], ids: Sequence[UUID]) -> None:
    """Load lines of drafts that have a discount or a tax, as `copy_lines` does the others."""
    tx.copy(
        QUERIES["copy_charged_lines"],
        (
            (draft.customer_id, invoice_id, number, line.subscription_id, line.key.item_id,
             line.key.period_start, line.key.kind, line.key.dimensions, line.period_end,
             line.price_id, line.reason, line.description, line.quantity, line.amount.minor,
             line.amount.currency, b"\x01" + line.detail.encode(), *(line.origin or (None, None)),
             line.bearing.discount, *line.bearing.group)
            for draft, invoice_id in zip(drafts, ids, strict=True)
            for number, line in enumerate(draft.lines, 1)
        ),
        types=_CHARGED,
    )  # fmt: skip


def copy_invoices(tx: Tx, invoices: Iterable[Invoice], *, seller: UUID) -> None:
    """Load numbered invoices; `seller` is the version of who issues them."""
    tx.copy(
        QUERIES["copy_invoices"],
        (
            (i.customer_id, i.invoice_id, i.boundary_at, i.series, i.year, i.number, i.status,
             i.currency, i.total, i.paid, i.issued_on, i.due_on, i.finalized_at, i.sealed_buyer,
             i.credited, i.from_balance, i.excess, i.subtotal, i.discount, i.tax, seller)
            for i in invoices
        ),
        types=_INVOICE,
    )  # fmt: skip


def lock_series(tx: Tx, series: str) -> None:
    """Make everyone who numbers this series take turns."""
    tx.run(QUERIES["lock_series"], series=series)


def find_last_issue(tx: Tx, series: str) -> date | None:
    """Return the day of the last issue in a series."""
    return cast("date | None", tx.value(QUERIES["find_last_issue"], series=series))


def take_numbers(tx: Tx, series: str, *, count: int, issued_on: date, is_note: bool) -> Numbers:
    """Take the next `count` numbers of the series in the year of the issue.

    Raises: Contended where another series began meanwhile and has the block of file names.
    """
    year, query = issued_on.year, QUERIES["take_numbers"]
    blocks = {"blocks": sellers.BLOCKS, "usual": sellers.block_of(year, is_note=is_note)}
    try:
        last = tx.value(query, series=series, year=year, count=count, issued_on=issued_on, **blocks)
    except pg.UniqueViolation as error:
        raise Contended("another series begins; try again", code="contended") from error
    return Numbers(series, year, last - count + 1, issued_on)


def keep_seller(tx: Tx, version: sellers.Version, *, now: datetime) -> None:
    """Keep who issues, once."""
    tx.run(QUERIES["keep_seller"], version_id=version[0], seller=version[1], first_used_at=now)


def find_issued(tx: Tx, customer_id: UUID, invoice_id: UUID) -> sellers.Issued:
    """Return what was kept when an invoice was issued."""
    query = QUERIES["find_issued"]
    (row,) = tx.tuples(query, customer_id=customer_id, invoice_id=invoice_id)
    return sellers.read(*row)


def insert_run(tx: Tx, run_id: UUID, *, as_of: datetime, started_at: datetime, turn: int) -> None:
    """Note that a run has begun."""
    query = QUERIES["insert_run"]
    tx.run(query, run_id=run_id, as_of=as_of, started_at=started_at, turn=turn)


def next_turn(tx: Tx) -> int:
    """Take a place in the order in which runs and pages begin."""
    return int(tx.value(QUERIES["next_turn"]))


def claim_page(tx: Tx, first_id: UUID) -> bool:
    """Take a page; say False when another worker has it."""
    return bool(tx.value(QUERIES["claim_page"], first_id=first_id))


def lock_page(tx: Tx, first_id: UUID) -> None:
    """Take a page, once whoever has it is done."""
    tx.run(QUERIES["lock_page"], first_id=first_id)


def find_page(tx: Tx, page: Page, order: Order) -> PageRow | None:
    """Return the page as someone billed it, as far as the order asks, who began it later."""
    return tx.one(
        QUERIES["find_page"], PageRow,
        first_id=page.first, until_id=page.until, turn=order.turn, closed=order.closed,
    )  # fmt: skip


def insert_page(tx: Tx, page: Page, order: Order, *, turn: int, report: Report) -> None:
    """Note what a run did with a page."""
    tx.run(
        QUERIES["insert_page"],
        first_id=page.first,
        until_id=page.until,
        turn=turn,
        run_id=order.run_id,
        closed=order.closed,
        customers=report.customers,
        report=msgspec.json.encode(report).decode(),
    )


def list_reports(tx: Tx, run_id: UUID) -> list[Report]:
    """Return what a run did, page by page."""
    rows = tx.tuples(QUERIES["list_reports"], run_id=run_id)
    return [msgspec.json.decode(row[0], type=Report) for row in rows]


def delete_pages(tx: Tx, *, begun_before: datetime) -> None:
    """Forget the pages of old runs."""
    tx.run(QUERIES["delete_pages"], begun_before=begun_before)


def finish_run(tx: Tx, run_id: UUID, *, finished_at: datetime, report: object) -> None:
    """Note how a run ended."""
    text = msgspec.json.encode(report).decode()
    tx.run(QUERIES["finish_run"], run_id=run_id, finished_at=finished_at, report=text)


def find_last_run(tx: Tx) -> RunRow | None:
    """Return the run that reached furthest, a finished one before others."""
    return tx.one(QUERIES["find_last_run"], RunRow)


def find_invoice(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Invoice | None:
    """Return one invoice."""
    return _one(tx.tuples(QUERIES["find_invoice"], customer_id=customer_id, invoice_id=invoice_id))


def find_numbered(tx: Tx, series: str, year: int, number: int) -> Invoice | None:
    """Return the invoice with a number."""
    return _one(tx.tuples(QUERIES["find_numbered"], series=series, year=year, number=number))


def find_identified(tx: Tx, invoice_id: UUID) -> Invoice | None:
    """Return the invoice with an id, whoever its customer is."""
    return _one(tx.tuples(QUERIES["find_identified"], invoice_id=invoice_id))


def lock_invoice(tx: Tx, customer_id: UUID, invoice_id: UUID) -> Invoice | None:
    """Lock one invoice."""
    return _one(tx.tuples(QUERIES["lock_invoice"], customer_id=customer_id, invoice_id=invoice_id))


def page_open(tx: Tx, *, after: tuple[UUID, UUID], limit: int) -> list[Invoice]:
    """Return the next open invoices in the order of customer and id."""
    rows = tx.tuples(
        QUERIES["page_open"], after_customer_id=after[0], after_invoice_id=after[1], limit=limit
    )
    return [_invoice(row) for row in rows]


def page_invoices(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    limit: int,
    customer_id: UUID | None,
    status: Status | None,
    series: str | None = None,
    issued_from: date | None = None,
    issued_to: date | None = None,
) -> list[Invoice]:
    """Return the next invoices in the order of customer and id; `issued_to` is not included."""
    rows = tx.tuples(
        QUERIES["page_invoices"], after_customer_id=after[0], after_invoice_id=after[1],
        customer_id=customer_id, status=status, series=series, issued_from=issued_from,
        issued_to=issued_to, limit=limit,
    )  # fmt: skip
    return [_invoice(row) for row in rows]


def lock_invoices(
    tx: Tx, customer_ids: Sequence[UUID], invoice_ids: Sequence[UUID]
) -> list[Invoice]:
    """Lock invoices of customers in the order of their ids."""
    rows = tx.tuples(
        QUERIES["lock_invoices"], customer_ids=list(customer_ids), invoice_ids=list(invoice_ids)
    )
    return [_invoice(row) for row in rows]


def save_settled(tx: Tx, invoice: Invoice) -> None:
    """Store how an invoice stands and what settles it."""
    tx.run(
        QUERIES["save_settled"], customer_id=invoice.customer_id, invoice_id=invoice.invoice_id,
        status=invoice.status, paid=invoice.paid, credited=invoice.credited, excess=invoice.excess,
    )  # fmt: skip


def list_lines(tx: Tx, customer_id: UUID, invoice_id: UUID) -> list[InvoiceLine]:
    """Return the lines of one invoice."""
    return tx.many(
        QUERIES["list_lines"], InvoiceLine, customer_id=customer_id, invoice_id=invoice_id
    )


def find_unequal(tx: Tx) -> list[UnequalRow]:
    """Return invoices whose lines do not add up to their total."""
    return tx.many(QUERIES["find_unequal"], UnequalRow)


def list_numbering(tx: Tx) -> list[NumberingRow]:
    """Return each series and year with what it holds."""
    return tx.many(QUERIES["list_numbering"], NumberingRow)


def list_amounts(tx: Tx, customer_ids: Sequence[UUID]) -> list[Amounts]:
    """Return the amounts of these customers' invoices."""
    return tx.many(QUERIES["list_amounts"], Amounts, customer_ids=list(customer_ids))


def list_revenue(tx: Tx, customer_ids: Sequence[UUID]) -> list[RevenueRow]:
    """Return what the lines of each invoice add up to by kind."""
    rows = tx.tuples(QUERIES["list_revenue"], customer_ids=list(customer_ids))
    return [RevenueRow(*(*row[:2], _KINDS[row[2]], *row[3:])) for row in rows]


def list_reversed(tx: Tx, customer_ids: Sequence[UUID]) -> list[RevenueRow]:
    """Return what the lines of each credit note add up to by kind."""
    rows = tx.tuples(QUERIES["list_reversed"], customer_ids=list(customer_ids))
    return [RevenueRow(*(*row[:2], _KINDS[row[2]], *row[3:])) for row in rows]


def list_discounts(tx: Tx, customer_ids: Sequence[UUID]) -> list[tuple[UUID, int, int, int]]:
    """Return invoice, line, its discount, and what corrections took back of that."""
    rows = tx.tuples(QUERIES["list_discounts"], customer_ids=list(customer_ids))
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def list_creditable(
    tx: Tx, customer_ids: Sequence[UUID], *, invoice_id: UUID | None = None
) -> list[Creditable]:
    """Return what is left to credit of each line, the newest invoice first."""
    return tx.many(
        QUERIES["list_creditable"],
        Creditable,
        customer_ids=list(customer_ids),
        invoice_id=invoice_id,
    )


def has_fees_from(tx: Tx, customer_id: UUID, start_at: datetime) -> bool:
    """Say whether a customer was billed a fee for a period that begins then or later."""
    return bool(tx.value(QUERIES["has_fees_from"], customer_id=customer_id, start_at=start_at))


def copy_credit_notes(tx: Tx, notes: Iterable[CreditNote], *, seller: UUID) -> None:
    """Load numbered credit notes; `seller` is the version of who issues them."""
    tx.copy(
        QUERIES["copy_credit_notes"],
        (
            (n.customer_id, n.credit_note_id, n.invoice_id, n.series, n.year, n.number, n.kind,
             n.reason, n.currency, n.total, n.applied, n.issued_on, n.finalized_at, n.sealed_buyer,
             n.subtotal, n.discount, n.tax, seller)
            for n in notes
        ),
    )  # fmt: skip


def copy_credit_note_lines(tx: Tx, drafts: Sequence[CreditDraft], ids: Sequence[UUID]) -> None:
    """Load the lines of credit notes under the ids that these have."""
    tx.copy(
        QUERIES["copy_credit_note_lines"],
        (
            (draft.customer_id, note_id, number, draft.invoice_id, line.invoice_line,
             line.description, line.quantity, line.amount.minor, line.bearing.discount)
            for draft, note_id in zip(drafts, ids, strict=True)
            for number, line in enumerate(draft.lines, 1)
        ),
    )  # fmt: skip


def page_credit_notes(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    limit: int,
    customer_id: UUID | None,
    invoice_id: UUID | None,
) -> list[CreditNote]:
    """Return the next credit notes in the order of customer and id."""
    rows = tx.tuples(
        QUERIES["page_credit_notes"], after_customer_id=after[0], after_credit_note_id=after[1],
        customer_id=customer_id, invoice_id=invoice_id, limit=limit,
    )  # fmt: skip
    return [_note(row) for row in rows]


def find_credit_note(tx: Tx, series: str, year: int, number: int) -> CreditNote | None:
    """Return the credit note with a number."""
    rows = tx.tuples(QUERIES["find_credit_note"], series=series, year=year, number=number)
    return _note(rows[0]) if rows else None


def list_credit_note_lines(tx: Tx, customer_id: UUID, credit_note_id: UUID) -> list[CreditNoteLine]:
    """Return the lines of one credit note."""
    return tx.many(
        QUERIES["list_credit_note_lines"],
        CreditNoteLine,
        customer_id=customer_id,
        credit_note_id=credit_note_id,
    )


def count_lines_since(
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime
) -> dict[tuple[UUID, UUID], int]:
    """Return by customer and subscription how many lines amended others since an instant."""
    query, fresh = QUERIES["count_lines_since"], list(FRESH)
    rows = tx.tuples(query, customer_ids=list(customer_ids), since=since, fresh=fresh)
    return {(customer_id, subscription_id): count for customer_id, subscription_id, count in rows}


def park(tx: Tx, problems: Sequence[Problem], *, parked_at: datetime) -> list[UUID]:
    """Note why customers are left out; return who was not before, or for another reason."""
    rows = tx.tuples(
        QUERIES["park"],
        customer_ids=[one.customer_id for one in problems],
        codes=[one.code for one in problems],
        reasons=[one.reason for one in problems],
        parked_at=parked_at,
    )
    return [row[0] for row in rows]


def unpark(tx: Tx, customer_ids: Sequence[UUID]) -> list[UUID]:
    """Take customers off the list; return who was on it."""
    return [row[0] for row in tx.tuples(QUERIES["unpark"], customer_ids=list(customer_ids))]


def list_parked(tx: Tx) -> list[ParkedRow]:
    """Return everyone who is left out, and why."""
    return tx.many(QUERIES["list_parked"], ParkedRow)


def find_strange(tx: Tx) -> list[StrangeRow]:
    """Return sums that two places disagree about."""
    return tx.many(QUERIES["find_strange"], StrangeRow)


def _one(rows: list[tuple[Any, ...]]) -> Invoice | None:
    return _invoice(rows[0]) if rows else None


def _invoice(row: tuple[Any, ...]) -> Invoice:
    return Invoice(*(*row[:6], Status(row[6]), *row[7:]))


def _note(row: tuple[Any, ...]) -> CreditNote:
    return CreditNote(*(*row[:6], CreditKind(row[6]), *row[7:-2], sellers.read(*row[-2:])))


def save_terms(tx: Tx, customer_id: UUID, terms: Terms, *, now: datetime) -> None:
    """Agree on how a customer pays."""
    tx.run(
        QUERIES["save_terms"], customer_id=customer_id, collection=terms.collection,
        net_days=terms.net_days, updated_at=now,
    )  # fmt: skip


def list_terms(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, Terms]:
    """Return how these customers pay, those with other than the usual terms."""
    rows = tx.tuples(QUERIES["list_terms"], customer_ids=list(customer_ids))
    return {row[0]: Terms(CollectionMethod(row[1]), row[2]) for row in rows}


def page_documents(
    tx: Tx, customer_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[DocumentRow]:
    """Return a customer's next invoices and credit notes in the order of their issue."""
    at, entry_id = after or (None, None)
    return tx.many(
        QUERIES["page_documents"], DocumentRow,
        customer_id=customer_id, after_at=at, after_id=entry_id, limit=limit,
    )  # fmt: skip


def list_past_lines(tx: Tx, customer_ids: Sequence[UUID]) -> list[PastLine]:
    """Return what was billed of charges, and when, in the order of the documents."""
    rows = tx.tuples(QUERIES["list_past_lines"], customer_ids=list(customer_ids))
    return [PastLine(*row) for row in rows]


def sum_documents(
    tx: Tx, customer_ids: Sequence[UUID], *, since: datetime, until: datetime
) -> dict[UUID, tuple[int, int]]:
    """Return what documents of a time bill each customer, without the tax, and the tax."""
    rows = tx.tuples(
        QUERIES["sum_documents"], customer_ids=list(customer_ids), since=since, until=until
    )
    return {customer_id: (net, tax) for customer_id, net, tax in rows}
