"""`convergio demo`: three months of a small AI business in half a minute, and its books.

The business lives in a database of its own, beside the configured one, which is made anew at each
start and stays afterwards to be looked at. All that it does goes through the product's own rooms,
and all that the summary says is read back from them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
import typer
from babel.numbers import format_currency
from rich.table import Table

from convergio.billing import actions as billing
from convergio.billing.rendering import Format
from convergio.cli import console, opening
from convergio.cli import invoice as invoices
from convergio.cli.verify import CHECKS
from convergio.infra.clock import VirtualClock, stopwatch
from convergio.infra.scratch import SUFFIX, scratch
from convergio.infra.settings import Settings
from convergio.kernel.errors import Difference
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.simulation import books
from convergio.simulation.people import PLANS
from convergio.simulation.world import CURRENCY, Tally, World
from convergio.wiring import App, dsn, opened

EXAMPLE: Final = "convergio demo --customers 100 --seed 42"
SEED: Final = 7
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SERIES: Final = "DEMO"
_PAYMENTS: Final = {
    "succeeded": "Charges succeeded",
    "declined": "Charges declined",
    "requires_action": "Charges to confirm",
    "unknown": "Charges without answer",
}
_MONEY: Final = {
    "billed": "Billed",
    "collected": "Collected",
    "fees": "  of it gateway fees",
    "receivable": "Still open",
}
_SHOWN_MAX: Final = 5
_GAP: Final = 4

app = console.command_app("Live a small AI business and show its books.", EXAMPLE)


@app.command()
def command(
    *,
    seed: Annotated[int, typer.Option(help="The same seed lives the same life.")] = SEED,
    customers: Annotated[int, typer.Option(min=1, max=5_000, help="How many sign up.")] = 300,
    months: Annotated[int, typer.Option(min=1, max=24, help="How long they live.")] = 3,
    as_json: console.Json = False,
) -> None:
    """Live some months of a small AI business under a virtual clock, and show its books.

    People sign up, ask, hit their limit, pay or fail to, and leave. It has a database of its own,
    <database>_demo, which is dropped and made anew each time. Exits with 1 when the books do not
    reconcile.
    """
    begun = stopwatch()
    settings = opening.settings()
    during = Period(START, Calendar(START, "UTC", Interval.MONTH).boundary(months))
    clock = VirtualClock(during.start)
    with scratch(dsn(settings)) as url, opened(_renamed(settings), clock=clock, url=url) as product:
        world = World(product, clock, seed=seed, size=customers, during=during)
        with console.progress(f"Living {months} months, day", world.days) as advance:
            tally = world.live(advance)
        value: dict[str, Any] = {
            "seed": seed,
            "from": _day(during.start),
            "until": _day(during.end),
        }
        value |= summary(product, tally) | {"seconds": round(stopwatch() - begun, 1)}
    if as_json:
        console.emit(value, as_json=True)
    else:
        show(value)
        print(_look_around(url, embedded=settings.database_url is None))
    if not value["reconciles"]:
        console.say(f"convergio: {(value['differences'] + value['problems'])[0]} [difference]")
        raise typer.Exit(1)


def _renamed(settings: Settings) -> Settings:
    """Return the settings with a series of its own, so that no demo invoice is taken for real."""
    seller = msgspec.structs.replace(settings.seller, series=SERIES)
    return msgspec.structs.replace(settings, seller=seller)


def summary(product: App, tally: Tally) -> dict[str, Any]:
    """Return the books, the checks and two invoices, as JSON shows them."""
    now = product.clock.now()
    with product.database.snapshot() as tx:
        read = books.read(tx, currency=CURRENCY, now=now)
        checks = {name: check(tx) for name, check in CHECKS.items()}
        telling = books.telling_invoices(tx, plan="pro", now=now)
        shown = {locale: billing.read(tx, product.keyring, one) for locale, one in telling.items()}
    documents = {
        locale: str(invoices.write(product, one, Format.PDF)) for locale, one in shown.items()
    }
    problems, differences = tally.problems, _texts(checks)
    return {
        "customers": {
            "signed_up": tally.moves["signed_up"],
            "plans": {plan: read.plans.get(plan, 0) for plan in PLANS},
            "canceled": read.canceled,
            "upgraded": tally.moves["upgraded"],
        },
        "events": {
            "accepted": tally.verdicts["accepted"] + tally.settled["committed"],
            "duplicate": tally.verdicts["duplicate"],
            "conflict": tally.verdicts["conflict"],
            "rejected": tally.verdicts["rejected"],
        },
        "quota": {
            "allowed": tally.decisions["allowed"],
            "denied": {
                str(name): count for name, count in sorted(tally.decisions.items())
                if name != "allowed"
            },
            **{name: tally.settled[name] for name in ("committed", "released", "expired")},
        },
        "invoices": {
            "issued": sum(read.invoices.values()),
            **{name: read.invoices.get(name, 0) for name in ("paid", "open")},
        },
        "payments": {
            name: tally.payments[name]
            for name in ("succeeded", "declined", "requires_action", "unknown")
        },
        "currency": CURRENCY,
        "billed": read.billed.text(),
        "collected": read.collected.text(),
        "fees": read.fees.text(),
        "receivable": read.receivable.text(),
        "checks": {name: len(found) for name, found in checks.items()},
        "reconciles": not differences and not problems,
        "differences": differences,
        "problems": problems,
        "documents": documents,
    }  # fmt: skip


def _texts(checks: Mapping[str, list[Difference]]) -> list[str]:
    return [str(one) for found in checks.values() for one in found]


def show(value: Mapping[str, Any]) -> None:
    """Print the books for a person."""
    print(
        f"\nA small AI business from {value['from']} to {value['until']},"
        f" lived in {value['seconds']} s (seed {value['seed']})\n"
    )
    console.emit(None, as_json=False, text=overview(value))
    print("\nDo the books reconcile?")
    for name, count in value["checks"].items():
        print(f"  {f'FAIL {count}' if count else 'ok'}  {name}")
    for line in (value["differences"] + value["problems"])[:_SHOWN_MAX]:
        print(f"  FAIL  {line}")
    print("\nTwo of the invoices" if len(value["documents"]) > 1 else "\nOne of the invoices")
    for locale, path in sorted(value["documents"].items()):
        print(f"  {locale}  {path}")


def overview(value: Mapping[str, Any]) -> Table:
    """Return customers, usage and money side by side."""
    people, quota = value["customers"], value["quota"]
    customers = {"Signed up": people["signed_up"]}
    customers |= {plan.capitalize(): count for plan, count in people["plans"].items()}
    customers |= {"Canceled": people["canceled"], "Upgraded to Pro": people["upgraded"]}
    usage = {f"Events {name}": count for name, count in value["events"].items()}
    usage |= {"Sessions allowed": quota["allowed"]}
    usage |= {f"Denied: {name.replace('_', ' ')}": n for name, n in quota["denied"].items()}
    papers = {f"Invoices {name}": count for name, count in value["invoices"].items()}
    papers |= {title: value["payments"][name] for name, title in _PAYMENTS.items()}
    money = {title: _money(value[name], value["currency"]) for name, title in _MONEY.items()}
    grid = Table.grid(padding=(0, _GAP))
    grid.add_row(
        _column("Customers", _counts(customers)),
        _column("Usage", _counts(usage)),
        _column("Money", _counts(papers) | money),
    )
    return grid


def _column(title: str, rows: Mapping[str, str]) -> Table:
    table = console.table(title, "", right=("",))
    for name, shown in rows.items():
        table.add_row(name, shown)
    return table


def _counts(rows: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{count:,}" for name, count in rows.items()}


def _money(text: str, currency: str) -> str:
    return format_currency(Decimal(text), currency.upper(), locale="en_US")


def _day(instant: datetime) -> str:
    return instant.date().isoformat()


def _look_around(url: str, *, embedded: bool) -> str:
    """Say how to look around; a connection string that may hold a password is not repeated."""
    where = f"DATABASE_URL='{url}'" if embedded else f"DATABASE_URL=...{SUFFIX}"
    return f"\nLook around: {where} convergio invoice list --status open"
