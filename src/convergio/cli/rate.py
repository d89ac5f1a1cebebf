"""`convergio rate`: rate one charge, or an array of them, offline.

The input is JSON from a file or standard input. Its numbers are decimal text; whole JSON numbers
are exact and are taken as such, any other JSON number has been through a float somewhere and is
refused. All is read before anything is printed: an error leaves standard output empty.
"""

import json
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from convergio.cli import console
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money, exponent
from convergio.kernel.periods import Period, parse_instant
from convergio.kernel.quantity import parse_quantity, quantity_text
from convergio.rating import Charge, Rated, proration, rate
from convergio.rating.model import MODELS, Flat

EXAMPLE: Final = (
    """echo '{"currency":"usd","charge":{"model":"flat","amount":"6.99"}}' | convergio rate -"""
)
_PATH: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?): (.*)", re.DOTALL)
_KINDS: Final = re.compile(r"Expected `(.*?)`.*, got (?:`(\w+)`|\d+)")
_NAMES: Final = {"bool": "true or false", "array": "an array", "object": "an object"}

app = console.command_app("Rate one charge, or an array of charges, offline.", EXAMPLE)


class NotExact:
    """A JSON number with a fraction or an exponent, NaN or Infinity: no field takes it."""


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the full period was served, as RFC 3339 instants."""

    full: tuple[str, str]
    service: tuple[str, str]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One charge to rate: `billed` is what its invoice lines have already asked for."""

    currency: str
    charge: Charge
    quantity: str | None = None
    proration: Service | None = None
    billed: str | None = None


@app.command()
def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON file, or - for stdin.")],
    as_json: console.Json = True,
) -> None:
    """Rate one charge, or an array of charges, offline; the output is always JSON."""
    source = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    console.emit(rated_text(source), as_json=as_json)


def rated_text(source: bytes) -> Any:  # noqa: ANN401 - a JSON object, or an array for an array
    """Rate what the JSON text asks for. Raises: Invalid naming the field, in an array the item."""
    asked = _read(source)
    if isinstance(asked, list):
        return [answer(item, f"[{place}]") for place, item in enumerate(asked)]
    return answer(asked)


def answer(asked: object, where: str = "") -> dict[str, Any]:
    """Rate one request; `where` leads to it. Raises: Invalid naming the field and the mend."""
    try:
        request = msgspec.convert(asked, Request)
        currency = request.currency.lower()
        exponent(currency)
        share = None if request.proration is None else _share(request.proration)
        quantity = _quantity(request)
        rated = rate(request.charge, quantity, currency=currency, proration=share)
        billed = None
        if request.billed is not None:
            billed = Money.parse(request.billed, currency, field="billed")
    except msgspec.ValidationError as error:
        raise _told(str(error), where) from None
    except Invalid as error:
        raise Invalid(
            error.detail, code=error.code, field=_join(where, error.field or "")
        ) from None
    return _shown(rated, billed)


def _read(source: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON without floats. Raises: Invalid."""
    try:
        text = source.decode("utf-8-sig")
        return json.loads(
            text,
            parse_float=lambda _: NotExact(),
            parse_int=str,
            parse_constant=lambda _: NotExact(),
            object_pairs_hook=_object,
        )
    except RecursionError:
        reason = "it is nested too deeply"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}"
    raise Invalid(f"the input is not JSON ({reason}); see `convergio rate --help`", code="bad_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises: Invalid for a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        detail = f"'{twice[:40]}' stands twice in one object; keep one"
        raise Invalid(detail, code="bad_json")
    return found


def _quantity(request: Request) -> Decimal:
    """Return the quantity; a flat fee needs none."""
    if request.quantity is not None:
        return parse_quantity(request.quantity)
    if isinstance(request.charge, Flat):
        return Decimal(1)
    raise Invalid('write how much was used, as text such as "22"', field="quantity")


def _share(asked: Service) -> Fraction:
    """Return the share of the period that was served. Raises: Invalid naming full or service."""
    try:
        return proration(_period(asked.full, "full"), _period(asked.service, "service"))
    except Invalid as error:
        field = f"proration.{error.field}"
        raise Invalid(error.detail, code=error.code, field=field) from None


def _period(ends: tuple[str, str], field: str) -> Period:
    start, end = (parse_instant(end, field=f"{field}[{place}]") for place, end in enumerate(ends))
    if start > end:
        raise Invalid("it ends before it starts; write the start first", field=field)
    return Period(start, end)


def _told(message: str, where: str) -> Invalid:
    """Say msgspec's message in our words: the field first, then the mend."""
    found = _PATH.fullmatch(message)
    what, path = (found["what"], found["path"] or "") if found else (message, "")
    named = _FIELD.fullmatch(what)
    if named:
        what, path = named[2], _join(path, named[1])
    elif unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        what, path = "unknown field; remove it or mend its name", _join(path, unknown[1][:40])
    elif missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        path = _join(path, missing[1])
        what = f"write one of {MODELS}" if missing[1] == "model" else "it is missing; write it"
    elif path.endswith("model"):
        what = f"write one of {MODELS}"
    elif kinds := _KINDS.fullmatch(what):
        what = _mend(kinds[1].removesuffix(" | null"), kinds[2])
    return Invalid(what, code="bad_charge", field=_join(where, path))


def _mend(wanted: str, got: str | None) -> str:
    """Say what to write where a JSON value has the wrong kind."""
    if not got:
        return "write two instants, the start and the end"
    if wanted in {"array", "object"}:
        return f"write an {wanted} here"
    if got == NotExact.__name__:
        return 'write the number as text, such as "0.01"; a JSON number may have lost digits'
    return f'write text, such as "0.01", not {_NAMES.get(got, got)}'


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path and field and field[0] != "[" else path + field


def _shown(rated: Rated, billed: Money | None) -> dict[str, Any]:
    """Return the answer; with `billed`, the total is the difference that a run would bill."""
    lines: list[dict[str, str]] = []
    for line in rated.lines:
        shown = {
            "description": line.description,
            "quantity": quantity_text(line.quantity),
            "unit": quantity_text(line.unit),
            "amount": line.amount.text(),
        }
        lines.append(shown if line.per == 1 else {**shown, "per": quantity_text(line.per)})
    total = rated.total
    if billed is not None:
        total -= billed
        credit = (-billed).text()
        lines.append(
            {"description": "Already billed", "quantity": "1", "unit": credit, "amount": credit}
        )
    return {"total": total.text(), "lines": lines}
