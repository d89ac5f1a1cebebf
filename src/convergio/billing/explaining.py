"""Preview and explain: what would be billed, and why something was.

A preview is the run for one customer in a savepoint that is undone: the same functions, so it
cannot promise what the run does not do. An explanation leads from a line to its price version, the
steps of the arithmetic, the usage that was counted and the very events.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.billing import crediting, errors, owing, rules, settling, store
from convergio.billing.model import (
    CreditDraft,
    Draft,
    Invoice,
    InvoiceLine,
    Kind,
    Line,
    Problem,
    TaxRow,
)
from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.crypto.actions import Keyring
from convergio.discounts import actions as discounts
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import require
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, instant_text
from convergio.kernel.quantity import quantity_text
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.metering.model import MeteredEvent, slice_of
from convergio.rating.taxing import GroupKey
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Change, Subscription, When
from convergio.taxes import actions as taxes

PREVIEW_MAX: Final = timedelta(days=1_100)  # a daily fee brings as many invoices


class _Undone(Exception):
    """Leaves the savepoint of a preview."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A change to look at before it is made."""

    plan_key: str | None = None
    seats: int | None = None
    when: When | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run at `at` would issue; `to_pay` is each invoice less the credit balance."""

    at: datetime
    drafts: tuple[Draft, ...]
    notes: tuple[CreditDraft, ...]
    problems: tuple[Problem, ...]
    to_pay: tuple[Money, ...]


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a change of a subscription would bill: at once, and at the boundary that follows.

    `next` leaves out what `now` has; there is none where nothing follows.
    """

    subscription: dict[str, Any]
    now: Preview
    next: Preview | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a line says what it says. `events` is one page; usage lines alone have any.

    `draws` are what took something off it: a coupon's code, or None for promotional credit.
    `origin` is the line that it takes back from, by its invoice's number; `group` the tax of the
    lines of its invoice that are taxed alike.
    """

    line: InvoiceLine
    price: Price
    steps: Sequence[Mapping[str, Any]]
    period: Period
    meter_key: str | None
    events: tuple[MeteredEvent, ...]
    draws: tuple[tuple[str | None, int], ...] = ()
    origin: tuple[str, int] | None = None
    group: TaxRow | None = None


def preview(
    tx: Tx,
    *,
    customer_id: UUID,
    now: datetime,
    at: datetime | None = None,
    wish: Wish | None = None,
    can_pay: subscriptions.CanPay | None = None,
    keyring: Keyring | None = None,
) -> Preview:
    """Return what the run would bill a customer at an instant: by default the next boundary.

    With a wish, as if it were granted now; the default is then now. Nothing is kept. Locks: the
    customer's subscriptions, until it is undone. Raises: Invalid for an instant so far away that
    it would cost too much; what the change would raise.
    """
    if at is not None and at - now > PREVIEW_MAX:
        raise errors.too_far(PREVIEW_MAX.days)
    when = at
    found = settling.Settled([], [], [], set())
    with suppress(_Undone), tx.savepoint():
        if wish is not None:
            changes.change(
                tx, customer_id=customer_id, plan_key=wish.plan_key, seats=wish.seats,
                when=wish.when, now=now, can_pay=can_pay,
            )  # fmt: skip
            when = when or now
        when = when or subscriptions.next_boundary(tx, customer_id, now=now) or now
        found = _settled(tx, customer_id, when, can_pay, keyring)
        raise _Undone
    return _preview(tx, customer_id, when or now, found)


def drafts(
    tx: Tx,
    *,
    now: datetime,
    after: UUID | None = None,
    limit: int = 100,
    can_pay: subscriptions.CanPay | None = None,
    keyring: Keyring | None = None,
) -> tuple[list[Draft], UUID | None]:
    """Return what the next runs will finalise of boundaries that are reached, and the next page.

    A draft is not stored: it is what is owed less what is billed, so it changes with every event
    until the grace is over and a run makes it an invoice (docs/adr/0012). A page goes through
    `limit` customers. Locks: their subscriptions, until it is undone.
    """
    customer_ids = subscriptions.customers_after(tx, after=after, limit=limit)
    found = settling.Settled([], [], [], set())
    with suppress(_Undone), tx.savepoint():
        views = subscriptions.for_customers(tx, customer_ids, until=now, now=now, can_pay=can_pay)
        found = settling.settled(tx, views, owing.Prices(), closed=now, day=now, keyring=keyring)
        raise _Undone
    return found.drafts, customer_ids[-1] if len(customer_ids) == limit else None


def draft_value(draft: Draft) -> dict[str, Any]:
    """Return a draft as JSON takes it."""
    return {
        "customer": typeid("cus", draft.customer_id),
        "status": "draft",
        "boundary": instant_text(draft.boundary_at),
        **_sums(draft),
        "total": draft.total.text(),
        "currency": draft.total.currency,
        "lines": [_line_value(line) for line in draft.lines],
    }


def consequence(
    tx: Tx,
    *,
    customer_id: UUID,
    act: Callable[[Tx], Subscription],
    now: datetime,
    can_pay: subscriptions.CanPay | None = None,
    keyring: Keyring | None = None,
) -> Consequence:
    """Do a change of a subscription, return what it would bill, and undo it.

    Locks: what the change locks, until it is undone. Raises: what the change would raise.
    """
    after: Subscription | None = None
    waiting: Change | None = None
    boundary: datetime | None = None
    at_once = later = settling.Settled([], [], [], set())
    with suppress(_Undone), tx.savepoint():
        after = act(tx)
        waiting = changes.pending(tx, after)
        at_once = _settled(tx, customer_id, now, can_pay, keyring)
        boundary = subscriptions.next_boundary(tx, customer_id, now=now)
        if boundary is not None:
            later = _settled(tx, customer_id, boundary, can_pay, keyring)
        raise _Undone
    require(after is not None, "a change that raised nothing returns its subscription")
    following = None
    if boundary is not None:
        following = _beyond(_preview(tx, customer_id, boundary, later), at_once, now=now)
    return Consequence(
        changes.value(after, waiting) if after is not None else {},
        _preview(tx, customer_id, now, at_once),
        following,
    )


def _beyond(whole: Preview, at_once: settling.Settled, *, now: datetime) -> Preview:
    """Return what a preview adds to what is billed at once; that draws from the balance first."""
    rest = [
        (draft, to_pay)
        for draft, to_pay in zip(whole.drafts, whole.to_pay, strict=True)
        if draft.boundary_at > now
    ]
    return replace(
        whole,
        drafts=tuple(draft for draft, _ in rest),
        to_pay=tuple(to_pay for _, to_pay in rest),
        notes=tuple(note for note in whole.notes if note not in at_once.notes),
    )


def of_live(customer_id: UUID, act: Callable[[Tx], object]) -> Callable[[Tx], Subscription]:
    """Return a change, whatever it tells of, as one that returns the subscription after it."""

    def work(tx: Tx) -> Subscription:
        found = act(tx)
        return found if isinstance(found, Subscription) else subscriptions.live(tx, customer_id)

    return work


def consequence_value(found: Consequence) -> dict[str, Any]:
    """Return what a change would do as JSON takes it."""
    return {
        "subscription": found.subscription,
        "now": preview_value(found.now),
        "next": None if found.next is None else preview_value(found.next),
    }


def _settled(
    tx: Tx,
    customer_id: UUID,
    at: datetime,
    can_pay: subscriptions.CanPay | None,
    keyring: Keyring | None,
) -> settling.Settled:
    """Return what a run at an instant would issue to one customer; the caller undoes it."""
    views = subscriptions.for_customers(tx, [customer_id], until=at, now=at, can_pay=can_pay)
    return settling.settled(tx, views, owing.Prices(), closed=at, day=at, keyring=keyring)


def _preview(tx: Tx, customer_id: UUID, at: datetime, found: settling.Settled) -> Preview:
    balance = ledger.customer_credit(tx, [customer_id]).get(customer_id, 0)
    balance += _left_over(tx, customer_id, found.notes)
    drawn = rules.drawn(found.drafts, {customer_id: balance})
    to_pay = tuple(
        Money(draft.total.minor - part, draft.total.currency)
        for draft, part in zip(found.drafts, drawn, strict=True)
    )
    return Preview(at, tuple(found.drafts), tuple(found.notes), tuple(found.problems), to_pay)


def _left_over(tx: Tx, customer_id: UUID, notes: Sequence[CreditDraft]) -> int:
    """Return what credit notes leave to the balance; they come before the invoices of a run."""
    invoices: dict[UUID, Invoice] = {}
    left = 0
    for note in notes:
        before = invoices.get(note.invoice_id)
        before = before or store.find_invoice(tx, customer_id, note.invoice_id)
        if before is None:
            raise errors.unknown_invoice()
        invoices[note.invoice_id], applied = crediting.apply(before, note.total)
        left += note.total.minor - applied.minor
    return left


def explain(
    tx: Tx,
    invoice: Invoice,
    line_number: int,
    *,
    after: UUID | None = None,
    limit: int = 100,
) -> Explanation:
    """Return why a line says what it says, with a page of its events. Raises: NotFound."""
    lines = store.list_lines(tx, invoice.customer_id, invoice.invoice_id)
    line = next((one for one in lines if one.line_number == line_number), None)
    if line is None:
        raise errors.unknown_line(invoice.number_text)
    price = catalog.prices(tx, [line.price_id])[line.price_id]
    start = line.period_start
    if line.kind == Kind.USAGE:
        item = subscriptions.find_item(tx, invoice.customer_id, line.item_id)
        start = max(start, item.active_from) if item is not None else start
    period = Period(start, max(start, line.period_end))
    events: list[MeteredEvent] = []
    if price.meter_key is not None:
        events = metering.events_in(
            tx,
            customer_id=invoice.customer_id,
            meter_key=price.meter_key,
            period=period,
            after=after,
            limit=limit,
            part=None
            if price.by is None
            else slice_of(price.meter_key, price.by, price.charges, line.dimensions),
        )
    steps = line.detail.get("steps", ())
    drawn = discounts.draws(tx, invoice.customer_id, invoice.invoice_id) if line.discount else []
    draws = tuple((code, minor) for number, code, minor in drawn if number == line_number)
    origin = None
    if line.origin_invoice_id is not None and line.origin_line is not None:
        source = store.find_invoice(tx, invoice.customer_id, line.origin_invoice_id)
        origin = None if source is None else (source.number_text, line.origin_line)
    key = GroupKey(line.tax_category, line.tax_rate, line.tax_treatment, line.tax_inclusive)
    rows = taxes.of_invoice(tx, invoice.customer_id, invoice.invoice_id)
    group = next((row for row in rows if row.key == key), None)
    return Explanation(
        line, price, steps, period, price.meter_key, tuple(events), draws, origin, group
    )


def preview_value(found: Preview) -> dict[str, Any]:
    """Return a preview as JSON takes it."""
    return {
        "at": instant_text(found.at),
        "invoices": [
            {
                "boundary": instant_text(draft.boundary_at),
                **_sums(draft),
                "total": draft.total.text(),
                "to_pay": to_pay.text(),
                "currency": draft.total.currency,
                "lines": [_line_value(line) for line in draft.lines],
            }
            for draft, to_pay in zip(found.drafts, found.to_pay, strict=True)
        ],
        "credit_notes": [
            {
                "reason": note.reason,
                **_sums(note),
                "total": note.total.text(),
                "currency": note.total.currency,
                "lines": [
                    {"description": line.description, "amount": line.amount.text()}
                    for line in note.lines
                ],
            }
            for note in found.notes
        ],
        "problems": [{"code": one.code, "reason": one.reason} for one in found.problems],
    }


def _sums(draft: Draft | CreditDraft) -> dict[str, Any]:
    """Return what a document says between its lines and its total."""
    currency = draft.total.currency
    subtotal, discount, tax = (Money(minor, currency).text() for minor in draft.sums)
    taxes = [tax_value(row, currency) for row in draft.taxes]
    return {"subtotal": subtotal, "discount": discount, "tax": tax, "taxes": taxes}


def tax_value(row: TaxRow, currency: str) -> dict[str, Any]:
    """Return the tax of a group of lines as JSON takes it."""
    return {
        "category": row.category,
        "rate": quantity_text(row.rate),
        "treatment": row.treatment.value,
        "net": Money(row.net, currency).text(),
        "tax": Money(row.tax, currency).text(),
        "reason": row.reason,
        "inclusive": row.inclusive,
    }


def _line_value(line: Line) -> dict[str, Any]:
    return {
        "description": line.description,
        "reason": line.reason,
        "quantity": quantity_text(line.quantity),
        "amount": line.amount.text(),
        "discount": Money(line.bearing.discount, line.amount.currency).text(),
        "tax_rate": quantity_text(line.bearing.rate),
        "tax_treatment": line.bearing.treatment.value,
        "period_start": instant_text(line.key.period_start),
        "period_end": instant_text(line.period_end),
    }


def explanation_value(invoice: Invoice, found: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON takes it; `next` is the key to go on from, if any."""
    line = found.line
    return {
        "invoice": invoice.number_text,
        "line": line.line_number,
        "description": line.description,
        "reason": line.reason,
        "amount": Money(line.amount, line.currency).text(),
        "currency": line.currency,
        "discount": Money(line.discount, line.currency).text(),
        "discounts": [
            {"coupon": code, "amount": Money(minor, line.currency).text()}
            for code, minor in found.draws
        ],
        "net": Money(line.net, line.currency).text(),
        "tax": {
            "category": line.tax_category,
            "rate": quantity_text(line.tax_rate),
            "treatment": line.tax_treatment,
            "inclusive": line.tax_inclusive,
            "group": None if found.group is None else tax_value(found.group, line.currency),
        },
        "quantity": quantity_text(line.quantity),
        "price": {
            "key": found.price.key,
            "version": found.price.version,
            "by": found.price.by,
            "value": line.dimensions or None,
            "charge": msgspec.to_builtins(
                found.price.charges.get(line.dimensions, found.price.charge)
            ),
        },
        "steps": list(found.steps),
        "owed": line.detail.get("owed"),
        "billed_before": line.detail.get("billed"),
        "takes_back": None
        if found.origin is None
        else {"invoice": found.origin[0], "line": found.origin[1]},
        "period": {
            "start": instant_text(found.period.start),
            "end": instant_text(found.period.end),
        },
        "meter": found.meter_key,
        "events": [
            {
                "source": event.source,
                "id": event.event_id,
                "time": instant_text(event.occurred_at),
                "quantity": quantity_text(event.quantity),
            }
            for event in found.events
        ],
        "next": str(found.events[-1].event_key) if found.events else None,
    }
