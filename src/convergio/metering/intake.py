"""The loop over events: the hot path's pure half.

128-bit keys stay bytes, times and quantities stay whole numbers (microseconds; billionths of a
unit), and a row is built once as the bytes that binary COPY wants.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.catalog.model import Catalog
from convergio.catalog.rules import property_text
from convergio.kernel.periods import instant_text
from convergio.metering.model import (
    AHEAD_SECONDS_MAX,
    CORRECTIONS,
    DIMENSIONS_SIZE_MAX,
    EPOCH,
    GROUPS_MAX,
    ID_SIZE_MAX,
    PROPERTIES_SIZE_MAX,
    Event,
    Verdict,
    WindowRow,
)
from convergio.metering.rules import (
    BAD_VALUE,
    MeterPlan,
    compile_meter,
    dimensions,
    event_key,
    instant,
    instant_bytes,
    is_null,
    marks,
    microseconds,
    value_hash,
)

_TIMES: Final = Struct(">qiqiB").pack
_LENGTH: Final = Struct(">i").pack


class Window:
    """A cached window, or one group of it. Its version guards every write made from this cache.

    `groups` are the groups seen so far; `is_full` says that no further one is admitted. `marks`
    are the alerts that this process has not seen passed yet, as (percent, billionths). `key` is
    the order in which windows are written. `columns` is what a written row begins with and `place`
    how the server writes its primary key, both as the bytes that travel. `shared` is the start of
    the period where others have a part in its allowance; `marks` may then be behind what they used.
    """

    __slots__ = (
        "columns", "customer", "dimensions", "end", "groups", "is_full", "key", "marks",
        "meter_id", "place", "shared", "start", "version",
    )  # fmt: skip

    def __init__(
        self,
        customer: "Customer",
        meter_id: int,
        start: int,
        end: int,
        version: int,
        *,
        dimensions: str = "",
        marks: tuple[tuple[int, int], ...] = (),
        shared: datetime | None = None,
    ) -> None:
        """Keep the window with its times in microseconds."""
        self.customer = customer
        self.meter_id = meter_id
        self.start = start
        self.end = end
        self.version = version
        self.dimensions = dimensions
        self.marks = marks
        self.shared = shared
        self.groups: dict[str, Window] = {}
        self.is_full = False
        self.key = (customer.raw, meter_id, start, dimensions)
        begins, group = instant_bytes(start), dimensions.encode()
        self.place = (customer.text, b"%d" % meter_id, begins, group)
        self.columns = (*self.place, instant_bytes(end), b"%d" % version)

    @property
    def starts_at(self) -> datetime:
        """The window's start as an instant."""
        return instant(self.start)


class Customer:
    """A cached customer: the id as bytes, as a row begins, and the windows seen so far by meter."""

    __slots__ = ("customer_id", "head", "raw", "text", "windows")

    def __init__(self, customer_id: UUID) -> None:
        """Keep the id in the forms that the loop wants."""
        self.customer_id = customer_id
        self.raw = customer_id.bytes
        self.text = str(customer_id).encode()
        self.head = _HEAD + self.raw + _KEY
        self.windows: dict[int, list[Window]] = {}

    def window(self, meter_id: int, moment: int) -> Window | None:
        """Return the cached window that contains the moment; the newest is looked at first."""
        for window in reversed(self.windows.get(meter_id, ())):
            if window.start <= moment < window.end:
                return window
        return None

    def add(self, window: Window) -> None:
        """Cache a window, in order of time; stale ones in its time go, an equal one stays.

        Another thread may be preparing a batch: it should not meet two objects for one window.
        """
        known = self.windows.get(window.meter_id, ())
        for old in known:
            if (old.start, old.end, old.version) == (window.start, window.end, window.version):
                return
        others = [old for old in known if old.end <= window.start or window.end <= old.start]
        self.windows[window.meter_id] = sorted([*others, window], key=lambda w: w.start)

    def keep(self, row: WindowRow, *, is_full: bool = False) -> None:
        """Cache a stored window, or a group of a window that is cached already."""
        start, end = microseconds(row.start_at), microseconds(row.end_at)
        if not row.dimensions:
            self.add(
                Window(
                    self, row.meter_id, start, end, row.version, marks=marks(row),
                    shared=row.period_at,
                )
            )  # fmt: skip
        window = self.window(row.meter_id, start)
        if window is None:
            return
        if row.dimensions and row.dimensions not in window.groups:
            group = Window(self, row.meter_id, start, end, row.version, dimensions=row.dimensions)
            window.groups[row.dimensions] = group
        window.is_full = window.is_full or is_full


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


# What an event adds: to which window, by which aggregation, how much, and for unique_count the
# value's hash. A plain tuple, because one is made for every event and meter.
Add = tuple[Window, str, int, UUID | None]


class Wanted(NamedTuple):
    """A window, or a group of one, that is not in the cache."""

    customer: "Customer"
    meter: MeterPlan
    moment: int
    dimensions: str


