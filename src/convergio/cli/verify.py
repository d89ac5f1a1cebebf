"""`convergio verify`: recompute everything from the facts, and name the first difference."""

from collections.abc import Callable, Mapping
from typing import Final

import typer

from convergio.billing import actions as billing
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.discounts import actions as discounts
from convergio.entitlements import actions as entitlements
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.payments import checking as payments
from convergio.subscriptions import actions as subscriptions

CHECKS: Final[Mapping[str, Callable[[Tx], list[Difference]]]] = {
    "usage totals = events": metering.verify,
    "reserved = open reservations": entitlements.verify,
    "periods follow the anchor": subscriptions.verify,
    "invoices = owed, lines, transfers, numbers": billing.verify,
    "discounts = coupons, credit, limits": discounts.verify,
    "transfers are well formed": ledger.verify,
    "payments = transfers = invoices": payments.verify,
}

app = console.command_app(
    "Recompute usage totals from events, owed against billed, invoices against lines and "
    "transfers, numbers without gaps, periods without overlap. Exits with 1 on a difference.",
    "convergio verify",
)


@app.command()
def verify(as_json: console.Json = False) -> None:
    """Run every check in one snapshot; the first difference is on standard error."""
    found: dict[str, list[Difference]] = {}
    with (
        opened() as product,
        product.database.snapshot() as tx,
        console.progress("verifying", len(CHECKS)) as advance,
    ):
        for name, check in CHECKS.items():
            found[name] = check(tx)
            advance(1)
    differences = [str(one) for each in found.values() for one in each]
    value = {
        "ok": not differences,
        "checks": {name: len(each) for name, each in found.items()},
        "differences": differences,
    }
    lines = [f"{'ok  ' if not each else 'FAIL'} {name}" for name, each in found.items()]
    console.emit(value, as_json=as_json, text="\n".join(lines))
    if differences:
        console.say(f"convergio: {differences[0]} [difference]")
        raise typer.Exit(1)
