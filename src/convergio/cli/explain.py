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
        found = explaining.explain(tx, invoice, int(place[:9]), after=key_of(after), limit=limit)
    value = explaining.explanation_value(invoice, found)
    console.emit(value, as_json=as_json, text=text_of(value))


def key_of(text: str | None) -> UUID | None:
    """Return where a page goes on. Raises: Invalid."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        detail = "write `next` of the page before"
        raise Invalid(detail, code="bad_cursor", field="--after") from None


def text_of(value: dict[str, Any]) -> str:
    """Return an explanation as a person reads it."""
    price, period = value["price"], value["period"]
    rows = [
        f"{value['invoice']}/{value['line']}: {value['description']}: {value['amount']}",
        f"price {price['key']} v{price['version']}, {period['start']} to {period['end']}",
    ]
    if price["value"]:
        rows[-1] += f", {price['by']}: {price['value']}"
    rows += [f"  {step['amount']:>12}  {_step(step)}" for step in value["steps"]]
    if value["owed"] is not None:
        rows.append(f"owed {value['owed']}, billed before {value['billed_before']}")
    if value["takes_back"]:
        rows.append("takes back from {invoice}/{line}".format(**value["takes_back"]))
    rows += [
        f"  {_less(one['amount']):>12}  {one['coupon'] or 'promotional credit'}"
        for one in value["discounts"]
    ]
    if value["discounts"]:
        rows.append(f"  {value['net']:>12}  after discounts")
    tax = value["tax"]
    if tax["treatment"] != "none":
        rows.append(f"taxed as {tax['category']}: {tax['treatment']} {tax['rate']}%")
    if tax["group"]:
        group, where = tax["group"], "inside" if tax["inclusive"] else "on top"
        rows[-1] += f", {group['tax']} {where} of {group['net']} with all lines taxed alike"
    rows += [
        f"  {event['time']}  {event['quantity']:>8}  {event['source']} {event['id']}"
        for event in value["events"]
    ]
    if value["next"]:
        rows.append(f"there may be more: add --after {value['next']}")
    return "\n".join(rows)


def _step(step: dict[str, str]) -> str:
    """Return a step as something to compute: what is counted, at which price, for which share."""
    share = f" x {step['share']}" if "share" in step else ""
    if "bound" in step:
        return f"{step['description']}: brings the sum to {step['bound']}{share}"
    per = "" if step["per"] == "1" else f" per {step['per']}"
    return f"{step['description']}: {step['quantity']} at {step['unit']}{per}{share}"


def _less(amount: str) -> str:
    """Return an amount with the other sign."""
    return amount.removeprefix("-") if amount.startswith("-") else f"-{amount}"
