"""A collection follows one invoice to its payment; an attempt is one try, kept for ever.

An attempt is written before the gateway is called and carries the key of that call. While one is
pending (`intent`, `unknown`, `requires_action`) no other can begin: a unique index holds it, so
the same invoice is never charged twice at once. A time-out is `unknown`, which is not a failure.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from convergio.kernel.errors import Rejected, Unavailable
from convergio.kernel.money import Money


class CollectionState(StrEnum):
    """Where the collecting of an invoice stands; `due` without a date has an attempt under way."""

    DUE = "due"
    PAID = "paid"
    REQUIRES_ACTION = "requires_action"
    WAITING_FOR_METHOD = "waiting_for_method"
    EXHAUSTED = "exhausted"
    CLOSED = "closed"


class AttemptState(StrEnum):
    """What is known of one try."""

    INTENT = "intent"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    REQUIRES_ACTION = "requires_action"


PENDING: Final = frozenset(
    {AttemptState.INTENT, AttemptState.UNKNOWN, AttemptState.REQUIRES_ACTION}
)
RESTING: Final = frozenset({CollectionState.WAITING_FOR_METHOD, CollectionState.EXHAUSTED})
"""What only a new payment method moves."""

TRANSITIONS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = MappingProxyType(
    {
        AttemptState.INTENT: frozenset(AttemptState) - {AttemptState.INTENT},
        AttemptState.UNKNOWN: frozenset(AttemptState) - {AttemptState.INTENT},
        AttemptState.REQUIRES_ACTION: frozenset(AttemptState) - {AttemptState.INTENT},
        AttemptState.SUCCEEDED: frozenset(),
        AttemptState.DECLINED: frozenset(),
    }
)

Schedule = tuple[timedelta, ...]
"""When to try again, counted from the first failure; after the last step it is over."""

DUNNING: Final[Schedule] = tuple(timedelta(days=days) for days in (1, 3, 5, 7))


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay, as the gateway's token; after a hard decline (`refused_at`) never used."""

    customer_id: UUID
    payment_method_id: UUID
    gateway: str
    token: str
    brand: str | None
    last_four: str | None
    is_default: bool
    refused_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Collection:
    """One invoice on its way to being paid; `failures` counts declines, not time-outs."""

    customer_id: UUID
    invoice_id: UUID
    state: CollectionState
    attempts: int
    failures: int
    first_failed_at: datetime | None
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to collect one invoice; amounts in minor units."""

    customer_id: UUID
    attempt_id: UUID
    invoice_id: UUID
    number: int
    payment_method_id: UUID
    gateway: str
    amount: int
    currency: str
    state: AttemptState
    decline_code: str | None
    gateway_reference: str | None
    fee: int | None
    made_at: datetime
    settled_at: datetime | None


class ReceiptMethod(StrEnum):
    """How money came that no gateway took."""

    BANK_TRANSFER = "bank_transfer"
    CHECK = "check"
    CASH = "cash"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Money as it was seen to come; minor units. `invoice_id` is the one that it was meant for."""

    customer_id: UUID
    receipt_id: UUID
    method: ReceiptMethod
    reference: str
    amount: int
    currency: str
    received_on: date
    invoice_id: UUID | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What one pass did. `collected` is decimal text by currency; problems name what to look at."""

    succeeded: int
    declined: int
    requires_action: int
    unknown: int
    waiting_for_method: int
    exhausted: int
    collected: Mapping[str, str]
    problems: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What a pass has done so far; `report` closes it."""

    states: Counter[str] = field(default_factory=Counter)
    collected: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def watching(self, invoice: str) -> Iterator[None]:
        """Turn what one invoice cannot do into a problem; a Fault goes on, as a bug should."""
        try:
            yield
        except (Rejected, Unavailable) as error:
            self.problems.append(f"{invoice}: {error}")

    def add(self, attempt: Attempt, collection: Collection) -> None:
        """Count an answer."""
        self.states[attempt.state] += 1
        if attempt.state is AttemptState.SUCCEEDED:
            self.collected[attempt.currency] += attempt.amount
        if attempt.state is AttemptState.DECLINED:
            self.rest(collection)

    def rest(self, collection: Collection) -> None:
        """Count a collection that nothing is tried for."""
        if collection.state in RESTING:
            self.states[collection.state] += 1

    def report(self) -> CollectReport:
        """Return the sums."""
        return CollectReport(
            succeeded=self.states[AttemptState.SUCCEEDED],
            declined=self.states[AttemptState.DECLINED],
            requires_action=self.states[AttemptState.REQUIRES_ACTION],
            unknown=self.states[AttemptState.UNKNOWN],
            waiting_for_method=self.states[CollectionState.WAITING_FOR_METHOD],
            exhausted=self.states[CollectionState.EXHAUSTED],
            collected={
                currency: Money(minor, currency).text()
                for currency, minor in sorted(self.collected.items())
            },
            problems=tuple(self.problems),
        )
