"""What callers hold in their hands: permits, quotas, usage, rejections. Plain data, no behaviour.

Quantities are exact: `int`, `Decimal` or decimal text, never a float.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

Quantity = int | str | Decimal


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for `track_many`; id and time as in `track`."""

    customer: str
    type: str
    data: Mapping[str, object] | None = None
    id: str | None = None
    time: datetime | None = None


@dataclass(slots=True)
class Permit:
    """A quantity that the server holds for a customer until it is settled or expires.

    Set `used` to what was really used, before the block ends; None means all that was held.
    """

    customer: str
    meter: str
    quantity: Decimal
    reservation: str
    expires_at: datetime
    used: Quantity | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota now; None as `limit` and `remaining` means that nothing is refused."""

    customer: str
    meter: str
    limit: Decimal | None
    included: Decimal | None
    used: Decimal
    reserved: Decimal
    remaining: Decimal | None
    resets_at: datetime
    access: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Metered usage of one bucket of time, and of one group where it was asked for by group.

    `group` has a value for each property that the meter groups by; None where an event had none.
    """

    start: datetime
    quantity: Decimal
    events: int
    group: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event: accepted, duplicate, conflict or rejected, and why."""

    status: str
    reason: str = ""
    field: str | None = None
    detail: str = ""

    @property
    def counted(self) -> bool:
        """Whether the server has the event, from this request or an earlier one."""
        return self.status in {"accepted", "duplicate"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One event of `track_many` that the server refused for good, and why."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something that was tracked or settled and that the server refused for good.

    `kind` is event, commit or release; `target` is the event's id or the reservation; `body` is
    the JSON that was sent.
    """

    position: int
    kind: str
    target: str
    body: bytes
    reason: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the spool holds: how much waits, how much was rejected, and what went wrong last."""

    waiting: int
    size: int
    rejected: int
    trouble: str | None


OnRejected = Callable[[Rejection], None]
