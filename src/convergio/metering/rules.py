"""Pure decisions of the meter: an event's key, its row, its quantities and its window.

The loop over events that uses them is `intake.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.catalog.model import Meter
from convergio.catalog.rules import property_text
from convergio.kernel.periods import Calendar, Interval, Period
from convergio.kernel.quantity import add_up, quantity_text
from convergio.metering.model import (
    EVENT_QUANTITY_DIGITS_MAX,
    Schedule,
    Segment,
    WindowRow,
)

NANO: Final = 10**9
_UUID_SIZE: Final = 36
_ULID_SIZE: Final = 26
_TIME_SIZE: Final = 6
_CROCKFORD: Final = str.maketrans(
    "ABCDEFGHJKMNPQRSTVWXYZabcdefghjkmnpqrstvwxyz",
    "abcdefghijklmnopqrstuvabcdefghijklmnopqrstuv",
)
_QUANTITY: Final = re.compile(
    rf"(?:0|[1-9][0-9]{{0,{EVENT_QUANTITY_DIGITS_MAX - 1}}})(?:\.[0-9]{{1,9}})?", re.ASCII
)
QUANTITY_MAX: Final = 10**EVENT_QUANTITY_DIGITS_MAX
_encode: Final = msgspec.json.Encoder().encode
_EPOCH_2000: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY_US: Final = 86_400_000_000


def event_key(source: bytes, event_id: str) -> bytes:
    """Return the 16 bytes that identify an event of one customer (DESIGN 5).

    For a UUIDv7 or ULID the 48 bits of its time come first, so that inserts stay on the hot edge
    of the index; the rest, or all of it for any other id, is BLAKE2b over source and id.
    """
    size = len(event_id)
    text = event_id.encode()
    if size == _UUID_SIZE and event_id[14] == "7" and event_id[8] == "-":
        try:
            head = bytes.fromhex(event_id[:8] + event_id[9:13])
        except ValueError:
            head = b""
        if len(head) == _TIME_SIZE:  # fromhex passes over spaces
            return head + blake2b(source + b"\x00" + text, digest_size=10).digest()
    elif size == _ULID_SIZE and event_id[0] in "01234567":
        try:
            head = int(event_id[:10].translate(_CROCKFORD), 32).to_bytes(7, "big")[1:]
        except (ValueError, OverflowError):
            return blake2b(source + b"\x00" + text, digest_size=16).digest()
        return head + blake2b(source + b"\x00" + text, digest_size=10).digest()
    return blake2b(source + b"\x00" + text, digest_size=16).digest()


def microseconds(instant: datetime) -> int:
    """Return microseconds since 2000-01-01 UTC, which is how Postgres stores an instant."""
    delta = instant - _EPOCH_2000
    return delta.days * _DAY_US + delta.seconds * 1_000_000 + delta.microseconds


def instant(microseconds_: int) -> datetime:
    """Return the instant of `microseconds`."""
    return _EPOCH_2000 + timedelta(microseconds=microseconds_)


def nanos(value: object) -> int | None:
    """Return a quantity in billionths of a unit, or None when it is not a valid one.

    Valid: a whole number, or plain decimal text, not negative, below 10**18, with at most nine
    decimals. JSON decimals arrive as Decimal and are held to the same.
    """
    if type(value) is int:
        return value * NANO if 0 <= value < QUANTITY_MAX else None
    if type(value) is Decimal:
        value = format(value, "f") if value.is_finite() else ""
    if type(value) is not str:
        return None
    found = _QUANTITY.fullmatch(value)
    if found is None:
        return None
    whole, _, part = value.partition(".")
    return int(whole) * NANO + int(part.ljust(9, "0") if part else 0)


def nanos_text(quantity: int) -> str:
    """Return billionths of a unit as plain decimal text."""
    whole, part = divmod(quantity, NANO)
    return f"{whole}.{part:09d}" if part else str(whole)


def nanos_decimal(quantity: int) -> Decimal:
    """Return billionths of a unit as an exact Decimal."""
    return Decimal(nanos_text(quantity))


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """A meter ready for the loop: `measure(data)` gives billionths, None for not selected.

    A value that is missing or wrong gives BAD_VALUE, and the event is rejected naming `value`.
    `needs` names a property without which the meter never selects, to skip it without a call.
    """

    meter_id: int
    key: str
    value: str | None
    needs: str | None
    measure: Callable[[Mapping[str, Any]], int | None]
    aggregation: str = "sum"
    group_by: tuple[str, ...] = ()
    since: int = 0
    older: tuple["MeterPlan", ...] = ()

    def at(self, moment: int) -> "MeterPlan | None":
        """Return the definition in force at a moment, in microseconds; None before the first."""
        if moment >= self.since:
            return self
        found = None
        for old in self.older:
            if old.since <= moment:
                found = old
        return found


BAD_VALUE: Final = -1


def compile_meter(meter: Meter) -> MeterPlan:
    """Return the meter as one function that agrees with `catalog.rules` on every event (tested).

    Its older definitions come with it, each for the events of its own time.
    """
    older = tuple(
        _compiled(
            replace(
                meter,
                value=old.value,
                default=old.default,
                filters=old.filters,
                starts_at=old.starts_at,
                older=(),
            ),
            (),
        )
        for old in meter.older
    )
    return _compiled(meter, older)


def _compiled(meter: Meter, older: tuple[MeterPlan, ...]) -> MeterPlan:
    tests = [(f.property, f.op, frozenset(f.values)) for f in meter.filters]
    needs = next(
        (f.property for f in meter.filters if f.op == "exists" and f.values == ("true",)), None
    )
    value, unique = meter.value, meter.aggregation == "unique_count"
    default = None if meter.default is None else nanos(format(meter.default, "f"))

    def measure(data: Mapping[str, Any]) -> int | None:
        for name, op, values in tests:
            found = data.get(name)
            if op == "exists":
                if (found is not None) != ("true" in values):
                    return None
            elif ((found if type(found) is str else property_text(found)) in values) != (
                op == "in"
            ):
                return None
        if value is None:
            return NANO
        found = data.get(value)
        if unique:
            return BAD_VALUE if property_text(found) is None else NANO
        if found is None:
            return BAD_VALUE if default is None else default
        quantity = nanos(found)
        return BAD_VALUE if quantity is None else quantity

    return MeterPlan(
        meter.meter_id,
        meter.key,
        value,
        needs,
        measure,
        meter.aggregation,
        meter.group_by,
        microseconds(meter.starts_at),
        older,
    )


def dimensions(names: Sequence[str], data: Mapping[str, Any]) -> str:
    """Return an event's group as text: its values in the meter's order, as JSON writes them."""
    found = (property_text(data.get(name)) for name in names)
    return ",".join("null" if text is None else _encode(text).decode() for text in found)


def value_hash(value: object) -> UUID:
    """Return the 128 bits by which a unique_count meter knows a value; SQL computes the same."""
    text = property_text(value) or ""
    return UUID(bytes=sha256(text.encode()).digest()[:16])


def marks(row: WindowRow) -> tuple[tuple[int, int], ...]:
    """Return the alerts of a window as (percent, billionths of a unit), the lowest first."""
    base = row.included if row.quota_limit is None else row.quota_limit
    if not base or row.dimensions:
        return ()
    whole = int(base * NANO)
    return tuple((percent, -(-whole * percent // 100)) for percent in sorted(row.alerts))


@lru_cache(maxsize=4096)
def _calendar(anchor: datetime, time_zone: str, interval: Interval) -> Calendar:
    return Calendar(anchor, time_zone, interval)


def segment_at(schedule: Schedule, moment: datetime) -> tuple[Segment, datetime | None]:
    """Return the segment in force at a moment, and the instant at which the next one starts."""
    chosen, following = schedule.segments[0], None
    for segment in schedule.segments[1:]:
        if segment.starts_at is not None and segment.starts_at <= moment:
            chosen = segment
        else:
            following = segment.starts_at
            break
    return chosen, following


def window_at(schedule: Schedule, meter_key: str, moment: datetime) -> Period:
    """Return the window of a meter that contains the moment: a calendar period cut by segments."""
    segment, following = segment_at(schedule, moment)
    limit = segment.limits.get(meter_key)
    interval = limit.interval if limit and limit.interval else segment.interval
    calendar = _calendar(segment.anchor, segment.time_zone, interval)
    period = calendar.period(calendar.number_at(moment))
    start = max(period.start, segment.starts_at) if segment.starts_at else period.start
    return Period(start, min(period.end, following) if following else period.end)


def with_segment(schedule: Schedule, segment: Segment) -> Schedule:
    """Return the schedule with a segment that replaces everything from its start on."""
    start = segment.starts_at
    kept = tuple(
        old
        for old in schedule.segments
        if start is not None and (old.starts_at is None or old.starts_at < start)
    )
    return Schedule(schedule.version + 1, (*kept, segment))


_ONE_BY_ONE: Final = 64
_MANY: Final = 256


def portions(size: int) -> Iterator[tuple[int, int]]:
    """Split a number of rows into few statement sizes: 256s, 64s, then the exact rest."""
    start = 0
    for step in (_MANY, _ONE_BY_ONE):
        while size - start >= step:
            yield start, start + step
            start += step
    if start < size:
        yield start, size


def fitting(window: WindowRow, asks: Sequence[Decimal]) -> list[bool]:
    """Say in order of arrival which asks fit under the window's limit."""
    held = add_up((window.used, window.reserved))
    answers = []
    for quantity in asks:
        after = add_up((held, quantity))
        fits = window.quota_limit is None or after <= window.quota_limit
        held = after if fits else held
        answers.append(fits)
    return answers


def event_data(meter: Meter, quantity: Decimal) -> dict[str, str] | None:
    """Return properties that make the meter count this quantity, or None when none can.

    A reservation that is committed becomes such an event.
    """
    data = {f.property: "true" for f in meter.filters if (f.op, f.values) == ("exists", ("true",))}
    barred = {f.property: f.values for f in meter.filters if f.op == "not_in"}
    for one in meter.filters:
        if one.op == "in":
            free = [v for v in one.values if v not in barred.get(one.property, ())]
            data[one.property] = (free or one.values)[0]
    if meter.value is not None:
        data[meter.value] = quantity_text(quantity)
    counted = compile_meter(meter).measure(data)
    return data if counted is not None and nanos_decimal(counted) == quantity else None


def plain(quantity: Decimal) -> str:
    """Return a quantity as text for a person."""
    return quantity_text(quantity)
