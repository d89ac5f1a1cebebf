"""Owed - billed for a page of customers: read in bulk, decide without the database.

The run, the preview and every dry run come through here, so they cannot disagree.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from convergio.billing import charging, owing, rules, store
from convergio.billing.model import CreditDraft, Draft, Problem
from convergio.billing.reporting import LINES_A_DAY_MAX
from convergio.catalog import actions as catalog
from convergio.catalog.model import Meter
from convergio.crypto.actions import Keyring
from convergio.infra.db import Tx
from convergio.kernel.periods import Period, day_in
from convergio.metering import actions as metering
from convergio.metering import slicing
from convergio.metering.model import Slice
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
    time_zone: str = "UTC",
    keyring: Keyring | None = None,
    lines_max: int = LINES_A_DAY_MAX,
    issued_on: date | None = None,
) -> Settled:
    """Return what owed - billed comes to, in the order of the customers, discounts and tax in it.

    Locks: the invoices that something is taken back from. `day` is when it would be issued, and
    `issued_on` the date that the documents will bear where that is a later one (RULES 4). The
    keyring opens the regions of customers whose tax depends on theirs. Who would get more than
    `lines_max` amended lines a subscription and day is a problem.
    """
    usage, drawn = usage_of(tx, views, prices, closed=closed)
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
            drawn=drawn,
        )
        drafts += some
        problems += wrong
    amended = sorted({one.customer_id for one in drafts if not rules.is_fresh(one)})
    if amended:
        counts = store.count_lines_since(tx, amended, since=day - _DAY)
        going_round = rules.too_many(drafts, counts, lines_max=lines_max)
        out = {one.customer_id for one in going_round}
        drafts = [one for one in drafts if one.customer_id not in out]
        problems += going_round
    found = charging.charged(
        tx, views, drafts, prices, day=issued_on or day_in(day, time_zone), keyring=keyring
    )
    return Settled(found.drafts, found.notes, problems + found.problems, waiting | found.waiting)


def usage_of(
    tx: Tx, views: Sequence[BillingView], prices: owing.Prices, *, closed: datetime
) -> tuple[owing.Usage, owing.Usage]:
    """Read the prices that these customers pin, and the usage that they are asked for.

    And what of it was drawn from prepaid credit, where there is any.
    """
    prices.add(catalog.prices(tx, prices.missing(views)))
    sold = prices.catalog
    if sold is None or sold.version != catalog.version(tx):
        sold = catalog.current(tx)
    prices.turn_page(sold)
    requests = [one for v in views for one in owing.usage_requests(v, prices, closed=closed)]
    return used(tx, requests, sold.meters)


def used(
    tx: Tx, requests: Iterable[owing.UsageRequest], meters: Mapping[str, Meter]
) -> tuple[owing.Usage, owing.Usage]:
    """Return what was used, and what of it was drawn from prepaid credit."""
    plain: list[tuple[UUID, str, Period]] = []
    parts: list[tuple[UUID, Slice, Period]] = []
    for who, of, at in requests:
        if isinstance(of, Slice):
            parts.append((who, of, at))
        else:
            plain.append((who, of, at))
    usage = metering.usage_in(tx, plain, meters)
    if parts:
        usage |= slicing.sliced_in(tx, parts, meters)
        plain += [(who, of.meter_key, at) for who, of, at in parts]
    return usage, metering.drawn_in(tx, plain)


def creditable_ids(notes: Sequence[CreditDraft]) -> tuple[list[UUID], list[UUID]]:
    """Return the customers and the invoices of credit notes, to lock them."""
    return sorted({n.customer_id for n in notes}), sorted({n.invoice_id for n in notes})
