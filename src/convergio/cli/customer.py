"""`convergio customer`: create, change, show and list customers.

Personal data are sealed on the way in. `show` opens them, `list` never does.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
import typer

from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions, rules
from convergio.customers.model import Details
from convergio.infra.ids import parse_typeid
from convergio.kernel.errors import Invalid
from convergio.payments import history as billing_history

EXAMPLE: Final = "convergio customer create acme --name 'Acme Ltd' --email billing@acme.example"

app = console.command_app("Create, change, show and list customers.", EXAMPLE)

Key = Annotated[str, typer.Argument(help="The key by which your own system knows the customer.")]
KeyOrId = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer's key or cus_... id.")]


Name = Annotated[str | None, typer.Option(help="Name on invoices.")]
Email = Annotated[str | None, typer.Option(help="Where invoices go.")]
Address = Annotated[str | None, typer.Option(help="Address on invoices, as free text.")]
TaxId = Annotated[str | None, typer.Option(help="Tax id on invoices, such as IT00743110157.")]
Country = Annotated[str | None, typer.Option(help="ISO 3166-1, such as IT.")]
Street = Annotated[str | None, typer.Option(help="Address in parts: street and number.")]
PostalCode = Annotated[str | None, typer.Option(help="... postal code.")]
City = Annotated[str | None, typer.Option(help="... city.")]
Region = Annotated[str | None, typer.Option(help="... state; in Italy the province, such as RM.")]
SdiCode = Annotated[str | None, typer.Option(help="Italian recipient's code, 7 characters.")]
Pec = Annotated[str | None, typer.Option(help="Certified e-mail of an Italian recipient.")]
Order = Annotated[str | None, typer.Option("--purchase-order", help="Reference on each invoice.")]
Exempt = Annotated[str | None, typer.Option(help="exempt or reverse_charge: no tax is charged.")]
Reason = Annotated[str | None, typer.Option("--tax-exempt-reason", help="Why; on each invoice.")]


@app.command(epilog=f"Example: {EXAMPLE}")
def create(
    key: Key,
    *,
    currency: Annotated[str, typer.Option(help="ISO 4217 code of the invoices.")] = "usd",
    name: Name = None,
    email: Email = None,
    address: Address = None,
    tax_id: TaxId = None,
    street: Street = None,
    postal_code: PostalCode = None,
    city: City = None,
    region: Region = None,
    country: Country = None,
    locale: Annotated[str, typer.Option(help="BCP 47, such as en or pt-BR.")] = "en",
    sdi_code: SdiCode = None,
    pec: Pec = None,
    purchase_order: Order = None,
    tax_exempt: Exempt = None,
    tax_exempt_reason: Reason = None,
    as_json: console.Json = False,
) -> None:
    """Create a customer; a key that is taken is refused."""
    customer = done(
        lambda product, tx: actions.create(
            tx,
            product.keyring,
            key=key,
            now=product.clock.now(),
            currency=currency.lower(),
            name=name,
            email=email,
            address=address,
            tax_id=tax_id,
            street=street,
            postal_code=postal_code,
            city=city,
            region=region,
            country=country,
            locale=locale,
            sdi_code=sdi_code,
            pec=pec,
            purchase_order=purchase_order,
            tax_exempt=tax_exempt,
            tax_exempt_reason=tax_exempt_reason,
        )
    )
    shown = rules.account_value(customer)
    console.emit(shown, as_json=as_json, text=f"{shown['id']}  {customer.customer_key}")


@app.command(epilog="Example: convergio customer update acme --city Roma --region RM")
def update(
    key_or_id: KeyOrId,
    *,
    name: Name = None,
    email: Email = None,
    address: Address = None,
    tax_id: TaxId = None,
    street: Street = None,
    postal_code: PostalCode = None,
    city: City = None,
    region: Region = None,
    country: Country = None,
    locale: Annotated[str | None, typer.Option(help="BCP 47, such as en or pt-BR.")] = None,
    sdi_code: SdiCode = None,
    pec: Pec = None,
    purchase_order: Order = None,
    tax_exempt: Exempt = None,
    tax_exempt_reason: Reason = None,
    as_json: console.Json = False,
) -> None:
    """Change what is known of a customer; '' forgets a field. Issued invoices stay as they are."""
    wished = {
        "name": name, "email": email, "address": address, "tax_id": tax_id, "street": street,
        "postal_code": postal_code, "city": city, "region": region, "country": country,
        "sdi_code": sdi_code, "pec": pec, "purchase_order": purchase_order,
        "tax_exempt": tax_exempt, "tax_exempt_reason": tax_exempt_reason,
    }  # fmt: skip
    named = {field: value or None for field, value in wished.items() if value is not None}
    if locale is not None:
        named["locale"] = locale
    changed = done(
        lambda product, tx: actions.update(
            tx,
            product.keyring,
            actions.find(tx, key_or_id).customer_id,
            now=product.clock.now(),
            **msgspec.convert(named, Details),
        )
    )
    shown = rules.account_value(changed)
    console.emit(shown, as_json=as_json, text=f"{shown['id']}  {changed.customer_key}")


@app.command(epilog="Example: convergio customer show acme --json")
def show(key_or_id: KeyOrId, as_json: console.Json = False) -> None:
    """Show a customer with its personal data in the clear."""
    with opened() as product, product.database.transaction() as tx:
        customer = actions.find(tx, key_or_id)
        personal = actions.personal(tx, product.keyring, customer.customer_id)
    shown = rules.account_value(customer) | rules.personal_value(personal)
    lines = (f"{field:<19}{value}" for field, value in shown.items() if value is not None)
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
    shown = [rules.account_value(customer) for customer in customers]
    grid = console.table("id", "key", "currency", "country", "created")
    for one in shown:
        grid.add_row(*(one[f] or "" for f in ("id", "key", "currency", "country", "created_at")))
    following = shown[-1]["id"] if len(shown) == limit else None
    console.emit({"customers": shown, "next": following}, as_json=as_json, text=grid)


@app.command(epilog="Example: convergio customer history acme --json")
def history(
    key_or_id: KeyOrId,
    *,
    after: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Entries, oldest first.")] = 100,
    as_json: console.Json = False,
) -> None:
    """Show what went between a customer and us, in its order: invoices, payments, credit notes."""
    with opened() as product, product.database.transaction() as tx:
        customer_id = actions.find(tx, key_or_id).customer_id
        found = billing_history.page(tx, customer_id, after=_moment(after), limit=limit)
    shown = [billing_history.value(one) for one in found]
    last = found[-1] if len(found) == limit else None
    following = None if last is None else f"{last.at.isoformat()}/{last.entry_id.hex}"
    grid = console.table("at", "type", "number", "state", "amount", "currency", right=("amount",))
    for row in shown:
        columns = ("at", "type", "number", "state", "amount", "currency")
        grid.add_row(*(row[name] or "" for name in columns))
    console.emit({"entries": shown, "next": following}, as_json=as_json, text=grid)
    if following is not None and not as_json:
        console.say(f"there may be more: add --after {following}")


def _moment(after: str | None) -> tuple[datetime, UUID] | None:
    """Return behind which entry a page begins. Raises: Invalid."""
    if after is None:
        return None
    at, _, entry = after.partition("/")
    with suppress(ValueError):
        found = datetime.fromisoformat(at), UUID(entry)
        if found[0].tzinfo is not None:
            return found
    raise Invalid("write `next` of the page before", code="bad_cursor", field="--after")
