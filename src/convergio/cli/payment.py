"""`convergio payment`: money that came by bank transfer, and how a customer pays."""

from datetime import datetime
from typing import Annotated, Final

import typer

from convergio.billing import actions as billing
from convergio.billing import terms
from convergio.billing.errors import unknown_invoice
from convergio.billing.model import CollectionMethod, Terms
from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.money import Money
from convergio.payments import receiving
from convergio.payments.model import Receipt, ReceiptMethod
from convergio.wiring import App

EXAMPLE: Final = "convergio payment record acme 120.00 --reference 'TRF 4711' --on 2025-02-03"
_COLUMNS: Final = ("id", "received_on", "method", "reference", "amount", "currency")

app = console.command_app("Enter bank transfers, and agree on how a customer pays.", EXAMPLE)
Key = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer.")]


@app.command("record", epilog=f"Example: {EXAMPLE}")
def record(
    customer: Key,
    amount: Annotated[str, typer.Argument(help="In major units, such as 120.00.")],
    *,
    reference: Annotated[str, typer.Option(help="What the bank statement calls it.")],
    on: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The day it arrived.")],
    invoice: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Default: the oldest open invoices.")
    ] = None,
    method: Annotated[ReceiptMethod, typer.Option()] = ReceiptMethod.BANK_TRANSFER,
    as_json: console.Json = False,
) -> None:
    """Enter money that arrived; it pays invoices in part or in whole, the rest is balance.

    The same reference entered twice is one receipt.
    """

    def work(product: App, tx: Tx) -> Receipt:
        who = customers.find(tx, customer)
        meant = billing.find_numbered(tx, invoice) if invoice else None
        if meant is not None and meant.customer_id != who.customer_id:
            raise unknown_invoice()
        return receiving.record(
            tx,
            customer_id=who.customer_id,
            amount=Money.parse(amount, who.currency),
            method=method,
            reference=reference,
            received_on=on.date(),
            now=product.clock.now(),
            invoice=meant,
        )

    value = receiving.value(done(work))
    text = f"{value['id']}  {value['amount']} {value['currency']} of {customer} entered"
    console.emit(value, as_json=as_json, text=text)


@app.command("list", epilog="Example: convergio payment list acme --json")
def list_(
    customer: Key,
    *,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Go on after this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Receipts a page.")] = 100,
    as_json: console.Json = False,
) -> None:
    """List a customer's receipts, the oldest entry first."""
    with opened() as product, product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        last = parse_typeid("rec", after) if after else None
        found = receiving.receipts(tx, customer_id, after=last, limit=limit)
    rows = [receiving.value(one) for one in found]
    grid = console.table(*_COLUMNS, right=("amount",))
    for row in rows:
        grid.add_row(*(str(row[name]) for name in _COLUMNS))
    following = typeid("rec", found[-1].receipt_id) if len(found) == limit else None
    console.emit({"receipts": rows, "next": following}, as_json=as_json, text=grid)


@app.command("terms", epilog="Example: convergio payment terms acme --send-invoice --net-days 30")
def set_terms(
    customer: Key,
    *,
    send_invoice: Annotated[
        bool, typer.Option("--send-invoice/--charge", help="Transfer, or charge the card on file.")
    ] = False,
    net_days: Annotated[
        int | None, typer.Option(min=0, max=terms.NET_DAYS_MAX, help="Default: the seller's.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Agree on how a customer pays, and within how many days; invoices that are out keep theirs."""
    method = (
        CollectionMethod.SEND_INVOICE if send_invoice else CollectionMethod.CHARGE_AUTOMATICALLY
    )

    def work(product: App, tx: Tx) -> Terms:
        customer_id = customers.find(tx, customer).customer_id
        return terms.set_terms(tx, customer_id, method, net_days, now=product.clock.now())

    found = done(work)
    value = {"customer": customer, "collection": found.collection, "net_days": found.net_days}
    days = "the seller's usual days" if net_days is None else f"{net_days} days"
    console.emit(value, as_json=as_json, text=f"{customer}  {found.collection}, within {days}")
