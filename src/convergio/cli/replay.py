"""`convergio replay`: feed a usage trace through the real ingest path. Safe to stop and run again.

Everything that can be wrong with the whole (mapping, file, plan, key) is found before the first
row is sent; what is wrong with one row is counted, told and written to a file, and the rest go in.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convergio.catalog import actions as catalog
from convergio.cli import console
from convergio.cli.opening import opened
from convergio.infra.clock import stopwatch
from convergio.infra.settings import Secret
from convergio.kernel.errors import ConvergioError, Invalid
from convergio.kernel.periods import parse_instant, zone
from convergio.simulation import mapping as mappings
from convergio.simulation.mapping import MappingFile
from convergio.simulation.rejects import Rejects
from convergio.simulation.replay import InProcess, Newcomers, Tally, Target, replay
from convergio.simulation.sending import Server, check_url
from convergio.simulation.traces import count_lines, read_rows
from convergio.subscriptions import errors, rules
from convergio.wiring import App

EXAMPLE: Final = (
    "convergio replay usage.csv.gz --mapping usage.toml "
    "--create-customers --plan pro --start 2024-11-01T00:00:00Z"
)
_KEY_SIZE_MAX: Final = 500

app = console.command_app("Feed a usage trace through the real ingest path.", EXAMPLE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked about customers, before the product is open."""

    plan: str
    start: datetime
    time_zone: str


@app.command()
def command(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or text, also gzip.")],
    mapping: Annotated[Path, typer.Option(help="TOML: which column becomes what.")],
    *,
    create_customers: Annotated[
        bool, typer.Option("--create-customers", help="Make customers that do not exist yet.")
    ] = False,
    plan: Annotated[str | None, typer.Option(help="Plan of the new customers.")] = None,
    start: Annotated[str | None, typer.Option(help="Their start, RFC 3339.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of their periods. [UTC]")] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where rejected rows go. [./NAME.rejected.csv]")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Send to the server at this URL.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Variable that holds the API key.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="File that holds the API key.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")] = None,
    as_json: console.Json = False,
) -> None:
    """Count every row of FILE as an event; a row that was counted before is a duplicate."""
    wish = _wish(plan, start, timezone) if create_customers else None
    if wish is None and (plan, start, timezone) != (None, None, None):
        raise Invalid("say --create-customers as well", code="bad_option", field="--plan")
    secret = _secret(to, key, key_file, create=create_customers)
    found = mappings.load(mapping)
    out = _rejects_path(rejects, file, mapping)
    total = count_lines(file) - found.shape.header
    columns, rows = read_rows(file, found.shape)
    to_event = mappings.bind(found, columns)
    tally, began = Tally(), stopwatch()
    with ExitStack() as stack:
        target = stack.enter_context(_target(to, secret, wish, found))
        kept = stack.enter_context(Rejects(out, console.say))
        total = min(total, limit or total)
        advance = stack.enter_context(console.progress("Replaying", total))
        try:
            replay(
                islice(rows, limit),
                to_event,
                target,
                rejects=kept,
                tally=tally,
                start=wish.start if wish else None,
                progress=advance,
            )
        except (ConvergioError, OSError, KeyboardInterrupt):
            console.say(_stopped(tally))
            raise
    value = _value(tally, target, seconds=stopwatch() - began)
    _advise(tally, kept)
    console.emit(value, as_json=as_json, text=_text(value))


def _wish(plan: str | None, start: str | None, timezone: str | None) -> Wish:
    """Return how to make customers. Raises: Invalid naming the option."""
    for option, given in (("--plan", plan), ("--start", start)):
        if given is None:
            detail = "new customers need a plan and a start; add the option"
            raise Invalid(detail, code="missing_option", field=option)
    try:
        zone(timezone or "UTC")
    except Invalid as error:
        raise Invalid(error.detail, code=error.code, field="--timezone") from None
    return Wish(plan or "", parse_instant(start or "", field="--start"), timezone or "UTC")


