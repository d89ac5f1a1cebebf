"""Check everything that is billed: against what is owed, its own lines, its numbers and transfers.

Page by page, so that memory is flat however many customers there are; the caller's transaction is
one snapshot, so that a run that goes on meanwhile is no difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from convergio.billing import (
    auditing,
    charging,
    owing,
    recomputing,
    rules,
    running,
    settling,
    store,
)
from convergio.billing.gathering import is_small
from convergio.billing.model import Billed, Charge, ChargeKey
from convergio.billing.recomputing import Horizon, Lacking
from convergio.discounts import actions as discounts
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference, Unavailable
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Kind
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import BillingView
from convergio.taxes import actions as taxes
from convergio.taxes import stating


class Finding(NamedTuple):
    """A customer whose billing differs from what is owed, and how."""

    customer_id: UUID
    difference: Difference


def verify(tx: Tx) -> list[Difference]:
    """Return where invoices differ from what is owed, from their lines, numbers or transfers.

    More or less billed than owed is a difference, in closed periods and of fees, unless a fact
    that came after the furthest finished run explains it or the customer is parked. Usage that
    came in after its boundary waits for the next invoice.
    """
    found = [auditing.unequal(row) for row in store.find_unequal(tx)]
    found += [auditing.strange(row) for row in store.find_strange(tx)]
    for row in store.list_numbering(tx):
        found += auditing.gaps(row)
    for findings, customer_ids in _pages(tx):
        found += [one.difference for one in findings]
        found += _unposted(tx, customer_ids)
    return found


def recomputed(tx: Tx) -> Iterator[Finding]:
    """Yield everything that is billed otherwise than it is owed, closed periods too."""
    return chain.from_iterable(findings for findings, _ in _pages(tx))


def _pages(tx: Tx) -> Iterator[tuple[list[Finding], list[UUID]]]:
    """Yield what differs, page of customers by page, with the page's customers."""
    last = store.find_last_run(tx)
    if last is None:
        return
    horizon = Horizon(
        last.closed or last.as_of, last.started_at if last.closed is not None else None
    )
    prices, after = owing.Prices(), None
    parked = {row.customer_id for row in store.list_parked(tx)}
    while views := subscriptions.as_stored(
        tx, after=after, limit=running.PAGE_CUSTOMERS, until=horizon.closed
    ):
        customer_ids = [view.customer_id for view in views]
        yield _page(tx, views, prices, horizon, parked), customer_ids
        after = customer_ids[-1]


def _page(
    tx: Tx,
    views: Sequence[BillingView],
    prices: owing.Prices,
    horizon: Horizon,
    parked: set[UUID],
) -> list[Finding]:
    full = [recomputing.unclosed(view) for view in views]
    usage, drawn = settling.usage_of(tx, full, prices, closed=horizon.closed)
    billed = store.sum_billed(tx, [view.customer_id for view in views])
    found: list[Finding] = []
    for view, whole in zip(views, full, strict=True):
        some = billed.get(view.customer_id, {})
        until = horizon._replace(begun=None) if view.customer_id in parked else horizon
        rest: list[Lacking] = []
        try:
            charges = owing.owed(whole, prices, usage, closed=until.closed, drawn=drawn)
            differing = recomputing.strays(view, charges, some, closed=until.closed)
            rest = recomputing.lacking(view, prices, charges, some, until)
            if any(one.minor < 0 for one in rest):
                rest = _creditable(tx, view, rest)
            if rest and prices.minimums:
                rest = _worth_asking(tx, whole, prices, (charges, some), rest, until.closed)
        except Unavailable:
            raise
        except rules.BROKEN as error:
            where = f"billing of customer {view.customer_id}"
            differing = [Difference(where, "owed can be computed", str(error))]
        differing += [recomputing.difference(view, one) for one in rest]
        found += [Finding(view.customer_id, one) for one in differing]
    return found


def _creditable(tx: Tx, view: BillingView, rest: list[Lacking]) -> list[Lacking]:
    """Leave out what was billed too much and given away since: nothing is left to take back."""
    left = {row.key for row in store.list_creditable(tx, [view.customer_id]) if row.remaining > 0}
    return [one for one in rest if one.minor > 0 or one.charge.key in left]


def _worth_asking(  # noqa: PLR0917 - all of one customer
    tx: Tx,
    view: BillingView,
    prices: owing.Prices,
    sums: tuple[Mapping[ChargeKey, Charge], Mapping[ChargeKey, Billed]],
    rest: list[Lacking],
    closed: datetime,
) -> list[Lacking]:
    """Leave out what waits for the next invoice because too little would be asked for it."""
    customer_id = view.customer_id
    last = store.list_last_boundaries(tx, [customer_id]).get(customer_id)
    drafts, _ = rules.settle(view, prices, *sums, last_boundary=last, closed=closed)
    made = charging.charged(tx, [view], drafts, prices, day=closed.date(), keyring=None)
    asked = {line.key for draft in made.drafts for line in draft.lines}
    if made.problems:  # no tax can be told here, so it is judged without
        minor = sum(one.minor for one in rest if not one.is_closed)
        total = Money(minor, rest[0].charge.amount.currency)
        asked = set() if is_small(total, prices.minimums) else {one.charge.key for one in rest}
    elif customer_id not in made.waiting:
        return rest
    return [one for one in rest if one.is_closed or one.minor < 0 or one.charge.key in asked]


def _unposted(tx: Tx, customer_ids: Sequence[UUID]) -> list[Difference]:
    """Return documents whose lines, taxes, discounts and transfers differ."""
    revenue = store.list_revenue(tx, customer_ids)
    reversed_ = store.list_reversed(tx, customer_ids)
    of_invoices, of_notes = taxes.of_customers(tx, customer_ids)
    by_invoice, by_note = taxes.by_document(of_invoices), taxes.by_document(of_notes)
    invoices = ledger.posted(tx, customer_ids, kind=Kind.INVOICE)
    notes = ledger.posted(tx, customer_ids, kind=Kind.CREDIT_NOTE)
    found = auditing.unposted("invoice", revenue, by_invoice, invoices)
    found += auditing.unposted("credit note", reversed_, by_note, notes, sign=-1)
    found += auditing.mistaxed(revenue, by_invoice)
    currencies = {row.source_id: row.currency for row in revenue}
    found += stating.misstated(tx, of_invoices, currencies)
    if of_notes:
        found += auditing.miscredited(taxes.credited(tx, customer_ids), currencies)
    lines = store.list_discounts(tx, customer_ids)
    taken = {(invoice_id, line): minor for invoice_id, line, minor, _ in lines}
    back = {(invoice_id, line): minor for invoice_id, line, _, minor in lines if minor}
    found += auditing.undrawn(taken, discounts.drawn_by_line(tx, customer_ids))
    returned = discounts.returned_by_line(tx, customer_ids)
    return found + auditing.undrawn(back, returned, what="corrected discount")
