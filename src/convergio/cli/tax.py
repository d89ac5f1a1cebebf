"""`convergio tax`: apply the tax file, ask for a rate, note what was seen of a customer.

Rates of exchange come from a file of the European Central Bank; nothing here asks a network.
"""

import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convergio.cli import catalog, console
from convergio.cli.opening import done, opened
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import day_in, instant_text
from convergio.kernel.quantity import quantity_text
from convergio.rating.taxing import STANDARD, Place, Taxed, Unknown
from convergio.taxes import actions, errors, reference, stating
from convergio.taxes.model import EvidenceKind, NumberCheck, Stored
from convergio.taxes.numbers import OfflineChecker
from convergio.taxes.rules import evidence_value
from convergio.wiring import App

EXAMPLE: Final = "convergio tax apply taxes.yaml"

app = console.command_app("Say what is taxed, where and at which rate.", EXAMPLE)

KeyOrId = Annotated[str, typer.Argument(metavar="KEY|ID", help="The customer's key or cus_... id.")]


@app.command(epilog=f"Example: {EXAMPLE}")
def apply(
    file: catalog.File,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file, keep nothing.")] = (
        False
    ),
    as_json: console.Json = False,
) -> None:
    """Make rates and registrations what the file says; again, it changes nothing."""
    source = console.read(file)
    verb = actions.try_apply if dry_run else actions.apply

    def work(product: App, tx: Tx) -> tuple[Stored, bool]:
        home = product.settings.seller.country
        return verb(tx, source, now=product.clock.now(), home=home)

    stored, is_new = done(work)
    shown = _value(stored) | {"changed": is_new, "dry_run": dry_run}
    words = "would be" if dry_run else "is"
    text = (
        f"version {stored.version} {words} in force: {len(stored.book.registrations)}"
        f" registrations, {len(stored.book.rates)} rates{'' if is_new else '; nothing changed'}"
    )
    console.emit(shown, as_json=as_json, text=text)


@app.command(epilog="Example: convergio tax show --json")
def show(as_json: console.Json = False) -> None:
    """Show where the seller is registered, and every rate."""
    with opened() as product, product.database.transaction() as tx:
        stored = actions.stored(tx)
    if stored is None:
        raise errors.not_configured()
    grid = console.table("country", "region", "category", "percent", "from", "to")
    for rate in stored.book.rates:
        percent = "exempt" if rate.is_exempt else quantity_text(rate.percent)
        until = "" if rate.valid_to is None else rate.valid_to.isoformat()
        since = rate.valid_from.isoformat()
        grid.add_row(rate.country, rate.region, rate.category, percent, since, until)
    console.emit(_value(stored), as_json=as_json, text=grid)


@app.command(epilog="Example: convergio tax rate FR --on 2026-01-31 --verified")
def rate(
    country: Annotated[str, typer.Argument(help="Where the customer is, such as FR.")],
    *,
    region: Annotated[str | None, typer.Option(help="The region there, such as CA.")] = None,
    category: Annotated[str, typer.Option(help="What is sold.")] = STANDARD,
    on: Annotated[str | None, typer.Option(help="The day; default today.")] = None,
    verified: Annotated[bool, typer.Option("--verified", help="Its number is verified.")] = False,
    as_json: console.Json = False,
) -> None:
    """Say how a sale to a place is taxed on a day, as an invoice would be."""
    with opened() as product, product.database.transaction() as tx:
        stored = actions.stored(tx)
        today = day_in(product.clock.now(), product.settings.seller.time_zone)
    if stored is None:
        raise errors.not_configured()
    place = Place(country.upper(), region, is_verified=verified)
    found = stored.book.decide(place, category, today if on is None else _day(on))
    if isinstance(found, Taxed):
        shown: dict[str, Any] = {
            "treatment": found.treatment.value,
            "percent": quantity_text(found.rate),
            "reason": found.reason,
        }
    else:
        shown = {"treatment": "unknown", "percent": None, "reason": found.reason}
    text = f"{shown['treatment']} {shown['percent'] or ''} {shown['reason'] or ''}".rstrip()
    console.emit(shown, as_json=as_json, text=text)


@app.command(
    epilog="Example: convergio tax verify acme --evidence 'VIES 2026-01-31, request WAPIAAAAX1'"
)
def verify(
    customer: KeyOrId,
    *,
    evidence: Annotated[str, typer.Option(help="What you looked at: the register's answer.")],
    as_json: console.Json = False,
) -> None:
    """Note that you saw that a customer's tax number is real and theirs.

    Its form and check digits are looked at as well; a number that cannot be one is not verified.
    """
    check = done(
        lambda product, tx: actions.verify_number(
            tx,
            product.keyring,
            OfflineChecker(),
            customer_id=customers.find(tx, customer).customer_id,
            evidence=evidence,
            now=product.clock.now(),
        )
    )
    shown = _check_value(check)
    words = "verified" if check.is_valid else "not verified: the customer is charged tax"
    console.emit(shown, as_json=as_json, text=f"{words} ({check.checker})")


@app.command(epilog="Example: convergio tax checks acme")
def checks(customer: KeyOrId, as_json: console.Json = False) -> None:
    """Show the checks of a customer's tax number, the newest first."""
    with opened() as product, product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        found = [_check_value(one) for one in actions.checks(tx, customer_id)]
    grid = console.table("checked_at", "valid", "checker", "evidence")
    for one in found:
        grid.add_row(one["checked_at"], str(one["valid"]), one["checker"], one["evidence"])
    console.emit({"checks": found}, as_json=as_json, text=grid)


