"""The mapping file: which column of a trace becomes which part of an event.

`docs/howto/replay.md` shows it. Reading it refuses every key that it does not know, and `bind`
refuses a column that the file does not have, both by name; after that a row either becomes an
event or raises `Unmappable` with the reason. Numbers stay decimal text throughout: no float.
"""

import re
import textwrap
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from convergio.customers.rules import is_key
from convergio.kernel.errors import ConvergioError, Invalid
from convergio.kernel.periods import zone
from convergio.kernel.quantity import quantity_text
from convergio.metering.model import ID_SIZE_MAX, Event
from convergio.simulation import instants
from convergio.simulation.traces import Fields, Row, Shape

SIZE_MAX: Final = 1024 * 1024
_WHERE: Final = re.compile(r" - at `\$\.?(?:\[\.\.\.\]\.?)?([^`]*)`")
_WHOLE: Final = re.compile(r"(?:0|[1-9][0-9]{0,17})", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII
)
_INTEGER_MAX: Final = 10**40
_MISSING: Final = object()

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_SIZE_MAX)]
Read = Callable[[Fields], str | None]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[source]`: the CloudEvents source of every event, and the layout of the file."""

    name: Name
    format: Literal["csv", "tsv", "ssv", "jsonl", "pattern"]
    header: bool | None = None
    columns: tuple[Name, ...] = ()
    pattern: Name | None = None


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{column = "..."}`."""

    column: Name


class Time(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`event.time`: when it happened, and how the file writes that."""

    column: Name
    format: Name
    zone: Name = "UTC"
    origin: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`event.customer`: the customer's key, from a column or the same for every row."""

    column: Name | None = None
    constant: Name | None = None


class EventPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[event]`: the attributes of every event."""

    type: Name
    time: Time
    customer: Customer
    id: Literal["row"] | Column = "row"


class Property(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[data.NAME]`: a property of the event, left out where the value is one of `empty`.

    `optional` says that a JSON line may lack the name; otherwise such a line is refused, so that a
    misspelt one cannot count as the meter's default.
    """

    column: Name | None = None
    constant: str | None = None
    map: dict[str, str] | None = None
    number: bool = False
    empty: tuple[str, ...] = ("",)
    optional: bool = False


class MappingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole mapping file."""

    source: Source
    event: EventPart
    data: dict[Name, Property] = {}

    @property
    def shape(self) -> Shape:
        """How the trace is laid out."""
        source = self.source
        tabular = source.format in {"csv", "tsv", "ssv"}
        header = tabular and (not source.columns if source.header is None else source.header)
        return Shape(source.format, header, source.columns, source.pattern)


class Unmappable(Exception):
    """A row that cannot become an event: the reason as a stable word, the field, the sentence."""

    def __init__(self, reason: str, field: str, detail: str) -> None:
        """Keep what the reject file says."""
        super().__init__(detail)
        self.reason = reason
        self.field = field
        self.detail = detail


def load(path: Path) -> MappingFile:
    """Read a mapping file. Raises: Invalid naming the file or the key, and the mend."""
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX + 1)
        if len(raw) > SIZE_MAX:
            detail = f"a mapping file has at most {SIZE_MAX} bytes; is this the trace?"
            raise Invalid(detail, code="bad_mapping", field=name)
        values = tomllib.loads(raw.decode(), parse_float=Decimal)
    except OSError as error:
        detail = f"cannot read it: {error.strerror}; check the name"
        raise Invalid(detail, code="no_file", field=name) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        detail = f"it is not TOML: {error}; mend that place"
        raise Invalid(detail, code="bad_mapping", field=name) from None
    try:
        mapping = msgspec.convert(values, MappingFile)
    except msgspec.ValidationError as error:
        found = _WHERE.search(str(error))
        where = found[1] if found and found[1] else name
        detail = f"{_WHERE.sub('', str(error))}; see docs/howto/replay.md"
        raise Invalid(detail, code="bad_mapping", field=where) from None
    _check(mapping)
    return mapping


def bind(mapping: MappingFile, columns: tuple[str, ...]) -> Callable[[Row], Event]:
    """Return the function that makes an event of a row, or raises Unmappable.

    Raises: Invalid for a column that the file does not have.
    """
    event = mapping.event
    places = None if mapping.shape.named else {name: at for at, name in enumerate(columns)}
    time = _time(event.time, _value(event.time.column, places, "event.time.column"))
    customer = _customer(event.customer, places)
    id_column = event.id.column if isinstance(event.id, Column) else None
    own_id = None if id_column is None else _value(id_column, places, "event.id.column")
    data = [(name, _property(name, part, places)) for name, part in mapping.data.items()]
    source, type_ = mapping.source.name, event.type

    def made(row: Row) -> Event:
        if row.problem is not None:
            raise Unmappable("bad_row", "", row.problem)
        fields = row.fields
        event_id = f"row-{row.number}" if own_id is None else own_id(fields)
        if not event_id:
            raise Unmappable("no_id", "event.id", f"the column '{id_column}' is empty")
        values = {}
        for name, read in data:
            value = read(fields)
            if value is not None:
                values[name] = value
        return Event(
            id=event_id,
            source=source,
            type=type_,
            subject=customer(fields),
            time=time(fields),
            data=values,
        )

    return made


