"""`convergio preview`: what the next run would bill a customer, or what a change would."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from convergio.billing import explaining
from convergio.cli import console
from convergio.cli.opening import done
from convergio.customers import actions as customers
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Subscription, When
from convergio.wiring import App


class Do(StrEnum):
    """What can be looked at before it is done, beside another plan or number of seats."""

    CANCEL = "cancel"
    CANCEL_NOW = "cancel-now"
    PAUSE = "pause"
    RESUME = "resume"
    REACTIVATE = "reactivate"
    DROP_CHANGE = "drop-change"


EXAMPLE: Final = "convergio preview acme --plan team --seats 5"

app = console.command_app("Show what would be billed, without billing it.", EXAMPLE)

Preview = Annotated[
    bool, typer.Option("--preview", help="Show what it would bill now and next; keep nothing.")
]


@app.command()
def command(
    customer: Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer.")],
    *,
    at: Annotated[str | None, typer.Option(help="RFC 3339; default the next boundary.")] = None,
    plan: Annotated[str | None, typer.Option(help="As if this plan were taken now.")] = None,
    seats: Annotated[int | None, typer.Option(min=1, help="As if there were so many.")] = None,
    when: Annotated[When | None, typer.Option(help="When the change would happen.")] = None,
    do: Annotated[Do | None, typer.Option(help="As if this were done now.")] = None,
    credit: Annotated[bool, typer.Option(help="With --do cancel-now: give back the rest.")] = False,
    as_json: console.Json = False,
) -> None:
    """Run the billing of one customer through the real code and undo it.

    With --do: what that would bill at once, and at the boundary that follows.
    """
    asked = {"--plan": plan, "--seats": seats}
    _check(do, asked | {"--at": at, "--when": when}, is_change=any(asked.values()), credit=credit)
    if do is not None:
        _do(customer, do, credit=credit, as_json=as_json)
        return
    moment = None if at is None else parse_instant(at, field="--at")
    found = done(
        lambda product, tx: explaining.preview(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            now=product.clock.now(),
            at=moment,
            wish=explaining.Wish(plan, seats, when) if any(asked.values()) else None,
            can_pay=payments.payable,
            keyring=product.keyring,
        )
    )
    value = explaining.preview_value(found)
    console.emit(value, as_json=as_json, text=_text(value))


def _check(do: Do | None, others: Mapping[str, object], *, is_change: bool, credit: bool) -> None:
    """Refuse an option that would be ignored. Raises: Invalid."""
    if do is not None:
        for name, value in others.items():
            if value is not None:
                detail = f"it does not go with --do {do}; leave it out"
                raise Invalid(detail, code="not_with_do", field=name)
    elif others["--when"] is not None and not is_change:
        detail = "it says when a change happens; add --plan or --seats, or leave it out"
        raise Invalid(detail, code="missing", field="--when")
    if credit and do != Do.CANCEL_NOW:
        raise Invalid("write it with --do cancel-now", code="credit_without_end", field="--credit")


def _do(customer: str, do: Do, *, credit: bool, as_json: bool) -> None:
    """Do it, bill it, undo it, and show both steps."""

    def work(product: App, tx: Tx) -> Subscription:
        customer_id, now = customers.find(tx, customer).customer_id, product.clock.now()
        return _act(do, customer_id, credit=credit, now=now)(tx)

    look(customer, work, as_json=as_json)


def look(customer: str, work: Callable[[App, Tx], object], *, as_json: bool) -> None:
    """Do what a command does to a customer's subscription, bill it, undo it, and show it."""

    def looked(product: App, tx: Tx) -> explaining.Consequence:
        customer_id, now = customers.find(tx, customer).customer_id, product.clock.now()
        still = replace(product, clock=VirtualClock(now))  # both look at one instant
        return explaining.consequence(
            tx,
            customer_id=customer_id,
            act=explaining.of_live(customer_id, lambda tx: work(still, tx)),
            now=now,
            can_pay=payments.payable,
            keyring=product.keyring,
        )

    value = explaining.consequence_value(done(looked))
    text = _text(value["now"])
    if value["next"] is not None:
        text += f"\nthen {_text(value['next'])}"
    console.emit(value, as_json=as_json, text=text)


def _act(do: Do, customer_id: UUID, *, credit: bool, now: datetime) -> Callable[[Tx], Subscription]:
    """Return what a word does: the function that its own command calls."""
    plain = {
        Do.PAUSE: changes.pause,
        Do.RESUME: changes.resume,
        Do.REACTIVATE: changes.reactivate,
        Do.DROP_CHANGE: changes.drop_change,
    }
    if do in plain:
        return partial(plain[do], customer_id=customer_id, now=now, can_pay=payments.payable)
    return partial(
        subscriptions.cancel,
        customer_id=customer_id,
        at_period_end=do == Do.CANCEL,
        credit=credit,
        now=now,
        can_pay=payments.payable,
    )


def tax_words(tax: dict[str, Any]) -> str:
    """Return the tax of a group of lines as a person reads it."""
    inside = "within the prices" if tax["inclusive"] else f"on {tax['net']}"
    return f"tax {tax['rate']}% {inside}" if tax["treatment"] == "standard" else tax["reason"] or ""


def _text(value: dict[str, Any]) -> str:
    """Return a preview as a person reads it."""
    rows = [f"at {value['at']}"]
    for invoice in value["invoices"]:
        rows.append(f"invoice of {invoice['boundary']}: {invoice['total']} {invoice['currency']}")
        rows += [f"  {line['amount']:>12}  {line['description']}" for line in invoice["lines"]]
        if Decimal(invoice["discount"]):
            rows.append(f"  {'-' + invoice['discount']:>12}  discount")
        rows += [f"  {one['tax']:>12}  {tax_words(one)}" for one in invoice["taxes"]]
        rows.append(f"  {invoice['to_pay']:>12}  to pay")
    for note in value["credit_notes"]:
        rows.append(f"credit note: {note['total']} {note['currency']}, {note['reason']}")
    rows += [f"problem: {one['reason']}" for one in value["problems"]]
    return "\n".join(rows if len(rows) > 1 else [*rows, "nothing would be billed"])
