"""`convergio bill`: invoice what is owed and not billed yet. Safe to stop and to run again."""

from typing import Annotated, Final

import typer

from convergio.billing import actions
from convergio.billing.reporting import LINES_A_DAY_MAX, Report
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import parse_instant
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import bill

EXAMPLE: Final = "convergio bill --as-of 2025-03-02T00:00:00Z --json"
_SHOWN_MAX: Final = 20
_LINES_MAX: Final = 100_000

app = console.command_app("Invoice what is owed and not yet billed.", EXAMPLE)


@app.command()
def command(
    *,
    as_of: Annotated[
        str | None,
        typer.Option(help="RFC 3339: the instant that the run pretends to be; default now."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be done; keep nothing.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; default CONVERGIO_BILLING_WORKERS.", min=1, max=64),
    ] = None,
    lines_max: Annotated[
        int,
        typer.Option(
            help="Lines that may amend one subscription in a day; raise it for a run once you have "
            "looked at who is parked with `too_many_lines`.",
            min=1,
            max=_LINES_MAX,
        ),
    ] = LINES_A_DAY_MAX,
    as_json: console.Json = False,
) -> None:
    """Bill every boundary that has passed, once the grace is over.

    Numbers and dates of issue follow --as-of. Several runs may go on at once, on one machine or
    many: they share the customers out. A run that is killed is finished by the next one.
    """
    moment = None if as_of is None else parse_instant(as_of, field="--as-of")
    with opened() as product:
        with product.database.transaction() as tx:
            total = subscriptions.count_billable(tx)
        now = product.clock.now()
        with console.progress("Billing customers", total) as advance:
            done = bill(
                product,
                as_of=moment or now,
                now=now,
                dry_run=dry_run,
                progress=advance,
                workers=workers,
                lines_max=lines_max,
            )
    console.emit(actions.report_value(done), as_json=as_json, text=_text(done, dry_run=dry_run))


def _text(done: Report, *, dry_run: bool) -> str:
    """Return the report as a person reads it."""
    sums = [Money(minor, currency) for currency, minor in sorted(done.totals.items())]
    totals = ", ".join(f"{one.text()} {one.currency}" for one in sums) or "nothing"
    verb = "would be issued" if dry_run else "issued"
    what = f"{done.invoices} invoices {verb} with {done.lines} lines: {totals}"
    rows = [f"{what} ({done.customers} customers looked at)"]
    if done.elsewhere:
        rows.append(f"{done.elsewhere} customers were billed by another run in the meantime")
    if done.credit_notes:
        back = [Money(minor, currency) for currency, minor in sorted(done.credited.items())]
        given = ", ".join(f"{one.text()} {one.currency}" for one in back)
        rows.append(f"{done.credit_notes} credit notes: {given}")
    rows += [
        f"problem: {typeid('cus', one.customer_id)}: {one.reason}"
        for one in done.problems[:_SHOWN_MAX]
    ]
    if len(done.problems) > _SHOWN_MAX:
        rows.append(f"... and {len(done.problems) - _SHOWN_MAX} problems more: see --json")
    return "\n".join(rows)