@app.command(epilog="Example: convergio tax rates eurofxref-hist.csv --since 2024-01-01")
def rates(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="CSV or XML of the ECB.")],
    *,
    since: Annotated[str | None, typer.Option(help="Leave out what is older.")] = None,
    source: Annotated[str, typer.Option(help="Who published it; on documents.")] = stating.SOURCE,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the file's where the stored rate differs.")
    ] = False,
    as_json: console.Json = False,
) -> None:
    """Store rates of exchange: units of a currency for one euro, as the ECB publishes them."""
    content = _content(file)
    first = None if since is None else _day(since, "--since")
    count, new = done(
        lambda product, tx: stating.import_rates(
            tx, content, now=product.clock.now(), name=source, since=first, replace=replace
        )
    )
    shown = {"rates": count, "new": new}
    console.emit(shown, as_json=as_json, text=f"{count} rates, {new} of them new")


@app.command(epilog="Example: convergio tax exchange USD --on 2026-01-31 --json")
def exchange(
    currency: Annotated[str, typer.Argument(help="The currency of a document, such as USD.")],
    *,
    on: Annotated[str | None, typer.Option(help="Its day; default today.")] = None,
    as_json: console.Json = False,
) -> None:
    """Say at which rate the tax of a document would be stated in your own currency."""
    with opened() as product, product.database.transaction() as tx:
        stored = actions.stored(tx)
        today = day_in(product.clock.now(), product.settings.seller.time_zone)
        if stored is None or stored.currency is None:
            raise errors.no_own_currency()
        day = today if on is None else _day(on)
        code = currency.lower()
        found = stating.exchanges(tx, stored.currency, [code], day)[code]
    shown: dict[str, Any] = {"from": code, "to": stored.currency, "on": day.isoformat()}
    if isinstance(found, Unknown):
        console.emit(shown | {"reason": found.reason}, as_json=as_json, text=found.reason)
        return
    shown |= {
        "published": found.day.isoformat(),
        "rate": quantity_text(found.foreign_rate),
        "own_rate": quantity_text(found.home_rate),
        "source": found.source,
    }
    text = f"1 EUR = {shown['rate']} {code.upper()}"
    if stored.currency != reference.EURO:
        text += f" = {shown['own_rate']} {stored.currency.upper()}"
    console.emit(shown, as_json=as_json, text=f"{text} ({found.source}, {found.day.isoformat()})")


@app.command(epilog="Example: convergio tax locate acme --kind card --country FR")
def locate(
    customer: KeyOrId,
    *,
    kind: Annotated[EvidenceKind, typer.Option(help="What says so.")],
    country: Annotated[str, typer.Option(help="Which country it says, such as FR.")],
    note: Annotated[str | None, typer.Option(help="What was looked at.")] = None,
    as_json: console.Json = False,
) -> None:
    """Note what says where a customer is, beside the account; the last of a kind counts."""
    seen = done(
        lambda product, tx: actions.locate(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            kind=kind,
            country=country,
            note=note,
            now=product.clock.now(),
        )
    )
    console.emit(evidence_value(seen), as_json=as_json, text=f"{seen.kind} says {seen.country}")


@app.command(epilog="Example: convergio tax evidence acme --json")
def evidence(customer: KeyOrId, as_json: console.Json = False) -> None:
    """Show what says where a customer is."""
    with opened() as product, product.database.transaction() as tx:
        account = customers.find(tx, customer)
        found = actions.evidence_of(tx, [account.customer_id]).get(account.customer_id, [])
    shown = [evidence_value(one) for one in found]
    grid = console.table("kind", "country", "seen_at", "note")
    grid.add_row("account", account.country or "", "", "")
    for one in shown:
        grid.add_row(one["kind"], one["country"], one["seen_at"], one["note"] or "")
    value = {"country": account.country, "evidence": shown}
    console.emit(value, as_json=as_json, text=grid)


def _content(file: Path) -> bytes:
    """Return the bytes of a file or of standard input; at most one more than is accepted."""
    if str(file) == "-":
        return sys.stdin.buffer.read(reference.SIZE_MAX_BYTES + 1)
    with file.open("rb") as source:
        return source.read(reference.SIZE_MAX_BYTES + 1)


def _day(text: str, field: str = "--on") -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        detail = "write a day such as 2026-01-31"
        raise Invalid(detail, code="bad_day", field=field) from None


def _value(stored: Stored) -> dict[str, Any]:
    book = stored.book
    return {
        "version": stored.version,
        "seller": book.seller_country,
        "one_stop_shop": book.one_stop_shop,
        "currency": stored.currency,
        "fatturapa": stored.fatturapa,
        "location_evidence": book.evidence_min,
        "registrations": [
            {"country": one.country, "region": one.region or None, **_days(one)}
            for one in book.registrations
        ],
        "rates": [
            {
                "country": one.country,
                "region": one.region or None,
                "category": one.category,
                "percent": None if one.is_exempt else quantity_text(one.percent),
                "exempt": one.is_exempt,
                "reason": one.reason,
                **_days(one),
            }
            for one in book.rates
        ],
    }


def _days(one: Any) -> dict[str, str | None]:  # noqa: ANN401 - a rate or a registration
    until = one.valid_to
    return {"from": one.valid_from.isoformat(), "to": None if until is None else until.isoformat()}


def _check_value(check: NumberCheck) -> dict[str, Any]:
    return {
        "customer": typeid("cus", check.customer_id),
        "country": check.country,
        "valid": check.is_valid,
        "checker": check.checker,
        "evidence": check.evidence,
        "checked_at": instant_text(check.checked_at),
    }