def _secret(to: str | None, key: str | None, key_file: Path | None, *, create: bool) -> Secret:
    """Return the API key for `--to`. Raises: Invalid naming the option."""
    if to is None:
        if key is not None or key_file is not None:
            raise Invalid("a key is for --to; add it", code="bad_option", field="--key")
        return Secret("")
    check_url(to)
    if create:
        detail = "over HTTP customers cannot be made; make them there first, or leave out --to"
        raise Invalid(detail, code="bad_option", field="--create-customers")
    if (key is None) == (key_file is None):
        detail = "name the variable that holds the API key, or give --key-file (not both)"
        raise Invalid(detail, code="missing_option", field="--key")
    if key_file is not None:
        with key_file.open(encoding="ascii", errors="replace") as file:
            text = file.read(_KEY_SIZE_MAX + 1).strip()
    else:
        text = os.environ.get(key or "", "").strip()
    if not text or len(text) > _KEY_SIZE_MAX or not text.isascii() or not text.isprintable():
        where = "--key-file" if key_file is not None else "--key"
        raise Invalid("there is no API key in it; put one there", code="bad_key", field=where)
    return Secret(text)


def _rejects_path(asked: Path | None, file: Path, mapping: Path) -> Path:
    """Return where rejected rows go. Raises: Invalid when that cannot be written or is an input."""
    path = asked or Path(f"{file.name}.rejected.csv")
    if path.resolve() in {file.resolve(), mapping.resolve()}:
        raise Invalid("it is one of the inputs; name another", code="bad_path", field="--rejects")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        detail = f"cannot write {path}; name a file in a folder that can be written"
        raise Invalid(detail, code="bad_path", field="--rejects")
    return path


@contextmanager
def _target(
    to: str | None, secret: Secret, wish: Wish | None, mapping: MappingFile
) -> Iterator[Target]:
    """Open the server or the product. Raises: Rejected for a type or plan that does not exist."""
    if to is not None:
        with Server(to, secret) as server:
            yield server
        return
    with opened() as product:
        yield InProcess(product, _newcomers(product, wish, mapping))


def _newcomers(product: App, wish: Wish | None, mapping: MappingFile) -> Newcomers | None:
    """Hold the mapping and the plan against the catalog, before anything is stored."""
    with product.database.transaction() as tx:
        sold = catalog.current(tx)
    kept = sold.event_types.get(mapping.event.type)
    if kept is None:
        detail = (
            f"the catalog has no event type '{mapping.event.type}'; see `convergio catalog show`"
        )
        raise Invalid(detail, code="unknown_type", field="event.type")
    for name in sorted(mapping.data.keys() - kept):
        console.say(f"note: data.{name} is not kept, for the catalog does not list it")
    if wish is None:
        return None
    if wish.plan not in sold.plans:
        raise errors.unknown_plan(wish.plan)
    rules.check_start(wish.start, now=product.clock.now())
    return Newcomers(wish.plan, wish.start, wish.time_zone, product.settings.currency)


def _value(tally: Tally, target: Target, *, seconds: float) -> dict[str, Any]:
    sent = tally.accepted + tally.duplicate + tally.conflict + tally.rejected
    return {
        "rows": tally.rows,
        "accepted": tally.accepted,
        "duplicate": tally.duplicate,
        "conflict": tally.conflict,
        "rejected": tally.rejected,
        "unmapped": tally.unmapped,
        "customers_created": target.created if isinstance(target, InProcess) else 0,
        "seconds": round(seconds, 3),
        "events_per_second": round(sent / seconds) if seconds > 0 else 0,
    }


def _text(value: dict[str, Any]) -> str:
    """Return the result as a person reads it."""
    return (
        f"{value['rows']:,} rows: {value['accepted']:,} accepted, "
        f"{value['duplicate']:,} duplicate, {value['conflict']:,} conflict, "
        f"{value['rejected']:,} rejected, {value['unmapped']:,} unmapped; "
        f"{value['customers_created']:,} customers created; "
        f"{value['seconds']} s, {value['events_per_second']:,} events/s"
    )


def _stopped(tally: Tally) -> str:
    if not tally.accepted + tally.duplicate:
        return "stopped: nothing was stored"
    return (
        f"stopped: {tally.accepted} events were accepted and stay ({tally.duplicate} were there "
        "before); mend it and run the same command, which goes on from there"
    )


def _advise(tally: Tally, kept: Rejects) -> None:
    """Say what to do about rows that did not count."""
    if kept.count:
        console.say(f"{kept.count} rows did not count; they are in {kept.path} with the reasons")
    if "unknown_customer" in kept.reasons:
        console.say("to make unknown customers: --create-customers --plan KEY --start INSTANT")
    if tally.before_start:
        console.say(f"note: {tally.before_start} events lie before --start: no plan bills them")
