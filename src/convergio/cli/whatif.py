"""`convergio whatif`: see a price change before it is made.

Reads one snapshot of the live database and writes nothing there; what it finds goes to the table,
to JSON, to a CSV file and to a chart.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
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
_SUMS: Final = ("now", "then", "now_tax", "then_tax", "billed", "billed_tax")
_HEADINGS: Final = ("customer", "currency", *_SUMS, "difference", "corrected_by_hand", "problem")
_KEPT: Final = 1_000

app = console.command_app("See what customers would owe under another catalog.", EXAMPLE)


@app.command()
def command(
    catalog: Annotated[Path, typer.Argument(metavar="FILE|-", help="The other catalog's file.")],
    *,
    since: Annotated[
        str, typer.Option("--from", help="First instant, such as 2025-01-01T00:00:00Z.")
    ],
    until: Annotated[str, typer.Option("--to", help="The instant after the last one.")],
    csv: Annotated[Path | None, typer.Option(help="Write every customer to this file.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the largest differences, SVG.")] = None,
    as_json: console.Json = False,
) -> None:
    """Bill the real history of every customer again, and say who would pay more and who less.

    With the coupons, credit, agreed prices and taxes that applied. Nothing is changed in the
    database.
    """
    during = _during(since, until)
    source, found = console.read(catalog), Summary(during)
    with ExitStack() as stack:
        rows = None if csv is None else stack.enter_context(csv.open("w", encoding="utf-8"))
        product = stack.enter_context(opened())
        tx = stack.enter_context(product.database.snapshot())
        total = subscriptions.count_billable(tx)
        advance = stack.enter_context(console.progress("Billing again, customer", total))
        if rows is not None:
            rows.write(csv_row(*_HEADINGS))
        for one in whatif.compared(tx, product.keyring, source, during=during, progress=advance):
            found.add(one)
            if rows is not None:
                rows.write(csv_of(one))
    if chart is not None:
        chart.write_text(chart_of(found.bars()), encoding="utf-8")
    value = found.value()
    console.emit(value, as_json=as_json, text=_table(value))
    if not as_json:
        print(_totals(value))


def _during(since: str, until: str) -> Period:
    start, end = parse_instant(since, field="from"), parse_instant(until, field="to")
    if start >= end:
        raise Invalid("it lies before --from; write a later instant", code="bad_time", field="to")
    return Period(start, end)


class Summary:
    """Sums by currency, and who gains and loses most: no more than it shows is kept."""

    def __init__(self, during: Period) -> None:
        """Begin with nothing."""
        self._during = during
        self._sums: dict[str, Counter[str]] = {}
        self._counts: Counter[str] = Counter()
        self._more: list[Compared] = []
        self._less: list[Compared] = []
        self._problems: list[dict[str, str]] = []

    def add(self, one: Compared) -> None:
        """Count one customer."""
        self._counts["customers"] += 1
        if one.problem is not None:
            self._counts["left_out"] += 1
            if len(self._problems) < SHOWN:
                self._problems.append({"customer": one.customer, "reason": one.problem})
            return
        sums = self._sums.setdefault(one.now.currency, Counter())
        for name in _SUMS:
            sums[name] += getattr(one, name).minor
        self._counts["by_hand"] += one.by_hand
        self._counts["unlike_billed"] += not one.is_as_billed
        if one.difference.minor:
            self._counts["changed"] += 1
            kept = self._more if one.difference.minor > 0 else self._less
            kept.append(one)
            if len(kept) > _KEPT:
                kept[:] = _largest(kept)

    def bars(self) -> list[Compared]:
        """Return whose bill rises most, the most first, down to whose falls most."""
        return [*_largest(self._more), *reversed(_largest(self._less))]

    def value(self) -> dict[str, Any]:
        """Return it all as JSON takes it."""
        return {
            "from": instant_text(self._during.start),
            "to": instant_text(self._during.end),
            "customers": self._counts["customers"],
            "changed": self._counts["changed"],
            "revenue": {
                currency: _amounts(sums, currency) for currency, sums in sorted(self._sums.items())
            },
            "more": [_row(one) for one in _largest(self._more)],
            "less": [_row(one) for one in _largest(self._less)],
            "corrected_by_hand": self._counts["by_hand"],
            "unlike_billed": self._counts["unlike_billed"],
            "left_out": self._counts["left_out"],
            "problems": self._problems,
        }


def _amounts(sums: Counter[str], currency: str) -> dict[str, str]:
    found = {name: Money(sums[name], currency).text() for name in _SUMS}
    return found | {"difference": Money(sums["then"] - sums["now"], currency).text()}


def _largest(found: Iterable[Compared]) -> list[Compared]:
    """Return who moves most; the customer's key decides between equals."""
    return sorted(found, key=lambda one: (-abs(one.difference.minor), one.customer))[:SHOWN]


def csv_row(*values: str) -> str:
    """Return a line of CSV that no spreadsheet takes for formulas."""
    return ",".join('"' + safe_cell(one).replace('"', '""') + '"' for one in values) + "\r\n"


def csv_of(one: Compared) -> str:
    """Return a customer as a line of CSV; amounts are numbers, so that they add up there."""
    names = csv_row(one.customer, one.now.currency).rstrip("\r\n")
    amounts = [getattr(one, name).text() for name in _SUMS] + [one.difference.text()]
    notes = csv_row("yes" if one.by_hand else "", one.problem or "")
    return ",".join((names, *amounts, notes))


def chart_of(bars: Sequence[Compared]) -> str:
    """Return the largest differences as bars left and right of a line, as SVG."""
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
    lines = ["", f"{value['from']} to {value['to']}, after discounts, without tax"]
    lines += [
        f"{currency.upper()} {one['now']} now, {one['then']} then: {one['difference']}"
        f" (tax {one['now_tax']} and {one['then_tax']}; billed {one['billed']},"
        f" tax {one['billed_tax']})"
        for currency, one in value["revenue"].items()
    ]
    lines.append(
        f"{value['changed']} of {value['customers']} customers would be billed another sum"
    )
    if value["unlike_billed"]:
        lines.append(
            f"{value['unlike_billed']} were billed other than `now` says:"
            f" {value['corrected_by_hand']} were corrected by hand"
        )
    if value["left_out"]:
        lines.append(f"{value['left_out']} cannot be billed and are left out:")
        lines += [f"  {one['customer']}: {one['reason']}" for one in value["problems"]]
    return "\n".join(lines)
