"""Preview and explain: what would be billed, and why something was.

A preview is the run for one customer in a savepoint that is undone: the same functions, so it
cannot promise what the run does not do. An explanation leads from a line to its price version, the
steps of the arithmetic, the usage that was counted and the very events.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from convergio.billing import errors, owing, rules, settling, store
from convergio.billing.model import CreditDraft, Draft, Invoice, InvoiceLine, Kind, Line, Problem
from convergio.catalog import actions as catalog
from convergio.catalog.model import Price
from convergio.infra.db import Tx
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, instant_text
from convergio.kernel.quantity import quantity_text
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.metering.model import MeteredEvent
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import When


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
class Explanation:
    """Why a line says what it says. `events` is one page; usage lines alone have any."""

    line: InvoiceLine
    price: Price
    steps: Sequence[Mapping[str, Any]]
    period: Period
    meter_key: str | None
    events: tuple[MeteredEvent, ...]


def preview(
    tx: Tx,
    *,
    customer_id: UUID,
    now: datetime,
    at: datetime | None = None,
    wish: Wish | None = None,
    can_pay: subscriptions.CanPay | None = None,
) -> Preview:
    """Return what the run would bill a customer at an instant: by default the next boundary.

    With a wish, as if it were granted now; the default is then now. Nothing is kept. Locks: the
    customer's subscriptions, until it is undone. Raises: what the change would raise.
    """
    when = at
    drafts: list[Draft] = []
    notes: list[CreditDraft] = []
    problems: list[Problem] = []
    with suppress(_Undone), tx.savepoint():
        if wish is not None:
            changes.change(
                tx, customer_id=customer_id, plan_key=wish.plan_key, seats=wish.seats,
                when=wish.when, now=now,
            )  # fmt: skip
            when = when or now
        when = when or subscriptions.next_boundary(tx, customer_id, now=now) or now
        views = subscriptions.for_customers(
            tx, [customer_id], until=when, now=when, can_pay=can_pay
        )
        found = settling.settled(tx, views, owing.Prices(), closed=when, day=when)
        drafts, notes, problems = found.drafts, found.notes, found.problems
        raise _Undone
    balance = ledger.customer_credit(tx, [customer_id]).get(customer_id, 0)
    drawn = rules.drawn(drafts, {customer_id: balance})
    to_pay = tuple(
        Money(draft.total.minor - part, draft.total.currency)
        for draft, part in zip(drafts, drawn, strict=True)
    )
    return Preview(when or now, tuple(drafts), tuple(notes), tuple(problems), to_pay)


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
        )
    steps = line.detail.get("steps", ())
    return Explanation(line, price, steps, period, price.meter_key, tuple(events))


def preview_value(found: Preview) -> dict[str, Any]:
    """Return a preview as JSON takes it."""
    return {
        "at": instant_text(found.at),
        "invoices": [
            {
                "boundary": instant_text(draft.boundary_at),
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


def _line_value(line: Line) -> dict[str, Any]:
    return {
        "description": line.description,
        "reason": line.reason,
        "quantity": quantity_text(line.quantity),
        "amount": line.amount.text(),
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
        "quantity": quantity_text(line.quantity),
        "price": {
            "key": found.price.key,
            "version": found.price.version,
            "charge": msgspec.to_builtins(found.price.charge),
        },
        "steps": list(found.steps),
        "owed": line.detail.get("owed"),
        "billed_before": line.detail.get("billed"),
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
