"""`convergio subscription`: show a subscription and change it: plan, seats, pause, end."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from convergio.catalog.model import Price
from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.cli.preview import Preview, look
from convergio.customers import actions as customers
from convergio.infra import strict_yaml
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.text import check_text
from convergio.payments import actions as payments
from convergio.subscriptions import actions, adding, changes, negotiating
from convergio.subscriptions.model import Status, Subscription, When
from convergio.wiring import App

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


@app.command("list", epilog="Example: convergio subscription list --plan pro --status past_due")
def list_(
    *,
    customer: Annotated[
        str | None, typer.Option(metavar="KEY|ID", help="Only this customer's.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Only on this plan.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    after: Annotated[
        str | None, typer.Option(metavar="cus_.../sub_...", help="`next` of the page before.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Subscriptions a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List subscriptions in the order of customer and time, a page at a time."""
    with opened() as product, product.database.transaction() as tx:
        found = actions.page(
            tx,
            after=_place(after),
            limit=limit,
            customer_id=None if customer is None else customers.find(tx, customer).customer_id,
            plan_key=None if plan is None else check_text(plan, field="--plan"),
            status=status,
        )
        shown = [_shown(tx, one) for one in found]
    last = found[-1] if len(found) == limit else None
    following = (
        None
        if last is None
        else f"{typeid('cus', last.customer_id)}/{typeid('sub', last.subscription_id)}"
    )
    text = "\n".join(map(_text, shown)) or "none"
    console.emit({"subscriptions": shown, "next": following}, as_json=as_json, text=text)
    if following is not None and not as_json:
        console.say(f"there may be more: add --after {following}")


