"""What comes in, what it becomes, and what is answered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.kernel.periods import Interval, Period

ID_SIZE_MAX: Final = 255
BATCH_MAX: Final = 10_000
PROPERTIES_SIZE_MAX: Final = 4_096
EVENT_QUANTITY_DIGITS_MAX: Final = 18
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
OLDEST: Final = datetime(1972, 1, 1, tzinfo=UTC)  # its periods begin after 1970 in every zone
AHEAD_SECONDS_MAX: Final = 300
GROUPS_MAX: Final = 1_000
DIMENSIONS_SIZE_MAX: Final = 500
VOID: Final = "convergio.void"
AMEND: Final = "convergio.amend"
CORRECTIONS: Final = frozenset({VOID, AMEND})
TOMBSTONE: Final = "convergio.tombstone"
OWN_SOURCES: Final = "convergio:"  # events that only the product itself may make


class Slice(NamedTuple):
    """A part of a meter's usage by a dimension: one value's, or with None all but the others'."""

    meter_key: str
    by: str
    value: str | None
    others: frozenset[str] = frozenset()

    @property
    def listed(self) -> list[str]:
        """The values that it is, or all but which it is."""
        return sorted(self.others) if self.value is None else [self.value]


def slice_of(meter_key: str, by: str, listed: Iterable[str], value: str) -> Slice:
    """Return the part of a meter's usage that a value is of; "" is all that is not listed."""
    if value:
        return Slice(meter_key, by, value)
    return Slice(meter_key, by, None, frozenset(listed))


UsageKey = tuple[UUID, str | Slice, datetime]
"""Whose usage, of a meter or a part of one, in the period that begins then."""


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Event(msgspec.Struct, gc=False, frozen=True):
    """A CloudEvents 1.0 event; `subject` is the customer's key, `data` its properties.

    Extension attributes are allowed by the standard and ignored.
    """

    id: str
    source: str
    type: str
    subject: str
    specversion: str = "1.0"
    time: _Aware | None = None
    data: dict[str, Any] | None = None
    datacontenttype: str | None = None


class Status(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class Verdict(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """The answer to one event; `reason`, `field` and `detail` are set when it was not counted."""

    status: str
    reason: str | None = None
    field: str | None = None
    detail: str | None = None


ACCEPTED: Final = Verdict("accepted")
DUPLICATE: Final = Verdict("duplicate")
CONFLICT: Final = Verdict(
    "conflict",
    "other_payload",
    "id",
    "an event with this source and id was counted with another payload; give this one its own id",
)


ALERTS: Final = (50, 80, 100)


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan promises of a meter in one of its periods, in units of the meter.

    `limit` is hard and never exceeded by `authorize`; None means no limit. `included` is what
    costs nothing extra. Beyond `free` usage draws prepaid credit; None: it never does. `interval`
    is the period's, where it is not the segment's own. `alerts` are percentages of the limit, or
    else of what is included, that are told once a period. Terms with another `price`, or with
    another beginning of it, cut the windows. `summed` ones of a period share the three quantities
    (RULES 8).
    """

    limit: Decimal | None = None
    included: Decimal | None = None
    interval: Interval | None = None
    alerts: tuple[int, ...] = ALERTS
    free: Decimal | None = None
    price: UUID | None = None
    begins: datetime | None = None
    summed: bool = True


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """From `starts_at` (None: from ever) windows follow this anchor, zone and interval.

    Segments with the same `since` are of one agreement, which began then: where nothing changes
    for a meter from one to the next, its windows are not cut (RULES 3).
    """

    anchor: datetime
    time_zone: str = "UTC"
    interval: Interval = Interval.MONTH
    starts_at: datetime | None = None
    limits: dict[str, Limit] = {}
    since: datetime | None = None


DEFAULT_SEGMENT: Final = Segment(anchor=EPOCH)


class Credit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prepaid units of a meter, for usage in `[starts_at, ends_at)` beyond what is free.

    `expires_at` is what was agreed and decides the order; a void moves `ends_at` alone.
    """

    grant_id: UUID
    meter_key: str
    quantity: Decimal
    priority: int
    starts_at: datetime
    created_at: datetime
    expires_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A customer's segments in order of time, the first one from ever; and prepaid credits."""

    version: int
    segments: tuple[Segment, ...]
    credits: tuple[Credit, ...] = ()


class Share(NamedTuple):
    """What the windows of a meter in a period come to together, once a change has cut it."""

    meter_key: str
    period: Period
    limit: Decimal
    included: Decimal
    free: Decimal


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A stored window: one ungrouped row of `usage_total`.

    `period_at` and what follows is set where other windows have a part in its allowance: those of
    the period that began then, or those that draw the same credit. `earlier` is what the earlier
    ones of the period used, `base` what alerts are percentages of, `free` what this window may use
    before it draws, `credit` what there is to draw.
    """

    customer_id: UUID
    meter_id: int
    start_at: datetime
    end_at: datetime
    version: int
    used: Decimal
    reserved: Decimal
    quota_limit: Decimal | None
    included: Decimal | None
    dimensions: str = ""
    alerts: tuple[int, ...] | list[int] = ALERTS
    period_at: datetime | None = None
    earlier: Decimal | None = None
    base: Decimal | None = None
    free: Decimal | None = None
    credit: Decimal | None = None

    @property
    def period(self) -> Period:
        """The window's time."""
        return Period(self.start_at, self.end_at)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was kept."""

    customer_id: UUID
    event_key: UUID
    type: str
    occurred_at: datetime
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Correction:
    """What an event counts as since it was corrected: nothing, or with these properties."""

    customer_id: UUID
    event_key: UUID
    kind: str
    properties: Mapping[str, Any]
    corrected_at: datetime
    correction_key: UUID


@dataclass(frozen=True, slots=True)
class Usage:
    """Metered usage of one bucket of time, and of one group where it was asked by group."""

    start: datetime
    quantity: Decimal
    events: int
    dimensions: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """The stored boundary (docs/adr/0007): nothing that occurred before `accepts_from` is taken.

    Up to `deleted_until` all events were archived and deleted. Between the two a month is going:
    `archive_sha256` is its verified archive, and once that is set its events may be gone.
    """

    accepts_from: datetime
    deleted_until: datetime
    archive_sha256: str | None

    @property
    def gone_before(self) -> datetime:
        """Before this instant events may be missing; totals are kept."""
        return self.deleted_until if self.archive_sha256 is None else self.accepts_from


@dataclass(frozen=True, slots=True)
class MeteredEvent:
    """An event as a meter counts it today, corrections included."""

    event_key: UUID
    occurred_at: datetime
    quantity: Decimal
    source: str
    event_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and the two counts of it."""

    customer_id: UUID
    meter_id: int
    start_at: datetime | None
    used: Decimal
    expected: Decimal
