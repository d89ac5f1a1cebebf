"""The loop over events: the hot path's pure half.

128-bit keys stay bytes, times and quantities stay whole numbers (microseconds; billionths of a
unit), and a row is built once as the bytes that binary COPY wants.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.catalog.model import Catalog
from convergio.catalog.rules import property_text
from convergio.metering.model import (
    AHEAD_SECONDS_MAX,
    ID_SIZE_MAX,
    PROPERTIES_SIZE_MAX,
    Event,
    Verdict,
)
from convergio.metering.rules import (
    BAD_VALUE,
    MeterPlan,
    compile_meter,
    event_key,
    instant,
    microseconds,
)

_TIMES: Final = Struct(">qiqiB").pack
_LENGTH: Final = Struct(">i").pack


class Window:
    """A cached window. Its version guards every write made from this cache."""

    __slots__ = ("customer", "end", "meter_id", "start", "version")

    def __init__(
        self, customer: "Customer", meter_id: int, start: int, end: int, version: int
    ) -> None:
        """Keep the window with its times in microseconds."""
        self.customer = customer
        self.meter_id = meter_id
        self.start = start
        self.end = end
        self.version = version

    @property
    def starts_at(self) -> datetime:
        """The window's start as an instant."""
        return instant(self.start)


class Customer:
    """A cached customer: the id as bytes for rows, and the windows seen so far by meter."""

    __slots__ = ("customer_id", "raw", "windows")

    def __init__(self, customer_id: UUID) -> None:
        """Keep the id in both forms."""
        self.customer_id = customer_id
        self.raw = customer_id.bytes
        self.windows: dict[int, list[Window]] = {}

    def window(self, meter_id: int, moment: int) -> Window | None:
        """Return the cached window that contains the moment; the newest is looked at first."""
        for window in reversed(self.windows.get(meter_id, ())):
            if window.start <= moment < window.end:
                return window
        return None

    def add(self, window: Window) -> None:
        """Cache a window, in order of time; an older copy of the same one is replaced."""
        known = [w for w in self.windows.get(window.meter_id, ()) if w.start != window.start]
        self.windows[window.meter_id] = sorted([*known, window], key=lambda w: w.start)


@dataclass(frozen=True, slots=True)
class EventType:
    """A known type, ready for the loop: its part of a row, what it keeps, the meters it feeds."""

    name: str
    part: bytes
    kept: frozenset[str]
    meters: tuple[MeterPlan, ...]


def event_types(catalog: Catalog) -> dict[str, EventType]:
    """Return the catalog's event types ready for the loop."""
    found = {}
    for name, kept in catalog.event_types.items():
        meters = tuple(compile_meter(m) for m in catalog.meters.values() if m.event_type == name)
        raw = name.encode()
        found[name] = EventType(name, _LENGTH(len(raw)) + raw + _LENGTH(8), kept, meters)
    return found


class Row(NamedTuple):
    """An event that may be counted: its primary key, its COPY bytes, and what it adds to what."""

    key: bytes
    data: bytes
    place: int
    adds: tuple[tuple[Window, int], ...]


class Prepared(NamedTuple):
    """A batch after the loop. `rows` are in key order, so that writers cannot deadlock."""

    rows: list[Row]
    verdicts: list[Verdict | None]
    repeats: list[tuple[int, int]]
    unknown: set[str]
    unopened: list[tuple[Customer, MeterPlan, int]]


_HEAD: Final = b"\x00\x08\x00\x00\x00\x10"
_KEY: Final = b"\x00\x00\x00\x10"
_encode: Final = msgspec.json.Encoder().encode
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_CARD_DIGITS: Final = re.compile(r"(?:[0-9][ -]?){13,19}")
_CARD_SIZE_MIN: Final = 13
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def prepare(
    events: Sequence[Event],
    types: Mapping[str, EventType],
    customers: Mapping[str, Customer | None],
    *,
    now: int,
    oldest: int,
) -> Prepared:
    """Turn events into rows, or into verdicts; say which customers and windows must be loaded.

    `customers` maps a key to None when no such customer exists. Times are in microseconds since
    2000. An event that is twice in the batch is in `repeats` as (later, first).
    """
    rows: list[Row] = []
    verdicts: list[Verdict | None] = [None] * len(events)
    repeats: list[tuple[int, int]] = []
    unknown: set[str] = set()
    unopened: list[tuple[Customer, MeterPlan, int]] = []
    seen: dict[bytes, int] = {}
    newest = now + AHEAD_SECONDS_MAX * 1_000_000
    for index, event in enumerate(events):
        kind, event_id, source = types.get(event.type), event.id, event.source
        customer = customers.get(event.subject)
        moment = microseconds(event.time) if event.time is not None else now
        if (
            kind is None
            or customer is None
            or not oldest <= moment <= newest
            or not 0 < len(event_id) <= ID_SIZE_MAX
            or not event_id.isprintable()
            or not 0 < len(source) <= ID_SIZE_MAX
            or not source.isprintable()
        ):
            if kind is not None and event.subject not in customers and _is_key(event.subject):
                unknown.add(event.subject)
            else:
                verdicts[index] = _refused(event, kind, moment, oldest=oldest, newest=newest)
            continue
        data = event.data or {}
        payload = _payload(data, kind.kept) if data else b"{}"
        if isinstance(payload, Verdict):
            verdicts[index] = payload
            continue
        adds = _adds(kind, customer, data, moment, unopened)
        if isinstance(adds, Verdict):
            verdicts[index] = adds
            continue
        raw_source, raw_id = source.encode(), event_id.encode()
        key = event_key(raw_source, event_id)
        whole = customer.raw + key
        first = seen.setdefault(whole, index)
        if first != index:
            repeats.append((index, first))
            continue
        data_row = b"".join(
            (
                _HEAD, customer.raw, _KEY, key, kind.part,
                _TIMES(moment, 8, now, len(payload) + 1, 1), payload,
                _LENGTH(len(raw_source)), raw_source, _LENGTH(len(raw_id)), raw_id,
            )
        )  # fmt: skip
        rows.append(Row(whole, data_row, index, adds))
    rows.sort(key=_row_key)
    return Prepared(rows, verdicts, repeats, unknown, unopened)


