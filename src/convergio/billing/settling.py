"""Owed - billed for a page of customers: read in bulk, decide without the database.

The run, the preview and every dry run come through here, so they cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from convergio.billing import crediting, owing, rules, store
from convergio.billing.model import CreditDraft, Draft, Problem
from convergio.catalog import actions as catalog
from convergio.infra.db import Tx
from convergio.metering import actions as metering
from convergio.subscriptions.model import BillingView

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Settled:
    """What brings a page of customers to what they owe, and who is left out and why.

    `waiting`: customers of whom a difference waits for a later boundary.
    """

    drafts: list[Draft]
    notes: list[CreditDraft]
    problems: list[Problem]
    waiting: set[UUID]


def settled(
    tx: Tx,
    views: Sequence[BillingView],
    prices: owing.Prices,
    *,
    closed: datetime,
    day: datetime,
) -> Settled:
    """Return what owed - billed comes to, in the order of the customers.

    Locks: the invoices that something is taken back from. `day` is when it would be issued.
    """
    usage = usage_of(tx, views, prices, closed=closed)
    customer_ids = [view.customer_id for view in views]
    floors = {key: floor for view in views for key, floor in view.floors.items()}
    billed = store.sum_billed(tx, customer_ids, floors=floors)
    waiting: set[UUID] = set()
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
            waiting=waiting,
        )
        drafts += some
        problems += wrong
    drafts, notes = _attributed(tx, drafts)
    amended = sorted(
        {d.customer_id for d in drafts if not rules.is_fresh(d)} | {n.customer_id for n in notes}
    )
    if amended:
        counts = store.count_lines_since(tx, amended, since=day - _DAY)
        problems += rules.too_many(drafts, counts)
        out = {one.customer_id for one in problems}
        drafts = [one for one in drafts if one.customer_id not in out]
        notes = [one for one in notes if one.customer_id not in out]
    return Settled(drafts, notes, problems, waiting)


def usage_of(
    tx: Tx, views: Sequence[BillingView], prices: owing.Prices, *, closed: datetime
) -> owing.Usage:
    """Read the prices that these customers pin and the usage that they are asked for."""
    prices.add(catalog.prices(tx, prices.missing(views)))
    meters = catalog.current(tx).meters.values()
    prices.unsummed = frozenset(m.key for m in meters if m.aggregation not in {"sum", "count"})
    requests = [one for v in views for one in owing.usage_requests(v, prices, closed=closed)]
    return metering.usage_in(tx, requests)


def _attributed(tx: Tx, drafts: Sequence[Draft]) -> tuple[list[Draft], list[CreditDraft]]:
    """Let every line below zero name what it takes from, or move to a credit note."""
    taking = sorted({d.customer_id for d in drafts if any(x.amount.minor < 0 for x in d.lines)})
    if not taking:
        return list(drafts), []
    rows = store.list_creditable(tx, taking)
    left = crediting.Left(rows)
    kept: list[Draft] = []
    notes: list[CreditDraft] = []
    for draft in drafts:
        invoice, some = crediting.attributed(draft, left)
        if invoice is not None:
            kept.append(invoice)
        notes += some
    return kept, notes


def creditable_ids(notes: Sequence[CreditDraft]) -> tuple[list[UUID], list[UUID]]:
    """Return the customers and the invoices of credit notes, to lock them."""
    return sorted({n.customer_id for n in notes}), sorted({n.invoice_id for n in notes})
