"""`convergio invoice`: list invoices, write one as the PDF or XML that its buyer gets, correct."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from convergio.billing import actions, correcting, explaining, rendering
from convergio.billing.model import (
    CreditKind,
    CreditNoteView,
    Draft,
    Invoice,
    Status,
    Voiding,
)
from convergio.billing.rendering import Format, View
from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.text import check_text
from convergio.payments import actions as payments
from convergio.wiring import App

EXAMPLE: Final = "convergio invoice pdf CVG-2025-000123 --out invoice.pdf"
FOLDER: Final = "invoices"
DAY: Final = ["%Y-%m-%d"]
_ID: Final = "inv"
_COLUMNS: Final = ("number", "customer", "status", "issued_on", "total", "due", "currency")

app = console.command_app("List invoices, write their PDF and XML, credit and void them.", EXAMPLE)

NumberOrId = Annotated[
    str, typer.Argument(metavar="NUMBER|ID", help="Such as CVG-2025-000123, or an inv_... id.")
]
AnyNumber = Annotated[
    str,
    typer.Argument(
        metavar="NUMBER|ID", help="CVG-2025-000123, an inv_... id, or CVG-CN-2025-000004."
    ),
]


class XmlFormat(StrEnum):
    """The formats of e-invoices."""

    FACTUR_X = Format.FACTUR_X.value
    FATTURAPA = Format.FATTURAPA.value


@app.command("list", epilog="Example: convergio invoice list --status open --json")
def list_(
    *,
    customer: Annotated[
        str | None, typer.Option(metavar="KEY|ID", help="Only this customer's.")
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    series: Annotated[str | None, typer.Option(help="Only of this series.")] = None,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="Issued on or after it.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="Issued before it.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="NUMBER|ID", help="Go on after this invoice.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Invoices a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List invoices in the order of customer and time, a page at a time."""
    with opened() as product, product.database.transaction() as tx:
        page: dict[str, Any] = {"status": status, "limit": limit}
        page["series"] = None if series is None else check_text(series, field="--series")
        page |= {"issued_from": since and since.date(), "issued_to": until and until.date()}
        if customer is not None:
            page["customer_id"] = customers.find(tx, customer).customer_id
        if after is not None:
            last = _find(tx, after)
            page["after"] = (last.customer_id, last.invoice_id)
        found = actions.page(tx, **page)
        accounts = customers.get_many(tx, sorted({one.customer_id for one in found}))
    shown = [invoice(one) | {"customer": accounts[one.customer_id].customer_key} for one in found]
    grid = console.table(*_COLUMNS, right=("total", "due"))
    for row in shown:
        grid.add_row(*(str(row[name]) for name in _COLUMNS))
    following = shown[-1]["number"] if len(shown) == limit else None
    console.emit({"invoices": shown, "next": following}, as_json=as_json, text=grid)
    if following is not None and not as_json:
        console.say(f"there may be more: add --after {following}")


Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Default: in the folder invoices of CONVERGIO_HOME."),
]


