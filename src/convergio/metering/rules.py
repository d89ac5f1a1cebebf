"""Pure decisions of the meter: an event's key, its row, its quantities.

The loop over events that uses them is `intake.py`; windows are laid in `schedule.py`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b, sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.catalog.model import Meter
from convergio.catalog.rules import property_text
from convergio.kernel.errors import Invalid
from convergio.kernel.quantity import add_up, quantity_text
from convergio.metering.model import (
    EVENT_QUANTITY_DIGITS_MAX,
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


def instant_bytes(microseconds_: int) -> bytes:
    """Return the instant as Postgres writes a timestamptz in a session whose zone is UTC."""
    text, _, part = instant(microseconds_).isoformat(" ")[:-6].partition(".")
    return f"{text}.{part.rstrip('0')}+00".encode() if part else f"{text}+00".encode()


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


def nanos_bytes(quantity: int) -> bytes:
    """Return `nanos_text` as the bytes that travel."""
    whole, part = divmod(quantity, NANO)
    return b"%d" % whole if not part else b"%d.%09d" % (whole, part)


def stored_nanos(text: bytes | None) -> int:
    """Return billionths out of a stored quantity, which has nine decimals always."""
    return int((text or b"0").replace(b".", b""))


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


def is_null(meter: MeterPlan, data: Mapping[str, Any]) -> bool:
    """Say whether the meter's value is a null that was sent.

    A missing one counts as the default and a stored null does too, but none comes in any more: a
    sender who writes it has a quantity in mind, and the default is not it.
    """
    return meter.value is not None and data.get(meter.value, 0) is None


def dimensions(names: Sequence[str], data: Mapping[str, Any]) -> str:
    """Return an event's group as text: its values in the meter's order, as JSON writes them."""
    found = (property_text(data.get(name)) for name in names)
    return ",".join("null" if text is None else _encode(text).decode() for text in found)


def value_hash(value: object) -> UUID:
    """Return the 128 bits by which a unique_count meter knows a value; SQL computes the same."""
    text = property_text(value) or ""
    return UUID(bytes=sha256(text.encode()).digest()[:16])


def marks(row: WindowRow) -> tuple[tuple[int, int], ...]:
    """Return the alerts of a window as (percent, billionths of a unit), the lowest first.

    They are percentages of the period's own allowance, without credit; what earlier windows of
    the period used counts towards them.
    """
    base = row.base
    if row.period_at is None:
        base = row.included if row.quota_limit is None else row.quota_limit
    if not base or row.dimensions:
        return ()
    whole, before = int(base * NANO), int((row.earlier or 0) * NANO)
    return tuple(
        (percent, max(0, -(-whole * percent // 100) - before)) for percent in sorted(row.alerts)
    )


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


UNIT_SECONDS: Final = {
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 28 * 86_400,
    "quarter": 90 * 86_400,
    "year": 365 * 86_400,
}
BUCKETS_MAX: Final = 100_000
GROUPS_WEIGHT: Final = 5
_OPEN_SPAN: Final = timedelta(days=549)  # 18 months


def check_cost(by: str, since: datetime | None, until: datetime | None, *, by_group: bool) -> None:
    """Refuse a question about usage that could come to more buckets than one may ask for.

    Where no span is named it is taken to be as long as events are kept at least. Raises: Invalid.
    """
    span = _OPEN_SPAN if since is None or until is None else until - since
    most = BUCKETS_MAX // (GROUPS_WEIGHT if by_group else 1)
    if span.total_seconds() / UNIT_SECONDS[by] > most:
        detail = f"this may come to over {most} buckets; ask for longer ones, or from and to closer"
        raise Invalid(detail, code="too_costly", field="by")
