"""`convergio periods`: print the half-open periods that follow from an anchor, offline.

They are the kernel's own, so what is printed here is what a subscription stores. Options are read
as text and checked here, because a wrong one deserves one line that names it and its mend.
"""

from typing import Annotated, Any, Final

import typer

from convergio.cli import console
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Calendar, Interval, instant_text, parse_instant

COUNT_MAX: Final = 10_000
EXAMPLE: Final = (
    "convergio periods --interval month --anchor 2025-01-31T15:00:00Z "
    "--timezone Europe/Rome --count 12 --json"
)

app = console.command_app("Show the billing periods of an anchor, offline.", EXAMPLE)


@app.command()
def command(
    anchor: Annotated[str, typer.Option(help="The first start, with its zone (RFC 3339).")],
    interval: Annotated[str, typer.Option(help="day, week, month, quarter or year.")] = "month",
    timezone: Annotated[str, typer.Option(help="An IANA time zone.")] = "UTC",
    count: Annotated[str, typer.Option(help=f"How many periods, at most {COUNT_MAX}.")] = "12",
    as_json: console.Json = False,
) -> None:
    """Print the periods that billing would store, numbered from 0, in UTC."""
    found = periods(anchor=anchor, interval=interval, timezone=timezone, count=count)
    rows = console.table("number", "start", "end", right=("number",))
    for period in found:
        rows.add_row(str(period["number"]), period["start"], period["end"])
    console.emit(found, as_json=as_json, text=rows)


def periods(*, anchor: str, interval: str, timezone: str, count: str) -> list[dict[str, Any]]:
    """Return numbered periods as JSON objects. Raises: Invalid naming the option and the mend."""
    if interval not in list(Interval):
        detail = f"'{interval[:40]}' is not an interval; write {', '.join(Interval)}"
        raise Invalid(detail, code="bad_interval", field="--interval")
    first = parse_instant(anchor, field="--anchor")
    wanted = _count(count)
    try:
        found = Calendar(first, timezone, Interval(interval)).periods(wanted)
    except Invalid as error:
        option = "--timezone" if error.field == "time_zone" else "--anchor"
        raise Invalid(error.detail, code=error.code, field=option) from None
    return [
        {"number": number, "start": instant_text(period.start), "end": instant_text(period.end)}
        for number, period in enumerate(found)
    ]


def _count(text: str) -> int:
    digits = text if text.isascii() and text.isdigit() and len(text) <= len(str(COUNT_MAX)) else "0"
    if 1 <= int(digits) <= COUNT_MAX:
        return int(digits)
    detail = f"write a whole number from 1 to {COUNT_MAX}"
    raise Invalid(detail, code="bad_count", field="--count")
