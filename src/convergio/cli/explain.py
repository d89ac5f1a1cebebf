"""`convergio explain`: from a line of an invoice to its price, its arithmetic and its events."""

from typing import Annotated, Any, Final
from uuid import UUID

import typer

from convergio.billing import actions, explaining
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.kernel.errors import Invalid

EXAMPLE: Final = "convergio explain CVG-2025-000123/2"

app = console.command_app("Explain a line of an invoice.", EXAMPLE)


@app.command()
def command(
    line: Annotated[str, typer.Argument(metavar="NUMBER/LINE", help="CVG-2025-000123/2")],
    *,
    after: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Events a page.")] = 20,
    as_json: console.Json = False,
) -> None:
    """Show the price version, the steps, the period and, a page at a time, the very events."""
    number, _, place = line.partition("/")
    if not (place.isascii() and place.isdigit()):
        detail = "write the invoice's number, a slash and the line: CVG-2025-000123/2"
        raise Invalid(detail, code="bad_line", field="line")
    with opened() as product, product.database.transaction() as tx:
        invoice = actions.find_numbered(tx, number)
        found = explaining.explain(tx, invoice, int(place[:9]), after=_key(after), limit=limit)
    value = explaining.explanation_value(invoice, found)
    console.emit(value, as_json=as_json, text=_text(value))


def _key(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        detail = "write `next` of the page before"
        raise Invalid(detail, code="bad_cursor", field="--after") from None


def _text(value: dict[str, Any]) -> str:
    """Return an explanation as a person reads it."""
    price, period = value["price"], value["period"]
    rows = [
        f"{value['invoice']}/{value['line']}: {value['description']}: {value['amount']}",
        f"price {price['key']} v{price['version']}, {period['start']} to {period['end']}",
    ]
    if value["owed"] is not None:
        rows.append(f"owed {value['owed']}, billed before {value['billed_before']}")
    rows += [
        f"  {step['amount']:>12}  {step['description']}: {step['quantity']} at {step['unit']}"
        for step in value["steps"]
    ]
    rows += [
        f"  {'-' + one['amount']:>12}  {one['coupon'] or 'promotional credit'}"
        for one in value["discounts"]
    ]
    tax = value["tax"]
    if tax["treatment"] != "none":
        rows.append(f"taxed as {tax['category']}: {tax['treatment']} {tax['rate']}%")
    rows += [
        f"  {event['time']}  {event['quantity']:>8}  {event['source']} {event['id']}"
        for event in value["events"]
    ]
    if value["next"]:
        rows.append(f"there may be more: add --after {value['next']}")
    return "\n".join(rows)
