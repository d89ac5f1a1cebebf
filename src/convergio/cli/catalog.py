"""`convergio catalog`: show what is sold, and compare or replace it with a file.

`plan` and `apply` print the same change; only `apply` keeps it. Neither puts the example catalog
into an empty database first: the file is to be the truth, not a change to something else.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from convergio.catalog import actions, showing
from convergio.catalog.model import Change, Entry, Price, State
from convergio.cli import console
from convergio.cli.opening import done, opened
from convergio.infra.ids import typeid
from convergio.kernel.quantity import quantity_text
from convergio.payments import actions as payments
from convergio.subscriptions import repricing

EXAMPLE: Final = "convergio catalog plan catalog.yaml"
_SHOWN_MAX: Final = 20
SIGNS: Final = {"added": "+", "changed": "~", "removed": "-", "retired": "-", "archived": "-"}

app = console.command_app("Show, plan and apply meters, plans and prices from a file.", EXAMPLE)

File = Annotated[Path, typer.Argument(metavar="FILE|-", help="The catalog file (YAML).")]


@app.command(epilog=f"Example: {EXAMPLE}")
def plan(file: File, as_json: console.Json = False) -> None:
    """Show what `apply` would change, field by field, and change nothing."""
    source = console.read(file)
    with opened(example=False) as product, product.database.transaction() as tx:
        change = actions.plan_change(tx, source)
    emit(change, as_json=as_json)


@app.command(epilog="Example: convergio catalog apply catalog.yaml")
def apply(file: File, as_json: console.Json = False) -> None:
    """Make the catalog what the file says, in one transaction; again, it changes nothing."""
    source = console.read(file)
    change = done(
        lambda product, tx: actions.apply(tx, source, now=product.clock.now()), example=False
    )
    emit(change, as_json=as_json)


@app.command(epilog="Example: convergio catalog show --json")
def show(as_json: console.Json = False) -> None:
    """Show the meters, plans and prices of today."""
    with opened() as product, product.database.transaction() as tx:
        catalog = actions.current(tx)
    grid = console.table("plan", "price", "interval", "meter", "charge", "quota")
    for one in (*catalog.plans.values(), *catalog.archived.values()):
        name = f"{one.name} (archived)" if one.archived else one.name
        for number, price in enumerate(one.prices or (None,)):
            cells = () if price is None else price_cells(price)
            grid.add_row("" if number else name, *cells)
    console.emit(showing.value(catalog), as_json=as_json, text=grid)


@app.command(epilog="Example: convergio catalog migrate pro_fee --to 2 --since 2027-01-01")
def migrate(
    price: Annotated[str, typer.Argument(help="Key of the price.")],
    *,
    to: Annotated[int, typer.Option(min=2, help="The version to go to.")],
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Default: today. In UTC.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Let subscriptions with an older version of a price change to a newer one.

    Each changes when its first period on or after the day begins, so nothing is prorated. Who
    cannot be moved is named.
    """
    with opened() as product, console.progress("Scheduling changes", None) as advance:
        now = product.clock.now()
        moved = repricing.migrate(
            product.database,
            price_key=price,
            version=to,
            since=now if since is None else since.replace(tzinfo=UTC),
            now=now,
            can_pay=payments.payable,
            progress=advance,
        )
    left = {typeid("cus", key): why for key, why in moved.left.items()}
    lines = [f"{moved.changing} will change to {price} v{to}, {len(left)} keep what they have"]
    lines += [f"{key}: {why}" for key, why in list(left.items())[:_SHOWN_MAX]]
    console.emit({"changing": moved.changing, "left": left}, as_json=as_json, text="\n".join(lines))


def emit(change: Change, *, as_json: bool) -> None:
    """Print a change."""
    console.emit(
        showing.change_value(change), as_json=as_json, text="\n".join(change_lines(change))
    )


def change_lines(change: Change) -> Iterator[str]:
    """Yield what a person reads: a line an entry, a line a field, and the sum."""
    for entry in change.entries:
        if entry.state != "unchanged":
            yield f"{SIGNS[entry.state]} {entry.what} {entry.key} ({entry.state})"
            yield from field_lines(entry)
    counts = Counter(entry.state for entry in change.entries)
    words = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    yield f"version {change.version}: {words or 'nothing to do'}"


def field_lines(entry: Entry) -> Iterator[str]:
    """Yield each field, old -> new; of what is removed, nothing more is to be said."""
    for field in entry.fields if entry.state in {"added", "changed"} else ():
        old = f"{field.old} -> " if field.old is not None else ""
        new = field.new if field.new is not None else "(removed)"
        yield "\n      ".join(f"    {field.field}: {old}{new}".split("\n"))


def price_cells(price: Price) -> tuple[str, ...]:
    """Return a price's cells in the table."""
    charge = showing.charge_value(price)
    plain = {k: v for k, v in charge.items() if (k, v) not in {("included", "0"), ("per", "1")}}
    parts = [f"{k} {v}" for k, v in plain.items() if isinstance(v, str) and k != "model"]
    parts += [f"{len(charge['tiers'])} tiers"] if "tiers" in charge else []
    quota = price.quota
    limit = "" if quota is None else f"{quantity_text(quota.limit)}{' hard' if quota.hard else ''}"
    return (
        price.label,
        price.interval.value,
        price.meter_key or "",
        f"{charge['model']} ({', '.join(parts)}) {price.currency}",
        limit,
    )
