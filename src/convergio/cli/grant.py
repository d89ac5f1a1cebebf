"""`convergio grant`: prepaid credit, in units of a meter or in money."""

from typing import Annotated

import typer

from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.discounts import actions as discounts
from convergio.entitlements import grants
from convergio.entitlements.describing import grant_value
from convergio.entitlements.model import Category, CreditGrant, GrantState, GrantTerms
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid
from convergio.kernel.periods import parse_instant
from convergio.kernel.quantity import parse_quantity
from convergio.wiring import App

PAGE_SIZE = 100
app = console.command_app(
    "Grant prepaid credit, list what is left of it, and void the rest.",
    "convergio grant add acme pack-7 --meter questions --quantity 1000 --category purchased",
)
Key = Annotated[str, typer.Argument(help="The customer's key.")]


@app.command(
    epilog="Example: convergio grant add acme pack-7 --meter questions --quantity 1000 "
    "--category purchased --expires 2027-01-01T00:00:00Z"
)
def add(
    customer: Key,
    key: Annotated[str, typer.Argument(help="Your own name of it; once a customer.")],
    *,
    category: Annotated[Category, typer.Option(help="Given away, or sold.")],
    meter: Annotated[str | None, typer.Option(help="Units of this meter.")] = None,
    quantity: Annotated[str | None, typer.Option(help="So many units.")] = None,
    amount: Annotated[str | None, typer.Option(help="Or money, such as 25.00.")] = None,
    priority: Annotated[int, typer.Option(help="The lower is drawn first.")] = 100,
    starts: Annotated[str | None, typer.Option(help="From when on; now.")] = None,
    expires: Annotated[str | None, typer.Option(help="Until when; for ever.")] = None,
    note: Annotated[str, typer.Option(help="For your own people.")] = "",
    as_json: console.Json = False,
) -> None:
    """Grant credit; the same key with the same terms is the same grant."""
    terms = GrantTerms(
        key=key,
        category=category,
        meter_key=meter,
        quantity=None if quantity is None else parse_quantity(quantity),
        amount=amount,
        priority=priority,
        starts_at=None if starts is None else parse_instant(starts, field="starts"),
        expires_at=None if expires is None else parse_instant(expires, field="expires"),
        note=note,
    )

    def work(product: App, tx: Tx) -> GrantState:
        return _state(product, tx, grants.create(tx, customer, terms, now=product.clock.now()))

    _show(done(work), as_json=as_json)


@app.command("list", epilog="Example: convergio grant list acme --json")
def list_grants(customer: Key, *, as_json: console.Json = False) -> None:
    """List a customer's grants in the order of their creation, and what is left of each."""
    found: list[GrantState] = []
    with opened() as product, product.database.snapshot() as tx:
        who = customers.find(tx, customer).customer_id
        drawn = discounts.drawn_of_grants(tx, [who])
        while True:
            some = grants.page(
                tx,
                who,
                now=product.clock.now(),
                after=found[-1].grant.grant_id if found else None,
                size=PAGE_SIZE,
                money_drawn=drawn,
            )
            found += some
            if len(some) < PAGE_SIZE:
                break
    value = [grant_value(one) for one in found]
    columns = ("grant", "key", "of", "granted", "left", "state")
    table = console.table(*columns, right=("granted", "left"))
    for one in value:
        whole = one.get("quantity") or one.get("amount")
        what = one.get("meter") or one.get("currency")
        table.add_row(one["id"], one["key"], what, whole, one["remaining"], one["state"])
    console.emit(value, as_json=as_json, text=table)


@app.command(epilog="Example: convergio grant void acme crg_01j8z6v3k9e5x8q2w4r6t8y0ab")
def void(
    customer: Key,
    grant: Annotated[str, typer.Argument(help="The grant's id, crg_...")],
    *,
    as_json: console.Json = False,
) -> None:
    """Take back what usage has not drawn so far."""
    grant_id = parse_typeid("crg", grant)

    def work(product: App, tx: Tx) -> GrantState:
        found = grants.void(tx, customer, grant_id, now=product.clock.now())
        return _state(product, tx, found)

    _show(done(work), as_json=as_json)


def _state(product: App, tx: Tx, grant: CreditGrant) -> GrantState:
    drawn = discounts.drawn_of_grants(tx, [grant.customer_id])
    return grants.state_of(tx, grant, now=product.clock.now(), money_drawn=drawn)


def _show(found: GrantState, *, as_json: bool) -> None:
    value = grant_value(found)
    text = f"{value['id']}  {value['state']}  {value['remaining']} left"
    console.emit(value, as_json=as_json, text=text)
