"""`convergio whatif`: see a price change before it is made.

Reads one snapshot of the live database and writes nothing there; what it finds goes to the table,
to JSON, to a CSV file and to a chart.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from convergio.cli import console
from convergio.cli.opening import opened
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, instant_text, parse_instant
from convergio.kernel.text import safe_cell
from convergio.simulation import whatif
from convergio.simulation.whatif import Compared
from convergio.subscriptions import actions as subscriptions

EXAMPLE: Final = (
    "convergio whatif new-prices.yaml --from 2025-01-01T00:00:00Z --to 2025-07-01T00:00:00Z"
)
SHOWN: Final = 10
_SVG: Final = "http://www.w3.org/2000/svg"
_FONT: Final = 'font-family="sans-serif" font-size="12"'
_BAR: Final = 18
_WIDTH: Final = 720
_MIDDLE: Final = 420
_REACH: Final = 220
_HEADINGS: Final = "customer,currency,now,then,difference"

app = console.command_app("See what customers would owe under another catalog.", EXAMPLE)


@app.command()
def command(
    catalog: Annotated[Path, typer.Argument(help="The other catalog's file.")],
    *,
    since: Annotated[
        str, typer.Option("--from", help="First instant, such as 2025-01-01T00:00:00Z.")
    ],
    until: Annotated[str, typer.Option("--to", help="The instant after the last one.")],
    csv: Annotated[Path | None, typer.Option(help="Write every customer to this file.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the largest differences, SVG.")] = None,
    as_json: console.Json = False,
) -> None:
    """Rate the real history of every customer again, and say who would pay more and who less.

    Plans are matched by key. Nothing is changed in the database.
    """
    during = _during(since, until)
    source = catalog.read_bytes()
    with opened() as product, product.database.snapshot() as tx:
        total = subscriptions.count_billable(tx)
        with console.progress("Rating again, customer", total) as advance:
            found = list(whatif.compared(tx, source, during=during, progress=advance))
    if csv is not None:
        csv.write_text(csv_of(found), encoding="utf-8")
    if chart is not None:
        chart.write_text(chart_of(found), encoding="utf-8")
    value = summary(found, during)
    console.emit(value, as_json=as_json, text=_table(value))
    if not as_json:
        print(_totals(value))


def _during(since: str, until: str) -> Period:
    start, end = parse_instant(since, field="from"), parse_instant(until, field="to")
    if start >= end:
        raise Invalid("it lies before --from; write a later instant", code="bad_time", field="to")
    return Period(start, end)


def summary(found: Sequence[Compared], during: Period) -> dict[str, Any]:
    """Return the sums by currency, and who gains and loses most."""
    now: Counter[str] = Counter()
    then: Counter[str] = Counter()
    for one in found:
        now[one.now.currency] += one.now.minor
        then[one.then.currency] += one.then.minor
    moved = [one for one in found if one.difference.minor]
    return {
        "from": _shown(during.start),
        "to": _shown(during.end),
        "customers": len(found),
        "changed": len(moved),
        "revenue": {
            currency: {
                "now": Money(now[currency], currency).text(),
                "then": Money(then[currency], currency).text(),
                "difference": Money(then[currency] - now[currency], currency).text(),
            }
            for currency in sorted(now)
        },
        "more": [_row(one) for one in largest(moved, up=True)],
        "less": [_row(one) for one in largest(moved, up=False)],
    }


def largest(found: Iterable[Compared], *, up: bool) -> list[Compared]:
    """Return whose bill rises most, or falls most; the customer's key decides between equals."""
    sign = -1 if up else 1
    some = [one for one in found if (one.difference.minor > 0) == up and one.difference.minor]
    return sorted(some, key=lambda one: (sign * one.difference.minor, one.customer))[:SHOWN]


def csv_of(found: Iterable[Compared]) -> str:
    """Return every customer as CSV that no spreadsheet takes for formulas."""
    rows = [_HEADINGS]
    for one in found:
        name = safe_cell(one.customer).replace('"', '""')
        amounts = (one.now.text(), one.then.text(), one.difference.text())
        rows.append(",".join((f'"{name}"', one.now.currency, *amounts)))
    return "\r\n".join(rows) + "\r\n"


def chart_of(found: Sequence[Compared]) -> str:
    """Return the largest differences as bars left and right of a line, as SVG."""
    moved = [one for one in found if one.difference.minor]
    bars = [*largest(moved, up=True), *reversed(largest(moved, up=False))]
    top = max((abs(one.difference.minor) for one in bars), default=1)
    height = _BAR * (len(bars) + 2)
    lines = [
        f'<svg xmlns="{_SVG}" width="{_WIDTH}" height="{height}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<line x1="{_MIDDLE}" y1="4" x2="{_MIDDLE}" y2="{height - 4}" stroke="#888888"/>',
    ]
    for number, one in enumerate(bars):
        lines += _bar(one, (number + 1) * _BAR, top)
    return "\n".join([*lines, "</svg>", ""])


def _bar(one: Compared, y: int, top: int) -> list[str]:
    minor = one.difference.minor
    width = max(1, abs(minor) * _REACH // top)
    x, colour = (_MIDDLE, "#2a7f4f") if minor > 0 else (_MIDDLE - width, "#b03a2e")
    beside = x + width + 6 if minor > 0 else _MIDDLE + 6
    name = "".join(f"&#{ord(c)};" if c in "<>&\"'" else c for c in one.customer[:28])
    amount = f"{one.difference.text()} {one.difference.currency.upper()}"
    return [
        f'<text x="8" y="{y + 12}">{name}</text>',
        f'<rect x="{x}" y="{y + 2}" width="{width}" height="{_BAR - 4}" fill="{colour}"/>',
        f'<text x="{beside}" y="{y + 12}">{amount}</text>',
    ]


def _row(one: Compared) -> dict[str, str]:
    return {
        "customer": one.customer,
        "currency": one.now.currency,
        "now": one.now.text(),
        "then": one.then.text(),
        "difference": one.difference.text(),
    }


def _table(value: dict[str, Any]) -> Table:
    grid = console.table(
        "Customer", "Now", "Then", "Difference", right=("Now", "Then", "Difference")
    )
    for one in [*value["more"], *reversed(value["less"])]:
        grid.add_row(one["customer"], one["now"], one["then"], one["difference"])
    return grid


def _totals(value: dict[str, Any]) -> str:
    sums = [
        f"{currency.upper()} {one['now']} now, {one['then']} then: {one['difference']}"
        for currency, one in value["revenue"].items()
    ]
    who = f"{value['changed']} of {value['customers']} customers would owe something else"
    return "\n".join(["", f"{value['from']} to {value['to']}", *sums, who])


def _shown(instant: datetime) -> str:
    return instant_text(instant)
