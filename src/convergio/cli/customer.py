"""`convergio customer`: create, show and list customers.

Personal data are sealed on the way in. `show` opens them, `list` never does.
"""

from typing import Annotated, Any, Final

import typer

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.customers import actions, rules
from convergio.customers.model import Customer
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.periods import instant_text

EXAMPLE: Final = "convergio customer create acme --name 'Acme Ltd' --email billing@acme.example"

app = console.command_app("Create, show and list customers.", EXAMPLE)

Key = Annotated[str, typer.Argument(help="The key by which your own system knows the customer.")]
KeyOrId = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer's key or cus_... id.")]


@app.command(epilog=f"Example: {EXAMPLE}")
def create(
    key: Key,
    *,
    currency: Annotated[str, typer.Option(help="ISO 4217 code of the invoices.")] = "usd",
    name: Annotated[str | None, typer.Option(help="Name on invoices.")] = None,
    email: Annotated[str | None, typer.Option(help="Where invoices go.")] = None,
    address: Annotated[str | None, typer.Option(help="Address on invoices.")] = None,
    tax_id: Annotated[str | None, typer.Option(help="Tax id on invoices.")] = None,
    country: Annotated[str | None, typer.Option(help="ISO 3166-1, such as IT.")] = None,
    locale: Annotated[str, typer.Option(help="BCP 47, such as en or pt-BR.")] = "en",
    as_json: console.Json = False,
) -> None:
    """Create a customer; a key that is taken is refused."""
    with opened() as product, product.database.transaction() as tx:
        customer = actions.create(
            tx,
            product.keyring,
            key=key,
            now=product.clock.now(),
            currency=currency.lower(),
            name=name,
            email=email,
            address=address,
            tax_id=tax_id,
            country=country,
            locale=locale,
        )
    shown = account(customer)
    console.emit(shown, as_json=as_json, text=f"{shown['id']}  {customer.customer_key}")


@app.command(epilog="Example: convergio customer show acme --json")
def show(key_or_id: KeyOrId, as_json: console.Json = False) -> None:
    """Show a customer with its personal data in the clear."""
    with opened() as product, product.database.transaction() as tx:
        customer = actions.find(tx, key_or_id)
        personal = actions.personal(tx, product.keyring, customer.customer_id)
    shown = account(customer) | {
        "name": personal.name,
        "email": personal.email,
        "address": personal.address,
        "tax_id": personal.tax_id,
    }
    lines = (f"{field:<11}{value}" for field, value in shown.items() if value is not None)
    console.emit(shown, as_json=as_json, text="\n".join(lines))


@app.command("list", epilog="Example: convergio customer list --limit 20 --json")
def list_(
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Customers a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List customers in the order of their making, a page at a time, without personal data."""
    start = None if after is None else parse_typeid(rules.ID_PREFIX, after)
    with opened() as product, product.database.transaction() as tx:
        customers = actions.page(tx, after=start, size_max=limit)
    shown = [account(customer) for customer in customers]
    grid = console.table("id", "key", "currency", "country", "created")
    for one in shown:
        grid.add_row(*(one[f] or "" for f in ("id", "key", "currency", "country", "created_at")))
    following = shown[-1]["id"] if len(shown) == limit else None
    console.emit({"customers": shown, "next": following}, as_json=as_json, text=grid)


def account(customer: Customer) -> dict[str, Any]:
    """Return a customer without personal data, as JSON shows it."""
    return {
        "id": typeid(rules.ID_PREFIX, customer.customer_id),
        "key": customer.customer_key,
        "currency": customer.currency,
        "country": customer.country,
        "locale": customer.locale,
        "created_at": instant_text(customer.created_at),
    }
