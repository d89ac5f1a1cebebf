"""What comes in, what it becomes, and what is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

from convergio.kernel.periods import Interval, Period

ID_SIZE_MAX: Final = 255
BATCH_MAX: Final = 10_000
PROPERTIES_SIZE_MAX: Final = 4_096
EVENT_QUANTITY_DIGITS_MAX: Final = 18
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
AHEAD_SECONDS_MAX: Final = 300

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


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan promises of a meter in one of its windows, in units of the meter.

    `limit` is hard and never exceeded by `authorize`; None means no limit. `included` is what
    costs nothing extra. `interval` is the window's, where it is not the segment's own.
    """

    limit: Decimal | None = None
    included: Decimal | None = None
    interval: Interval | None = None


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """From `starts_at` (None: from ever) windows follow this anchor, zone and interval."""

    anchor: datetime
    time_zone: str = "UTC"
    interval: Interval = Interval.MONTH
    starts_at: datetime | None = None
    limits: dict[str, Limit] = {}


DEFAULT_SEGMENT: Final = Segment(anchor=EPOCH)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A customer's segments in order of time; the first one starts from ever."""

    version: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A stored window: one ungrouped row of `usage_total`."""

    customer_id: UUID
    meter_id: int
    start_at: datetime
    end_at: datetime
    version: int
    used: Decimal
    reserved: Decimal
    quota_limit: Decimal | None
    included: Decimal | None

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
class Usage:
    """Metered usage of one bucket of time."""

    start: datetime
    quantity: Decimal
    events: int