@app.command(epilog=f"Example: {EXAMPLE}")
def change(
    customer: Customer,
    *,
    plan: Annotated[str | None, typer.Option(help="The plan to go to.")] = None,
    seats: Annotated[int | None, typer.Option(min=1, help="How many seats.")] = None,
    when: Annotated[
        When | None, typer.Option(help="Default: what costs more now, what costs less later.")
    ] = None,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """Go to another plan or number of seats."""

    def work(product: App, tx: Tx) -> Subscription:
        return changes.change(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            plan_key=plan,
            seats=seats,
            when=when,
            now=product.clock.now(),
            can_pay=payments.payable,
        )

    _carry_out(customer, work, preview=preview, as_json=as_json)


@app.command("drop-change")
def drop_change(
    customer: Customer, *, preview: Preview = False, as_json: console.Json = False
) -> None:
    """Take back a change that waits for the end of the period."""
    _do(changes.drop_change, customer, preview=preview, as_json=as_json)


@app.command()
def pause(customer: Customer, *, preview: Preview = False, as_json: console.Json = False) -> None:
    """Stop a subscription now; the unused part of its fees is credited."""
    _do(changes.pause, customer, preview=preview, as_json=as_json)


@app.command()
def resume(customer: Customer, *, preview: Preview = False, as_json: console.Json = False) -> None:
    """Go on with a paused subscription; the rest of the period is charged."""
    _do(changes.resume, customer, preview=preview, as_json=as_json)


@app.command()
def reactivate(
    customer: Customer, *, preview: Preview = False, as_json: console.Json = False
) -> None:
    """Take back an end that is still to come."""
    _do(changes.reactivate, customer, preview=preview, as_json=as_json)


@app.command()
def cancel(
    customer: Customer,
    *,
    now: Annotated[bool, typer.Option(help="At once, not when what is paid for ends.")] = False,
    credit: Annotated[bool, typer.Option(help="With --now: give back the unused part.")] = False,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """End a subscription."""

    def work(product: App, tx: Tx) -> Subscription:
        return actions.cancel(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            at_period_end=not now,
            credit=credit,
            now=product.clock.now(),
            can_pay=payments.payable,
        )

    _carry_out(customer, work, preview=preview, as_json=as_json)


@app.command("add-on", epilog="Example: convergio subscription add-on acme support --quantity 2")
def add_on(
    customer: Customer,
    key: Annotated[str, typer.Argument(help="Key of the add-on.")],
    *,
    quantity: Annotated[int, typer.Option(min=0, help="How many; 0 takes it away.")] = 1,
    when: Annotated[When, typer.Option(help="When it is taken away.")] = When.NOW,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """Take an add-on beside the plan; taken away now, what is left of it is credited."""

    def work(product: App, tx: Tx) -> dict[str, Any]:
        live = adding.set_add_on(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            key=key,
            quantity=quantity,
            when=when,
            now=product.clock.now(),
            can_pay=payments.payable,
        )
        return _shown(tx, live) | {"add_ons": adding.add_ons(tx, live)}

    if preview:
        look(customer, work, as_json=as_json)
        return
    shown = done(work)
    text = ", ".join(f"{number} x {name}" for name, number in shown["add_ons"].items())
    console.emit(shown, as_json=as_json, text=f"{customer}  {text or 'no add-ons'}")


@app.command(epilog="Example: convergio subscription charge acme 250.00 --for 'Onboarding'")
def charge(
    customer: Customer,
    amount: Annotated[str, typer.Argument(help="In major units, such as 250.00.")],
    *,
    reason: Annotated[str, typer.Option("--for", help="What the invoice calls it.")],
    now: Annotated[bool, typer.Option("--now", help="On an invoice of its own.")] = False,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """Ask for an amount once: on the next invoice, or on one of its own now."""

    def work(product: App, tx: Tx) -> tuple[Money, datetime]:
        who = customers.find(tx, customer)
        money = Money.parse(amount, who.currency)
        _, at = adding.charge_once(
            tx,
            customer_id=who.customer_id,
            description=reason,
            amount=money,
            when=When.NOW if now else When.PERIOD_END,
            now=product.clock.now(),
            can_pay=payments.payable,
        )
        return money, at

    if preview:
        look(customer, work, as_json=as_json)
        return
    money, at = done(work)
    value = {"customer": customer, "amount": money.text(), "currency": money.currency}
    value["due_at"] = instant_text(at)
    text = f"{customer}  {money.text()} {money.currency} for {reason}, on {instant_text(at)}"
    console.emit(value, as_json=as_json, text=text)


@app.command(epilog="Example: convergio subscription agree acme agreement.yaml")
def agree(
    customer: Customer,
    file: Annotated[
        Path, typer.Argument(metavar="FILE|-", help="YAML: steps, each with prices and an instant.")
    ],
    *,
    preview: Preview = False,
    as_json: console.Json = False,
) -> None:
    """Agree on prices with one customer, from now on or in steps; see docs/howto/agreements.md."""
    wanted = _agreement(file)

    def work(product: App, tx: Tx) -> Sequence[Price]:
        return negotiating.agree(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            steps_=negotiating.steps_of(wanted),
            now=product.clock.now(),
            can_pay=payments.payable,
        )

    if preview:
        look(customer, work, as_json=as_json)
        return
    made = done(work)
    value = {"customer": customer, "prices": [price.key for price in made]}
    console.emit(value, as_json=as_json, text=f"{customer}  {len(made)} prices agreed")


def _place(after: str | None) -> tuple[UUID, UUID]:
    """Return behind which subscription a page begins. Raises: Invalid."""
    if after is None:
        return UUID(int=0), UUID(int=0)
    customer, _, subscription = after.partition("/")
    return parse_typeid("cus", customer), parse_typeid("sub", subscription)


def _agreement(file: Path) -> negotiating.AgreementFile:
    plain = strict_yaml.read(console.read(file))
    return strict_yaml.typed(plain, negotiating.AgreementFile, mends=negotiating.MENDS)


def _do(verb: Callable[..., Subscription], customer: str, *, preview: bool, as_json: bool) -> None:
    def work(product: App, tx: Tx) -> Subscription:
        customer_id = customers.find(tx, customer).customer_id
        return verb(tx, customer_id=customer_id, now=product.clock.now(), can_pay=payments.payable)

    _carry_out(customer, work, preview=preview, as_json=as_json)


def _carry_out(
    customer: str, work: Callable[[App, Tx], Subscription], *, preview: bool, as_json: bool
) -> None:
    """Do it and say how the subscription then stands; or look at what it would bill."""
    if preview:
        look(customer, work, as_json=as_json)
        return
    shown = done(lambda product, tx: _shown(tx, work(product, tx)))
    _say(shown, as_json=as_json)


def _say(shown: dict[str, Any], *, as_json: bool) -> None:
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
