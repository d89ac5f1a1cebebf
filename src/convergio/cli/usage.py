"""`convergio usage`: what was metered, by calendar time; and months out of, into and off the house.

The subcommands are in `archive.py`.
"""

from typing import Annotated

import typer

from convergio.cli import archive, console
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import instant_text, parse_instant, zone
from convergio.kernel.quantity import quantity_text
from convergio.metering import actions as metering
from convergio.metering.model import EPOCH
from convergio.metering.retention import boundary

app = console.command_app(
    "Show metered usage in buckets of calendar time, right to the last committed event.",
    "convergio usage --meter questions --by month --json",
)


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    meter: Annotated[str | None, typer.Option(help="Key of the meter.")] = None,
    by: Annotated[
        str, typer.Option(help="minute, hour, day, week, month, quarter or year.")
    ] = "month",
    customer: Annotated[str | None, typer.Option(help="Key or id of one customer.")] = None,
    since: Annotated[str | None, typer.Option(help="First instant, with its zone.")] = None,
    until: Annotated[str | None, typer.Option(help="First instant after.")] = None,
    timezone: Annotated[str, typer.Option(help="Zone of the calendar.")] = "UTC",
    as_json: console.Json = False,
) -> None:
    """Show usage of a meter, of all customers or of one; or export, import and retain months."""
    if context.invoked_subcommand is not None:
        return
    if meter is None:
        detail = "name a meter; `convergio catalog show` lists them"
        raise Invalid(detail, code="missing_option", field="--meter")
    start = parse_instant(since, field="--since") if since else None
    end = parse_instant(until, field="--until") if until else None
    with opened() as product, product.database.transaction() as tx:
        who = customers.find(tx, customer).customer_id if customer else None
        found = metering.usage(
            tx,
            meter_key=meter,
            by=by,
            time_zone=timezone,
            customer_id=who,
            since=start,
            until=end,
            now=product.clock.now(),
        )
        gone = boundary(tx).gone_before
    rows = [
        {
            "start": instant_text(row.start),
            "period": row.start.astimezone(zone(timezone)).strftime(_pattern(by)),
            "quantity": quantity_text(row.quantity),
            "events": row.events,
        }
        for row in found
    ]
    table = console.table(by, "quantity", "events", right=("quantity", "events"))
    for row in rows:
        table.add_row(str(row["period"]), str(row["quantity"]), str(row["events"]))
    value: dict[str, object] = {"meter": meter, "by": by, "time_zone": timezone, "usage": rows}
    if gone > EPOCH:
        value["events_kept_from"] = instant_text(gone)
        if start is None or start < gone:
            console.say(f"note: events before {instant_text(gone)} are archived, not in this table")
    console.emit(value, as_json=as_json, text=table)


_PATTERNS = {
    "year": "%Y",
    "quarter": "%Y-%m",
    "month": "%Y-%m",
    "week": "%G-W%V",
    "day": "%Y-%m-%d",
}


def _pattern(by: str) -> str:
    return _PATTERNS.get(by, "%Y-%m-%dT%H:%M")


app.command("export", epilog=f"Example: {archive.EXPORT}")(archive.export)
app.command("import", epilog=f"Example: {archive.IMPORT}")(archive.bring_in)
app.command("retain", epilog=f"Example: {archive.RETAIN}")(archive.retain)