def _check(mapping: MappingFile) -> None:
    """Refuse what the types cannot. Raises: Invalid naming the key."""
    source, time, customer = mapping.source, mapping.event.time, mapping.event.customer
    _check_layout(source, mapping.shape)
    for key, text in (("source.name", source.name), ("event.type", mapping.event.type)):
        if not text.isprintable():
            raise _bad(key, "write printable characters only")
    if not instants.is_format(time.format):
        words = ", ".join(instants.WORDS)
        detail = f"write one of {words}, or a pattern with the whole date as %Y-%m-%d %H:%M:%S"
        raise _bad("event.time.format", detail)
    if (time.format == "relative_ms") != (time.origin is not None):
        detail = "relative_ms, and nothing else, needs an instant that it counts from"
        raise _bad("event.time.origin", detail)
    try:
        zone(time.zone)
    except Invalid as error:
        raise _bad("event.time.zone", error.detail) from None
    if (customer.column is None) == (customer.constant is None):
        raise _bad("event.customer", "give it a column or a constant, and not both")
    if customer.constant is not None and not is_key(customer.constant):
        raise _bad("event.customer.constant", "no customer can have this key")
    for name, part in mapping.data.items():
        if (part.column is None) == (part.constant is None):
            raise _bad(f"data.{name}", "give it a column or a constant, and not both")


def _check_layout(source: Source, shape: Shape) -> None:
    tabular = source.format in {"csv", "tsv", "ssv"}
    if not tabular and (source.header is not None or source.columns):
        key = "source.columns" if source.columns else "source.header"
        raise _bad(key, f"leave it out: {source.format} names its own columns")
    if shape.header and source.columns:
        raise _bad("source.columns", "leave it out, or say header = false")
    if tabular and not shape.header and not source.columns:
        raise _bad("source.columns", "name the columns in order, for the file does not")
    if len(set(source.columns)) < len(source.columns):
        raise _bad("source.columns", "a name is there twice")
    if (source.format == "pattern") != (source.pattern is not None):
        raise _bad("source.pattern", "the format pattern, and no other, needs one")
    if source.pattern is not None:
        try:
            named = re.compile(source.pattern).groupindex
        except re.error as error:
            raise _bad("source.pattern", f"it is not a regular expression: {error}") from None
        if not named:
            raise _bad("source.pattern", "name at least one part, as in (?P<time>...)")


def _bad(key: str, detail: str) -> Invalid:
    return Invalid(detail, code="bad_mapping", field=key)


def _value(
    column: str, places: Mapping[str, int] | None, key: str, *, optional: bool = False
) -> Read:
    """Return the reader of a column as text. Raises: Invalid for a column that is not there."""
    if places is None:
        return _member(column, key, optional=optional)
    place = places.get(column)
    if place is None:
        known = textwrap.shorten(", ".join(places), 200, placeholder=" ...")
        detail = f"the file has no column '{column}'; it has {known or 'none'}"
        raise Invalid(detail, code="missing_column", field=key)
    return lambda fields: fields[place]  # type: ignore[index] # a row of places, not of names


def _member(column: str, key: str, *, optional: bool) -> Read:
    """Return the reader of a name in a JSON object: scalars as text, numbers digit for digit."""

    def found(fields: Fields) -> str | None:
        value = fields.get(column, _MISSING)  # type: ignore[union-attr] # a row of names
        if value is None or type(value) is str:
            return value
        if value is _MISSING:
            if optional:
                return None
            raise Unmappable("missing_column", key, f"the line has no '{column}'")
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) < _INTEGER_MAX):
            return str(value)
        detail = f"'{column}' is not text, true, false or a number of at most 40 digits"
        raise Unmappable("not_a_value", key, detail)

    return found


def _time(part: Time, read: Read) -> Callable[[Fields], datetime]:
    parse = instants.reader(part.format, zone(part.zone), part.origin)

    def found(fields: Fields) -> datetime:
        text = read(fields)
        if not text:
            raise Unmappable("no_time", "event.time", f"the column '{part.column}' is empty")
        try:
            return parse(text)
        except (ValueError, OverflowError, ConvergioError):
            detail = f"the column '{part.column}' is not a time as {part.format}"
            raise Unmappable("bad_time", "event.time", detail) from None

    return found


def _customer(part: Customer, places: Mapping[str, int] | None) -> Callable[[Fields], str]:
    if part.constant is not None:
        constant = part.constant
        return lambda _: constant
    read = _value(part.column or "", places, "event.customer.column")
    possible = lru_cache(maxsize=65_536)(is_key)

    def found(fields: Fields) -> str:
        key = read(fields)
        if not key or not possible(key):
            detail = f"the column '{part.column}' is empty or cannot be a customer's key"
            raise Unmappable("bad_customer", "event.customer", detail)
        return key

    return found


def _property(name: str, part: Property, places: Mapping[str, int] | None) -> Read:
    if part.column is None:
        constant = part.constant
        read: Read = lambda _: constant  # noqa: E731 - as short as the other readers
    else:
        read = _value(part.column, places, f"data.{name}.column", optional=part.optional)
    key, absent, map_, number = f"data.{name}", frozenset(part.empty), part.map, part.number

    def found(fields: Fields) -> str | None:
        text = read(fields)
        if text is None or text in absent:
            return None
        if map_ is not None:
            mapped = map_.get(text)
            if mapped is None:
                detail = f"the value is not in {key}.map; add it there"
                raise Unmappable("not_in_map", key, detail)
            text = mapped
        return _decimal(text, key) if number else text

    return found


def _decimal(text: str, key: str) -> str:
    """Return a number as plain decimal text, exactly: `32.0` becomes `32`."""
    if _WHOLE.fullmatch(text):
        return text
    if _NUMBER.fullmatch(text) is None:
        raise Unmappable("not_a_number", key, "write a decimal number, or leave it empty")
    return quantity_text(Decimal(text))
