"""Run, pay and check: each batch of a run is one transaction, and a run can die at any point.

A batch locks the subscriptions of its customers, so two runs take turns and the second one finds
nothing left to bill. Whatever a killed run had committed stays; the next run does the rest. The
numbers are taken last, under the series' own lock, so none is lost with a batch that fails.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from convergio.billing import buying, crediting, errors, issuing, owing, rules, settling, store
from convergio.billing.model import (
    Amounts,
    Buyer,
    CreditDraft,
    Draft,
    Invoice,
    InvoiceView,
    ParkedRow,
    Problem,
    Report,
    Status,
)
from convergio.crypto.actions import Keyring
from convergio.infra import outbox
from convergio.infra.db import Database, Tx
from convergio.infra.ids import new_id, typeid
from convergio.infra.settings import Seller
from convergio.kernel.errors import Difference, Unavailable
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import BillingView

BATCH_CUSTOMERS: Final = 500
GRACE: Final = timedelta(hours=1)
_TRIES_MAX: Final = 5
_FIRST: Final = UUID(int=0)
Progress = Callable[[int], None]
Issuer = issuing.Issuer


class _Undone(Exception):
    """Leaves the transaction of a dry run."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What every batch of a run shares."""

    by: issuing.Issuer
    prices: owing.Prices
    closed: datetime
    can_pay: subscriptions.CanPay | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one batch did."""

    views: Sequence[BillingView]
    drafts: Sequence[Draft]
    notes: Sequence[CreditDraft]
    problems: Sequence[Problem]


def run(
    database: Database,
    *,
    as_of: datetime,
    now: datetime,
    seller: Seller,
    keyring: Keyring,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    progress: Progress | None = None,
    can_pay: subscriptions.CanPay | None = None,
) -> Report:
    """Invoice what is owed at boundaries up to `as_of` less the grace and not billed yet.

    Opens one transaction a batch of customers; `progress` hears how many customers each one had.
    Numbers and dates of issue follow `as_of`, the instant that the run pretends to be; ids follow
    `now`. `can_pay` says who has a payment method when a trial ends. A dry run goes through the
    same code and undoes each batch. Locks: the batch's subscriptions, credited invoices, then the
    series. Emits: invoice.finalized, credit_note.finalized, invoice.paid, billing.parked,
    billing.unparked, and what `subscriptions.renew` emits. Raises: Unavailable when another writer
    stays in the way; what is committed stays.
    """
    by = issuing.Issuer(seller, keyring, as_of, now)
    shared = _Run(by, owing.Prices(), as_of - grace, can_pay)
    report, run_id = Report(), new_id(now)
    with database.transaction() as tx:
        keyring.prepare(tx)
        if not dry_run:
            store.insert_run(tx, run_id, as_of=as_of, started_at=now)
    after: UUID | None = None
    while True:
        batch = _committed(database, shared, after, keep=not dry_run)
        report.add(batch.drafts, batch.problems, customers=len(batch.views), notes=batch.notes)
        if not batch.views:
            break
        if progress is not None:
            progress(len(batch.views))
        after = batch.views[-1].customer_id
    if not dry_run:
        with database.transaction() as tx:
            done = {"closed": instant_text(shared.closed)} | report_value(report)
            store.finish_run(tx, run_id, finished_at=now, report=done)
    return report


def report_value(report: Report) -> dict[str, object]:
    """Return a report as JSON takes it: invoices and totals first, customers by public id."""
    return report.value(lambda customer_id: typeid("cus", customer_id))


def _committed(database: Database, shared: _Run, after: UUID | None, *, keep: bool) -> _Batch:
    """Bill one batch in a transaction of its own, again where a lock or a deadlock undid it."""
    done = _Batch((), (), (), ())
    for tries_left in reversed(range(_TRIES_MAX)):
        try:
            with suppress(_Undone), database.transaction() as tx:
                done = _bill(tx, shared, after)
                if not keep:
                    raise _Undone
        except Unavailable as error:
            if error.code != "contended" or not tries_left:
                raise
        else:
            break
    return done


def _bill(tx: Tx, shared: _Run, after: UUID | None) -> _Batch:
    """Read a batch in bulk, decide without the database, write it in bulk."""
    by = shared.by
    views = subscriptions.for_billing(
        tx,
        after=after,
        limit=BATCH_CUSTOMERS,
        until=shared.closed,
        now=by.as_of,
        can_pay=shared.can_pay,
    )
    found = settling.settled(tx, views, shared.prices, closed=shared.closed, day=by.as_of)
    wanted = {d.customer_id for d in found.drafts} | {n.customer_id for n in found.notes}
    buyers, unreadable = buying.buyers_of(tx, by.keyring, wanted)
    drafts = [draft for draft in found.drafts if draft.customer_id in buyers]
    notes = [note for note in found.notes if note.customer_id in buyers]
    if drafts or notes:
        issuing.issue(tx, by, drafts, notes, buyers)
    problems = found.problems + unreadable
    problems += [Problem(v.customer_id, "delayed_end", v.delay) for v in views if v.delay]
    _park(tx, views, problems, now=by.as_of)
    out = found.waiting | {one.customer_id for one in problems}
    subscriptions.close(tx, [view for view in views if view.customer_id not in out])
    return _Batch(views, drafts, notes, problems)


def _park(
    tx: Tx, views: Sequence[BillingView], problems: Sequence[Problem], *, now: datetime
) -> None:
    """Note who is left out and why, and take off the list whose reason is gone."""
    out = {one.customer_id: one for one in problems}
    parked = store.park(tx, list(out.values()), parked_at=now) if out else []
    gone = store.unpark(tx, [v.customer_id for v in views if v.customer_id not in out])
    facts = [outbox.Fact("billing.parked", one, one, {"code": out[one].code}) for one in parked]
    facts += [outbox.Fact("billing.unparked", one, one, {}) for one in gone]
    outbox.emit_many(tx, facts, now=now)


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
) -> list[Invoice]:
    """Return the next invoices in the order of customer and time."""
    return store.page_invoices(tx, after=after, limit=limit, customer_id=customer_id, status=status)


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
    )


def billed_until(tx: Tx) -> datetime | None:
    """Return how far the furthest run has billed, its grace taken off; None if it never ended."""
    last = store.find_last_run(tx)
    return last.closed if last is not None else None


def verify(tx: Tx) -> list[Difference]:
    """Return where invoices differ from what is owed, from their lines, numbers or transfers.

    More billed than owed is a difference, and so is a fee that the furthest finished run should
    have found. Usage that came in after its boundary is not: it waits for the next invoice.
    """
    found = [rules.unequal(row) for row in store.find_unequal(tx)]
    found += [crediting.strange(row) for row in store.find_strange(tx)]
    for row in store.list_numbering(tx):
        found += rules.gaps(row)
    last = store.find_last_run(tx)
    if last is None:
        return found
    prices, closed, after = owing.Prices(), last.closed or last.as_of, None
    begun = last.started_at if last.closed is not None else None
    while views := subscriptions.as_stored(tx, after=after, limit=BATCH_CUSTOMERS, until=closed):
        usage = settling.usage_of(tx, views, prices, closed=closed)
        customer_ids = [view.customer_id for view in views]
        billed = store.sum_billed(tx, customer_ids)
        for view in views:
            some = billed.get(view.customer_id, {})
            found += rules.audit(view, prices, usage, some, closed=closed, begun=begun)
        found += _unposted(tx, customer_ids)
        after = customer_ids[-1]
    return found


def _unposted(tx: Tx, customer_ids: Sequence[UUID]) -> list[Difference]:
    """Return documents whose lines and transfers differ."""
    invoices = ledger.posted(tx, customer_ids, kind=Kind.INVOICE)
    notes = ledger.posted(tx, customer_ids, kind=Kind.CREDIT_NOTE)
    return rules.unposted("invoice", store.list_revenue(tx, customer_ids), invoices) + (
        rules.unposted("credit note", store.list_reversed(tx, customer_ids), notes, sign=-1)
    )
