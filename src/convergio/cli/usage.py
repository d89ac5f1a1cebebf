"""`convergio usage`: what was metered, by calendar time."""

from typing import Annotated

import typer

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.kernel.periods import instant_text, parse_instant, zone
from convergio.kernel.quantity import quantity_text
from convergio.metering import actions as metering

app = console.command_app(
    "Show metered usage in buckets of calendar time, right to the last committed event.",
    "convergio usage --meter questions --by month --json",
)


@app.command()
def usage(
    meter: Annotated[str, typer.Option(help="Key of the meter.")],
    by: Annotated[
        str, typer.Option(help="minute, hour, day, week, month, quarter or year.")
    ] = "month",
    customer: Annotated[str | None, typer.Option(help="Key or id of one customer.")] = None,
    since: Annotated[str | None, typer.Option(help="First instant, with its zone.")] = None,
    until: Annotated[str | None, typer.Option(help="First instant after.")] = None,
    timezone: Annotated[str, typer.Option(help="Zone of the calendar.")] = "UTC",
    as_json: console.Json = False,
) -> None:
    """Show usage of a meter, of all customers or of one."""
    start = parse_instant(since, field="--since") if since else None
    end = parse_instant(until, field="--until") if until else None
    with opened() as product, product.database.transaction() as tx:
        who = customers.find(tx, customer).customer_id if customer else None
        found = metering.usage(
            tx, meter_key=meter, by=by, time_zone=timezone, customer_id=who, since=start, until=end
        )
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
    value = {"meter": meter, "by": by, "time_zone": timezone, "usage": rows}
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