@app.command(epilog="Example: convergio invoice drafts --json")
def drafts(
    *,
    after: Annotated[str | None, typer.Option(metavar="cus_...", help="Go on after.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=5_000, help="Customers a page.")] = 500,
    as_json: console.Json = False,
) -> None:
    """Show what the next runs will finalise once the grace is over; nothing of it is stored."""
    start = None if after is None else parse_typeid("cus", after)

    def look(product: App, tx: Tx) -> tuple[list[Draft], UUID | None, dict[UUID, str]]:
        found, last = explaining.drafts(
            tx,
            now=product.clock.now(),
            after=start,
            limit=limit,
            can_pay=payments.payable,
            keyring=product.keyring,
        )
        accounts = customers.get_many(tx, sorted({one.customer_id for one in found}))
        return found, last, {each: one.customer_key for each, one in accounts.items()}

    found, last, keys = done(look)
    grid = console.table("customer", "boundary", "lines", "total", "currency", right=("total",))
    for one in found:
        count, total = str(len(one.lines)), one.total.text()
        grid.add_row(
            keys[one.customer_id], instant_text(one.boundary_at), count, total, one.total.currency
        )
    shown = [explaining.draft_value(one) for one in found]
    following = None if last is None else typeid("cus", last)
    console.emit({"drafts": shown, "next": following}, as_json=as_json, text=grid)


@app.command(epilog=f"Example: {EXAMPLE}")
def pdf(number: AnyNumber, *, out: Out = None, as_json: console.Json = False) -> None:
    """Write an invoice or a credit note as a PDF in its buyer's language."""
    _write_file(number, Format.PDF, out, as_json=as_json)


@app.command(epilog="Example: convergio invoice xml CVG-2025-000123 --format fatturapa")
def xml(
    number: AnyNumber,
    *,
    form: Annotated[
        XmlFormat, typer.Option("--format", help="EN 16931 (Factur-X), or the Italian format.")
    ] = XmlFormat.FACTUR_X,
    out: Out = None,
    as_json: console.Json = False,
) -> None:
    """Write an invoice or a credit note as an e-invoice, or say what keeps it from being one."""
    _write_file(number, Format(form.value), out, as_json=as_json)


@app.command(
    epilog="Example: convergio invoice credit CVG-2025-000123 --amount 5.00 --reason Delay"
)
def credit(
    number: NumberOrId,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is on the credit note.")],
    amount: Annotated[str | None, typer.Option(help="Default: all that is left.")] = None,
    line: Annotated[
        list[str] | None, typer.Option(metavar="LINE=AMOUNT", help="Of one line; repeatable.")
    ] = None,
    kind: Annotated[
        CreditKind, typer.Option(help="A correction may be billed again, a concession never.")
    ] = CreditKind.CONCESSION,
    as_json: console.Json = False,
) -> None:
    """Give back a part of an invoice: off what is due first, then to the credit balance."""

    def work(product: App, tx: Tx) -> dict[str, Any]:
        found = _find(tx, number)
        given = None
        if amount is not None:
            given = Money.parse(amount, found.currency, field="--amount")
        note = correcting.credit(
            tx,
            _issuer(product),
            invoice=found,
            reason=reason,
            kind=kind,
            amount=given,
            lines=dict(_line(each, found.currency) for each in line) if line else None,
        )
        return correcting.note_value(note, correcting.note_lines(tx, note))

    shown = done(work)
    console.emit(shown, as_json=as_json, text=f"{shown['number']}: {shown['total']}")


@app.command()
def credits(  # noqa: A001 - the command's name
    customer: Annotated[
        str | None, typer.Argument(metavar="KEY|ID", help="The customer; default: everybody.")
    ] = None,
    *,
    of: Annotated[
        str | None, typer.Option("--invoice", metavar="NUMBER|ID", help="Only of this invoice.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Go on after this credit note.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Credit notes a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List credit notes in the order of customer and time, a page at a time."""
    with opened() as product, product.database.transaction() as tx:
        page: dict[str, Any] = {"limit": limit}
        if customer is not None:
            page["customer_id"] = customers.find(tx, customer).customer_id
        if of is not None:
            page["invoice_id"] = _find(tx, of).invoice_id
        if after is not None:
            last = correcting.find_note(tx, after)
            page["after"] = (last.customer_id, last.credit_note_id)
        found = correcting.notes(tx, **page)
        shown = [correcting.note_value(one, correcting.note_lines(tx, one)) for one in found]
    text = "\n".join(f"{one['number']}  {one['total']:>10}  {one['reason']}" for one in shown)
    following = shown[-1]["number"] if len(shown) == limit else None
    value = {"credit_notes": shown, "next": following}
    console.emit(value, as_json=as_json, text=text or "none")
    if following is not None and not as_json:
        console.say(f"there may be more: add --after {following}")


@app.command()
def void(
    number: NumberOrId,
    *,
    how: Annotated[Voiding, typer.Option(help="Bill it again, or give it away.")],
    as_json: console.Json = False,
) -> None:
    """Void an open invoice by a full credit note."""
    _say(
        done(
            lambda product, tx: correcting.void(
                tx, _issuer(product), invoice=_find(tx, number), how=how
            )
        ),
        as_json=as_json,
    )


@app.command()
def uncollectible(number: NumberOrId, *, as_json: console.Json = False) -> None:
    """Mark an open invoice as one that nobody will pay; it stays billed."""
    _say(
        done(
            lambda product, tx: correcting.give_up(tx, _issuer(product), invoice=_find(tx, number))
        ),
        as_json=as_json,
    )


def _say(found: Invoice, *, as_json: bool) -> None:
    console.emit(invoice(found), as_json=as_json, text=f"{found.number_text} is {found.status}")


def _issuer(product: App) -> actions.Issuer:
    now = product.clock.now()
    return actions.Issuer(product.settings.seller, product.keyring, now, now)


def _line(text: str, currency: str) -> tuple[int, Money]:
    number, _, amount = text.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise Invalid("write LINE=AMOUNT, such as 1=5.00", code="bad_line", field="--line")
    return int(number[:9]), Money.parse(amount, currency, field="--line")


def write(product: App, view: View, as_format: Format, out: Path | None = None) -> Path:
    """Write a document, whole or not at all, and return where it is."""
    made = rendering.file_of(view, product.settings.seller, as_format)
    path = out or product.settings.home_path / FOLDER / made.name
    if out is None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(made.content)
    else:
        rendering.write_whole(path, made.content)
    return path


def _write_file(number: str, as_format: Format, out: Path | None, *, as_json: bool) -> None:
    with opened() as product:
        with product.database.transaction() as tx:
            if number.startswith(f"{_ID}_"):
                number = _find(tx, number).number_text
            view = rendering.find(tx, product.keyring, number)
        path = write(product, view, as_format, out)
    if isinstance(view, CreditNoteView):
        shown = correcting.note_value(view.note)
    else:
        shown = invoice(view.invoice)
    console.emit(shown | {"path": str(path)}, as_json=as_json, text=str(path))


def invoice(found: Invoice) -> dict[str, Any]:
    """Return an invoice as JSON, without personal data."""
    return {
        "id": typeid(_ID, found.invoice_id),
        "number": found.number_text,
        "customer": typeid("cus", found.customer_id),
        "status": found.status.value,
        "boundary": instant_text(found.boundary_at),
        "issued_on": found.issued_on.isoformat(),
        "due_on": found.due_on.isoformat(),
        "total": Money(found.total, found.currency).text(),
        "paid": Money(found.paid, found.currency).text(),
        "due": found.due.text(),
        "currency": found.currency,
    }


def _find(tx: Tx, number_or_id: str) -> Invoice:
    if number_or_id.startswith(f"{_ID}_"):
        return actions.find_identified(tx, parse_typeid(_ID, number_or_id))
    return actions.find_numbered(tx, number_or_id)
