"""Run, pay and check: each batch of a run is one transaction, and a run can die at any point.

A batch locks the subscriptions of its customers, so two runs take turns and the second one finds
nothing left to bill. Whatever a killed run had committed stays; the next run does the rest. The
numbers are taken last, under the series' own lock, so none is lost with a batch that fails.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from convergio.billing import errors, rules, store
from convergio.billing.model import (
    Amounts,
    Buyer,
    Draft,
    Invoice,
    InvoiceView,
    Problem,
    Report,
    Status,
)
from convergio.catalog import actions as catalog
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Personal
from convergio.infra import outbox
from convergio.infra.db import Database, Tx
from convergio.infra.ids import new_id, typeid
from convergio.infra.settings import Seller
from convergio.kernel.errors import ConvergioError, Difference, Unavailable
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.metering import actions as metering
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import BillingView

BATCH_CUSTOMERS: Final = 500
GRACE: Final = timedelta(hours=1)
TABLE: Final = "invoice"
BUYER: Final = "sealed_buyer"
_TRIES_MAX: Final = 5
_FIRST: Final = UUID(int=0)
Progress = Callable[[int], None]


class _Undone(Exception):
    """Leaves the transaction of a dry run."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What every batch of a run shares."""

    seller: Seller
    keyring: Keyring
    prices: rules.Prices
    as_of: datetime
    closed: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one batch did."""

    views: Sequence[BillingView]
    drafts: Sequence[Draft]
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
) -> Report:
    """Invoice what is owed at boundaries up to `as_of` less the grace and not billed yet.

    Opens one transaction a batch of customers; `progress` hears how many customers each one had.
    Numbers and dates of issue follow `as_of`, the instant that the run pretends to be; ids follow
    `now`. A dry run goes through the same code and undoes each batch. Locks: the batch's
    subscriptions, then the series. Emits: invoice.finalized, subscription.canceled. Raises:
    Unavailable when another writer stays in the way; what is committed stays.
    """
    shared = _Run(seller, keyring, rules.Prices(), as_of, as_of - grace, now)
    report, run_id = Report(), new_id(now)
    with database.transaction() as tx:
        keyring.prepare(tx)
        if not dry_run:
            store.insert_run(tx, run_id, as_of=as_of, started_at=now)
    after: UUID | None = None
    while True:
        batch = _committed(database, shared, after, keep=not dry_run)
        report.add(batch.drafts, batch.problems, customers=len(batch.views))
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
    done = _Batch((), (), ())
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
    views = subscriptions.for_billing(
        tx, after=after, limit=BATCH_CUSTOMERS, until=shared.closed, now=shared.as_of
    )
    drafts, problems = _settled(tx, views, shared.prices, closed=shared.closed)
    problems += [Problem(v.customer_id, "delayed_end", v.delay) for v in views if v.delay]
    buyers, unreadable = _buyers(tx, shared.keyring, {d.customer_id for d in drafts})
    drafts = [draft for draft in drafts if draft.customer_id in buyers]
    if drafts:
        _issue(tx, shared, drafts, buyers)
    return _Batch(views, drafts, problems + unreadable)


def _settled(
    tx: Tx, views: Sequence[BillingView], prices: rules.Prices, *, closed: datetime
) -> tuple[list[Draft], list[Problem]]:
    """Return what owed - billed comes to for each customer, in the order of the customers."""
    usage = _usage(tx, views, prices, closed=closed)
    customer_ids = [view.customer_id for view in views]
    billed = store.sum_billed(tx, customer_ids)
    last = store.list_last_boundaries(tx, customer_ids)
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for view in views:
        some, wrong = rules.bill(
            view,
            prices,
            usage,
            billed.get(view.customer_id, {}),
            last_boundary=last.get(view.customer_id),
            closed=closed,
        )
        drafts += some
        problems += wrong
    return drafts, problems


def _usage(
    tx: Tx, views: Sequence[BillingView], prices: rules.Prices, *, closed: datetime
) -> rules.Usage:
    """Read the prices that these customers pin and the usage that they are asked for."""
    prices.add(catalog.prices(tx, prices.missing(views)))
    requests = [one for v in views for one in rules.usage_requests(v, prices, closed=closed)]
    return metering.usage_in(tx, requests)


def _buyers(
    tx: Tx, keyring: Keyring, customer_ids: set[UUID]
) -> tuple[dict[UUID, str], list[Problem]]:
    """Return each customer's snapshot as text to seal, and who cannot be named."""
    ids = sorted(customer_ids)
    accounts = customers.get_many(tx, ids) if ids else {}
    known: dict[UUID, Personal] = {}
    problems: list[Problem] = []
    try:
        known = dict(customers.personal_many(tx, keyring, ids))
    except ConvergioError:
        for customer_id in ids:  # the bulk read names nobody: find out who it is
            try:
                known |= customers.personal_many(tx, keyring, [customer_id])
            except ConvergioError as error:
                problems.append(Problem(customer_id, error.code, error.detail))
    unreadable = {problem.customer_id for problem in problems}
    nobody = Personal()
    return {
        customer_id: rules.buyer_text(account, known.get(customer_id, nobody))
        for customer_id, account in accounts.items()
        if customer_id not in unreadable
    }, problems


