"""`convergio subscription`: show a subscription and change it: plan, seats, pause, end."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.subscriptions import actions, changes
from convergio.subscriptions.model import Subscription, When

EXAMPLE: Final = "convergio subscription change acme --plan team --seats 5"

app = console.command_app("Show a customer's subscription and change it.", EXAMPLE)

Customer = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer's key or cus_... id")]


@app.command()
def show(customer: Customer, *, as_json: console.Json = False) -> None:
    """Show every subscription of a customer, the oldest first, and the change that waits."""
    with opened() as product, product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        every = actions.history(tx, customer_id)
        shown = [changes.value(one, changes.pending(tx, one)) for one in every]
    console.emit(
        {"subscriptions": shown}, as_json=as_json, text="\n".join(map(_text, shown)) or "none"
    )


@app.command(epilog=f"Example: {EXAMPLE}")
def change(
    customer: Customer,
    *,
    plan: Annotated[str | None, typer.Option(help="The plan to go to.")] = None,
    seats: Annotated[int | None, typer.Option(min=1, help="How many seats.")] = None,
    when: Annotated[
        When | None, typer.Option(help="Default: what costs more now, what costs less later.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Go to another plan or number of seats; see `convergio preview` for what it would bill."""
    with opened() as product, product.database.transaction() as tx:
        changed = changes.change(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            plan_key=plan,
            seats=seats,
            when=when,
            now=product.clock.now(),
        )
        shown = changes.value(changed, changes.pending(tx, changed))
    console.emit(shown, as_json=as_json, text=_text(shown))


@app.command("drop-change")
def drop_change(customer: Customer, *, as_json: console.Json = False) -> None:
    """Take back a change that waits for the end of the period."""
    _do(changes.drop_change, customer, as_json=as_json)


@app.command()
def pause(customer: Customer, *, as_json: console.Json = False) -> None:
    """Stop a subscription now; the unused part of its fees is credited."""
    _do(changes.pause, customer, as_json=as_json)


@app.command()
def resume(customer: Customer, *, as_json: console.Json = False) -> None:
    """Go on with a paused subscription; the rest of the period is charged."""
    _do(changes.resume, customer, as_json=as_json)


@app.command()
def reactivate(customer: Customer, *, as_json: console.Json = False) -> None:
    """Take back an end that is still to come."""
    _do(changes.reactivate, customer, as_json=as_json)


@app.command()
def cancel(
    customer: Customer,
    *,
    now: Annotated[bool, typer.Option(help="At once, not when what is paid for ends.")] = False,
    credit: Annotated[bool, typer.Option(help="With --now: give back the unused part.")] = False,
    as_json: console.Json = False,
) -> None:
    """End a subscription."""
    with opened() as product, product.database.transaction() as tx:
        ended = actions.cancel(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            at_period_end=not now,
            credit=credit,
            now=product.clock.now(),
        )
    shown = changes.value(ended)
    console.emit(shown, as_json=as_json, text=_text(shown))


def _do(verb: Callable[..., Subscription], customer: str, *, as_json: bool) -> None:
    with opened() as product, product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        done = verb(tx, customer_id=customer_id, now=product.clock.now())
        shown = _shown(tx, done)
    console.emit(shown, as_json=as_json, text=_text(shown))


def _shown(tx: Tx, one: Subscription) -> dict[str, Any]:
    return changes.value(one, changes.pending(tx, one))


def _text(shown: dict[str, Any]) -> str:
    """Return a subscription as one line for a person."""
    line = f"{shown['id']}  {shown['plan']}  {shown['status']}  since {shown['started_at']}"
    if shown["cancel_at"]:
        line += f"  ends {shown['cancel_at']}"
    waiting = shown["pending_change"]
    if waiting:
        line += f"  then {waiting['plan']}, {waiting['seats']} seats at {waiting['effective_at']}"
    return line