class Row(NamedTuple):
    """An event that may be counted: its primary key, its COPY bytes, and what it adds to what."""

    key: bytes
    data: bytes
    place: int
    moment: int
    adds: tuple[Add, ...]


class Prepared(NamedTuple):
    """A batch after the loop. `rows` are in key order, so that writers cannot deadlock."""

    rows: list[Row]
    verdicts: list[Verdict | None]
    repeats: list[tuple[int, int]]
    unknown: set[str]
    unopened: list[Wanted]
    corrections: list[int]


UNIQUE: Final = "unique_count"
_FROM_EVER: Final = microseconds(EPOCH)
_COLUMNS: Final = 8
_HEAD: Final = b"\x00\x08\x00\x00\x00\x10"
_KEY: Final = b"\x00\x00\x00\x10"
_encode: Final = msgspec.json.Encoder().encode
_SCALARS: Final = frozenset({str, int, bool, type(None)})
# A card's first digit is 2 to 6; a longer run of digits, or a group of a UUID, is none.
_CARD: Final = re.compile(r"(?<![0-9])(?<![0-9A-Fa-f]{4}-)[2-6](?:[ -]?[0-9]){12,18}(?![0-9])")
_CARD_SIZE_MIN: Final = 13
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# A Row of one ready tuple: half the price of its constructor, and one is made for every event.
_row: Final[Callable[[tuple[bytes, bytes, int, int, tuple[Add, ...]]], Row]] = partial(
    tuple.__new__, Row
)


def prepare(
    events: Sequence[Event],
    types: Mapping[str, EventType],
    customers: Mapping[str, Customer | None],
    *,
    now: int,
    oldest: int,
    closed: int = _FROM_EVER,
) -> Prepared:
    """Turn events into rows, or into verdicts; say which customers and windows must be loaded.

    `customers` maps a key to None when no such customer exists. Times are in microseconds since
    2000; what occurred before `closed` is archived, and nothing of it is accepted any more. An
    event that is twice in the batch is in `repeats` as (later, first).
    """
    batch = Prepared([], [None] * len(events), [], set(), [], [])
    rows, verdicts = batch.rows, batch.verdicts
    seen: dict[bytes, int] = {}
    sources: dict[str, tuple[bytes, bytes]] = {}
    newest = now + AHEAD_SECONDS_MAX * 1_000_000
    for index, event in enumerate(events):
        kind, event_id, source = types.get(event.type), event.id, event.source
        customer = customers.get(event.subject)
        moment = microseconds(event.time) if event.time is not None else now
        raw_source, source_part = sources.get(source) or _source(source, sources)
        if (
            kind is None
            or customer is None
            or not oldest <= moment <= newest
            or not 0 < len(event_id) <= ID_SIZE_MAX
            or not event_id.isprintable()
            or not raw_source
        ):
            known = event.subject in customers or not _is_key(event.subject)
            if not _set_aside(batch, index, event, kind, known=known, customer=customer):
                verdicts[index] = _refused(event, kind, moment, (closed, oldest, newest))
            continue
        data = event.data or {}
        payload = _payload(data, kind.kept) if data else b"{}"
        if isinstance(payload, Verdict):
            verdicts[index] = payload
            continue
        adds = _adds(kind, customer, data, moment, batch.unopened)
        if isinstance(adds, Verdict):
            verdicts[index] = adds
            continue
        raw_id, key = event_id.encode(), event_key(raw_source, event_id)
        whole = customer.raw + key
        first = seen.setdefault(whole, index)
        if first != index:
            batch.repeats.append((index, first))
            continue
        data_row = b"".join(
            (
                customer.head, key, kind.part, _TIMES(moment, 8, now, len(payload) + 1, 1), payload,
                source_part, _LENGTH(len(raw_id)), raw_id,
            )
        )  # fmt: skip
        rows.append(_row((whole, data_row, index, moment, adds)))
    rows.sort(key=_row_key)
    return batch


def _set_aside(
    batch: Prepared,
    index: int,
    event: Event,
    kind: EventType | None,
    *,
    known: bool,
    customer: Customer | None,
) -> bool:
    """Note an event that waits for its customer, or corrects another; say whether it is one."""
    corrects = event.type in CORRECTIONS
    if (kind is not None or corrects) and not known:
        batch.unknown.add(event.subject)
        return True
    if corrects and customer is not None:
        batch.corrections.append(index)
        return True
    return False


_row_key: Final = itemgetter(0)