def _issue(tx: Tx, shared: _Run, drafts: Sequence[Draft], buyers: Mapping[UUID, str]) -> None:
    """Write invoices: all that can wait for nobody first, then the numbers, then commit."""
    ids = [new_id(shared.now) for _ in drafts]
    store.copy_lines(tx, drafts, ids)
    ledger.post_many(tx, _transfers(shared, drafts, ids))
    outbox.emit_many(
        tx,
        [
            outbox.Fact(
                "invoice.finalized",
                draft.customer_id,
                invoice_id,
                {"total": draft.total.text(), "currency": draft.total.currency},
            )
            for draft, invoice_id in zip(drafts, ids, strict=True)
        ],
        now=shared.as_of,
    )
    seal = shared.keyring.seal_retained
    sealed = [
        seal(tx, TABLE, BUYER, invoice_id, buyers[draft.customer_id])
        for draft, invoice_id in zip(drafts, ids, strict=True)
    ]
    seller = shared.seller
    store.lock_series(tx, seller.series)
    last = store.find_last_issue(tx, seller.series)
    day = rules.issue_day(shared.as_of, seller.time_zone, last=last)
    numbers = store.take_numbers(tx, seller.series, count=len(drafts), issued_on=day)
    store.copy_invoices(
        tx,
        rules.number_drafts(
            drafts,
            ids,
            numbers,
            sealed,
            net_days=seller.net_days,
            finalized_at=shared.as_of,
        ),
    )


def _transfers(shared: _Run, drafts: Sequence[Draft], ids: Sequence[UUID]) -> list[Transfer]:
    return [
        Transfer(
            draft.customer_id,
            new_id(shared.now),
            Kind.INVOICE,
            invoice_id,
            Account.RECEIVABLE,
            account,
            amount,
            shared.as_of,
        )
        for draft, invoice_id in zip(drafts, ids, strict=True)
        for account, amount in rules.revenue(draft).items()
    ]


def apply_payment(
    tx: Tx, *, customer_id: UUID, invoice_id: UUID, amount: Money, now: datetime
) -> Invoice:
    """Take a payment off an open invoice; the one that completes it makes it paid.

    Locks: the invoice. Emits: invoice.paid. Raises: NotFound; Conflict when the invoice is not
    open, is in another currency, or has less due.
    """
    paid = rules.pay(lock_invoice(tx, customer_id, invoice_id), amount)
    store.save_payment(tx, paid)
    if paid.status == Status.PAID:
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


def read(tx: Tx, keyring: Keyring, invoice: Invoice) -> InvoiceView:
    """Return an invoice with its lines and the buyer as of its issue. Raises: Fault."""
    sealed = keyring.open_retained(tx, TABLE, BUYER, invoice.invoice_id, invoice.sealed_buyer)
    lines = store.list_lines(tx, invoice.customer_id, invoice.invoice_id)
    zones = {s.subscription_id: s.time_zone for s in subscriptions.history(tx, invoice.customer_id)}
    return InvoiceView(
        invoice=invoice,
        lines=tuple(lines),
        buyer=msgspec.json.decode(sealed, type=Buyer),
        time_zone=zones[lines[0].subscription_id] if lines else "UTC",
    )


def verify(tx: Tx) -> list[Difference]:
    """Return where invoices differ from what is owed, from their lines, numbers or transfers.

    More billed than owed is a difference, and so is a fee that the furthest finished run should
    have found. Usage that came in after its boundary is not: it waits for the next invoice.
    """
    found = [rules.unequal(row) for row in store.find_unequal(tx)]
    for row in store.list_numbering(tx):
        found += rules.gaps(row)
    last = store.find_last_run(tx)
    if last is None:
        return found
    prices, closed, after = rules.Prices(), last.closed or last.as_of, None
    begun = last.started_at if last.closed is not None else None
    while views := subscriptions.as_stored(tx, after=after, limit=BATCH_CUSTOMERS, until=closed):
        usage = _usage(tx, views, prices, closed=closed)
        customer_ids = [view.customer_id for view in views]
        billed = store.sum_billed(tx, customer_ids)
        for view in views:
            some = billed.get(view.customer_id, {})
            found += rules.audit(view, prices, usage, some, closed=closed, begun=begun)
        found += _unposted(tx, customer_ids)
        after = customer_ids[-1]
    return found


def _unposted(tx: Tx, customer_ids: Sequence[UUID]) -> list[Difference]:
    """Return invoices whose lines and transfers differ."""
    return rules.unposted(
        store.list_revenue(tx, customer_ids), ledger.posted(tx, customer_ids, kind=Kind.INVOICE)
    )
