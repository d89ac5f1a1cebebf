"""`convergio preview`: what the next run would bill a customer, or what a change would."""

from typing import Annotated, Any, Final

import typer

from convergio.billing import explaining
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments
from convergio.subscriptions.model import When

EXAMPLE: Final = "convergio preview acme --plan team --seats 5"

app = console.command_app("Show what would be billed, without billing it.", EXAMPLE)


@app.command()
def command(
    customer: Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer.")],
    *,
    at: Annotated[str | None, typer.Option(help="RFC 3339; default the next boundary.")] = None,
    plan: Annotated[str | None, typer.Option(help="As if this plan were taken now.")] = None,
    seats: Annotated[int | None, typer.Option(min=1, help="As if there were so many.")] = None,
    when: Annotated[When | None, typer.Option(help="When the change would happen.")] = None,
    as_json: console.Json = False,
) -> None:
    """Run the billing of one customer through the real code and undo it."""
    moment = None if at is None else parse_instant(at, field="--at")
    asked = plan is not None or seats is not None
    with opened() as product, product.database.transaction() as tx:
        found = explaining.preview(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            now=product.clock.now(),
            at=moment,
            wish=explaining.Wish(plan, seats, when) if asked else None,
            can_pay=payments.payable,
        )
    value = explaining.preview_value(found)
    console.emit(value, as_json=as_json, text=_text(value))


def _text(value: dict[str, Any]) -> str:
    """Return a preview as a person reads it."""
    rows = [f"at {value['at']}"]
    for invoice in value["invoices"]:
        rows.append(f"invoice of {invoice['boundary']}: {invoice['total']} {invoice['currency']}")
        rows += [f"  {line['amount']:>12}  {line['description']}" for line in invoice["lines"]]
        rows.append(f"  {invoice['to_pay']:>12}  to pay")
    for note in value["credit_notes"]:
        rows.append(f"credit note: {note['total']} {note['currency']}, {note['reason']}")
    rows += [f"problem: {one['reason']}" for one in value["problems"]]
    return "\n".join(rows if len(rows) > 1 else [*rows, "nothing would be billed"])
