"""`convergio catalog`: show what is sold, and compare or replace it with a file.

`plan` and `apply` print the same change; only `apply` keeps it. Neither puts the example catalog
into an empty database first: the file is to be the truth, not a change to something else.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec
import typer

from convergio.catalog import actions
from convergio.catalog.model import Catalog, Change, Entry, Meter, Plan, Price, State
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.infra.ids import typeid
from convergio.infra.strict_yaml import SIZE_MAX_BYTES
from convergio.kernel.quantity import quantity_text

EXAMPLE: Final = "convergio catalog plan catalog.yaml"
SIGNS: Final = {"added": "+", "changed": "~", "removed": "-", "retired": "-", "archived": "-"}

app = console.command_app("Show, plan and apply meters, plans and prices from a file.", EXAMPLE)

File = Annotated[Path, typer.Argument(metavar="FILE|-", help="The catalog file (YAML).")]


@app.command(epilog=f"Example: {EXAMPLE}")
def plan(file: File, as_json: console.Json = False) -> None:
    """Show what `apply` would change, field by field, and change nothing."""
    source = read(file)
    with opened(example=False) as product, product.database.transaction() as tx:
        change = actions.plan_change(tx, source)
    emit(change, as_json=as_json)


@app.command(epilog="Example: convergio catalog apply catalog.yaml")
def apply(file: File, as_json: console.Json = False) -> None:
    """Make the catalog what the file says, in one transaction; again, it changes nothing."""
    source = read(file)
    with opened(example=False) as product, product.database.transaction() as tx:
        change = actions.apply(tx, source, now=product.clock.now())
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
    console.emit(described(catalog), as_json=as_json, text=grid)


def read(file: Path) -> bytes:
    """Return the file's bytes, or standard input's for `-`; at most one more than is accepted."""
    if str(file) == "-":
        return sys.stdin.buffer.read(SIZE_MAX_BYTES + 1)
    with file.open("rb") as source:
        return source.read(SIZE_MAX_BYTES + 1)


def emit(change: Change, *, as_json: bool) -> None:
    """Print a change."""
    value = {
        "version": change.version,
        "changed": not change.is_empty,
        "entries": [asdict(entry) for entry in change.entries],
    }
    console.emit(value, as_json=as_json, text="\n".join(change_lines(change)))


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
    charge = charge_fields(price)
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


def charge_fields(price: Price) -> dict[str, Any]:
    """Return the charge as the file writes it, without what is absent."""
    fields: dict[str, Any] = msgspec.to_builtins(price.charge)
    return {name: value for name, value in fields.items() if value is not None}


def described(catalog: Catalog) -> dict[str, Any]:
    """Return the catalog as JSON, in the words of the file."""
    plans = (*catalog.plans.values(), *catalog.archived.values())
    return {
        "version": catalog.version,
        "events": [
            {"type": event_type, "keep": sorted(names)}
            for event_type, names in catalog.event_types.items()
        ],
        "meters": [described_meter(meter) for meter in catalog.meters.values()],
        "plans": [described_plan(one) for one in plans],
    }


def described_meter(meter: Meter) -> dict[str, Any]:
    """Return a meter as JSON."""
    return {
        "key": meter.key,
        "name": meter.name,
        "event": meter.event_type,
        "aggregation": meter.aggregation,
        "value": meter.value,
        "default": None if meter.default is None else quantity_text(meter.default),
        "where": [asdict(condition) for condition in meter.filters],
    }


def described_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan with the prices that it sells as JSON."""
    return {
        "key": plan.key,
        "name": plan.name,
        "description": plan.description,
        "archived": plan.archived,
        "prices": described_prices(plan.prices),
    }


def described_prices(prices: Iterable[Price]) -> list[dict[str, Any]]:
    """Return prices as JSON."""
    return [
        {
            "id": typeid("price", price.price_id),
            "key": price.key,
            "version": price.version,
            "name": price.name,
            "kind": price.kind,
            "meter": price.meter_key,
            "interval": price.interval.value,
            "currency": price.currency,
            "charge": charge_fields(price),
            "quota": None
            if price.quota is None
            else {"limit": quantity_text(price.quota.limit), "hard": price.quota.hard},
        }
        for price in prices
    ]