_row_key: Final = itemgetter(0)


def _adds(
    kind: EventType,
    customer: Customer,
    data: Mapping[str, Any],
    moment: int,
    unopened: list[tuple[Customer, MeterPlan, int]],
) -> tuple[tuple[Window, int], ...] | Verdict:
    """Return what an event adds to which windows; note the windows that are not known yet."""
    adds = []
    for meter in kind.meters:
        if meter.needs is not None and meter.needs not in data:
            continue
        quantity = meter.measure(data)
        if quantity is None:
            continue
        if quantity == BAD_VALUE:
            return _bad_value(meter)
        window = customer.window(meter.meter_id, moment)
        if window is None:
            unopened.append((customer, meter, moment))
        else:
            adds.append((window, quantity))
    return tuple(adds)


def _payload(data: Mapping[str, Any], kept: frozenset[str]) -> bytes | Verdict:
    """Return the declared properties as JSON, or the verdict on one that cannot be stored."""
    wanted: Mapping[str, Any] = data
    if not data.keys() <= kept:
        wanted = {name: data[name] for name in data if name in kept}
    for name, value in wanted.items():
        kind = type(value)
        if kind is str:
            if len(value) >= _CARD_SIZE_MIN and looks_like_card(value):
                return _bad(
                    name, "card_number", "a card number must never be sent here; leave it out"
                )
            if "\x00" in value or (not value.isascii() and _SURROGATE.search(value)):
                return _bad(name, "bad_property", "remove NUL characters and lone surrogates")
        elif kind not in _SCALARS:
            if kind is not Decimal or property_text(value) is None:
                return _bad(name, "bad_property", "write text, a number, true, false or null")
            wanted = {**wanted, name: property_text(value)}
    payload = _encode(wanted)
    if len(payload) > PROPERTIES_SIZE_MAX:
        return _bad("", "too_large", f"keep the properties under {PROPERTIES_SIZE_MAX} bytes")
    return payload


def looks_like_card(text: str) -> bool:
    """Say whether text holds 13 to 19 digits that pass the Luhn check, as card numbers do."""
    for found in _CARD_DIGITS.finditer(text):
        digits = [int(c) for c in found[0] if c.isdigit()]
        doubled = sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])
        if (sum(digits[-1::-2]) + doubled) % 10 == 0:
            return True
    return False


def _is_key(text: str) -> bool:
    return 0 < len(text) <= ID_SIZE_MAX and text.isprintable()


def _bad(name: str, reason: str, detail: str) -> Verdict:
    return Verdict("rejected", reason, f"data.{name}".rstrip("."), detail)


def _bad_value(meter: MeterPlan) -> Verdict:
    detail = (
        f"the meter '{meter.key}' needs a decimal number that is not negative, below 10^18, "
        "with at most 9 decimals"
    )
    return _bad(meter.value or "", "bad_quantity", detail)


def _refused(
    event: Event, kind: EventType | None, moment: int, *, oldest: int, newest: int
) -> Verdict:
    """Say why an event is refused: the first rule that it breaks."""
    for name, text in (("id", event.id), ("source", event.source)):
        if not _is_key(text):
            detail = f"write 1 to {ID_SIZE_MAX} printable characters"
            return Verdict("rejected", "bad_id", name, detail)
    if kind is None:
        detail = "no such event type in the catalog; see `convergio catalog show`"
        return Verdict("rejected", "unknown_type", "type", detail)
    if moment > newest:
        detail = f"the time is more than {AHEAD_SECONDS_MAX} seconds ahead; check the clock"
        return Verdict("rejected", "time_ahead", "time", detail)
    if moment < oldest:
        detail = "the time is too far back; a key with the scope usage:import may send it"
        return Verdict("rejected", "time_too_old", "time", detail)
    detail = "no customer has this key; create the customer first"
    return Verdict("rejected", "unknown_customer", "subject", detail)


def row_values(event: Event, row: Row, *, now: datetime) -> tuple[Any, ...]:
    """Return the columns of a prepared row, for an INSERT."""
    data = row.data
    start = len(_HEAD) + 16 + len(_KEY) + 16
    size = int.from_bytes(data[start : start + 4], "big")
    times = start + 4 + size + 4
    payload_size = int.from_bytes(data[times + 20 : times + 24], "big") - 1
    payload = data[times + 25 : times + 25 + payload_size].decode()
    occurred = event.time if event.time is not None else now
    return (
        UUID(bytes=row.key[:16]),
        UUID(bytes=row.key[16:]),
        event.type,
        occurred,
        now,
        payload,
        event.source,
        event.id,
    )