def _source(source: str, sources: dict[str, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return a source as bytes, and with its length as in a row; empty for one that is refused."""
    raw = source.encode() if _is_key(source) else b""
    sources[source] = raw, _LENGTH(len(raw)) + raw
    return sources[source]


def _adds(
    kind: EventType,
    customer: Customer,
    data: Mapping[str, Any],
    moment: int,
    unopened: list[Wanted],
) -> tuple[Add, ...] | Verdict:
    """Return what an event adds to which windows; note the windows that are not known yet."""
    adds: list[Add] = []
    for newest in kind.meters:
        meter = newest if moment >= newest.since else newest.at(moment)
        if meter is None or (meter.needs is not None and meter.needs not in data):
            continue
        quantity = meter.measure(data)
        if quantity is None:
            continue
        if quantity == BAD_VALUE or is_null(meter, data):
            return _bad_value(meter)
        window = customer.window(meter.meter_id, moment)
        item = value_hash(data.get(meter.value or "")) if meter.aggregation == UNIQUE else None
        if window is not None:
            adds.append((window, meter.aggregation, quantity, item))
        group = _group(meter, window, data) if meter.group_by else None
        if isinstance(group, Verdict):
            return group
        if isinstance(group, Window):
            adds.append((group, meter.aggregation, quantity, item))
        elif window is None or group is not None:
            unopened.append(Wanted(customer, meter, moment, group or ""))
    return tuple(adds)


def _group(
    meter: MeterPlan, window: Window | None, data: Mapping[str, Any]
) -> Window | str | Verdict:
    """Return the event's group of a window, its name when it must be opened, or a refusal."""
    group = dimensions(meter.group_by, data)
    if len(group) > DIMENSIONS_SIZE_MAX:
        detail = f"keep what is grouped by under {DIMENSIONS_SIZE_MAX} characters"
        return _bad(meter.group_by[0], "group_too_long", detail)
    if window is None:
        return group
    if window.is_full and group not in window.groups:
        return _too_many_groups(meter)
    return window.groups.get(group, group)


def _too_many_groups(meter: MeterPlan) -> Verdict:
    name = meter.group_by[0] if len(meter.group_by) == 1 else ""
    detail = (
        f"the meter '{meter.key}' has {GROUPS_MAX} groups in this period already; send fewer "
        "different values, or group by something coarser"
    )
    return _bad(name, "too_many_groups", detail)


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


def refused_payload(data: Mapping[str, Any], kept: frozenset[str]) -> Verdict | None:
    """Return the verdict on properties that cannot be stored, or None."""
    found = _payload(data, kept)
    return found if isinstance(found, Verdict) else None


def is_same(one: Event, first: Event, kept: frozenset[str], *, now: datetime) -> bool:
    """Say whether two events of one id have the same payload, as the database would compare it."""
    if one.type != first.type or one.time not in {None, first.time or now}:
        return False
    return _canonical(one, kept) == _canonical(first, kept)


def _canonical(event: Event, kept: frozenset[str]) -> bytes | None:
    payload = _payload(event.data or {}, kept)
    if isinstance(payload, Verdict):
        return None
    return msgspec.json.encode(msgspec.json.decode(payload), order="sorted")


def compared(event: Event, row: Row, kept: frozenset[str]) -> tuple[Any, ...]:
    """Return an event as `compare_events` wants it, under the key of a row with the same id."""
    payload = _payload(event.data or {}, kept)
    text = payload.decode() if isinstance(payload, bytes) else None
    return UUID(bytes=row.key[:16]), UUID(bytes=row.key[16:]), event.type, event.time, text


def looks_like_card(text: str) -> bool:
    """Say whether text holds 13 to 19 digits that pass the Luhn check, as card numbers do."""
    for found in _CARD.finditer(text):
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
    event: Event, kind: EventType | None, moment: int, times: tuple[int, int, int]
) -> Verdict:
    """Say why an event is refused: the first rule that it breaks. `times` as in `prepare`."""
    closed, oldest, newest = times
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
    if moment < closed:
        return too_old("time", closed)
    if moment < oldest:
        detail = "the time is too far back; a key with the scope usage:import may send it"
        return Verdict("rejected", "time_too_old", "time", detail)
    detail = "no customer has this key; create the customer first"
    return Verdict("rejected", "unknown_customer", "subject", detail)


def too_old(field: str, closed: int) -> Verdict:
    """Return the verdict on what lies before the retention boundary (docs/adr/0007)."""
    detail = (
        f"what occurred before {instant_text(instant(closed))} is archived and closed for good; "
        "nothing older is accepted, with any scope"
    )
    return Verdict("rejected", "time_too_old", field, detail)


def row_fields(data: bytes) -> tuple[bytes, ...]:
    """Return the columns of a prepared row in binary form, for an INSERT."""
    fields: list[bytes] = []
    at = 2
    for _ in range(_COLUMNS):
        size = int.from_bytes(data[at : at + 4], "big")
        fields.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(fields)


def row_values(event: Event, row: Row, *, now: datetime) -> tuple[Any, ...]:
    """Return the columns of a prepared row, for an INSERT."""
    occurred = event.time if event.time is not None else now
    payload = row_fields(row.data)[5][1:].decode()  # jsonb begins with its version
    ids = UUID(bytes=row.key[:16]), UUID(bytes=row.key[16:])
    return *ids, event.type, occurred, now, payload, event.source, event.id
