"""What the catalog file says, what the database holds, and the difference of the two.

Three shapes, one idea: *terms* are what the file can say about a meter, a price or a plan; the
stored thing is the same terms with the id that the database gave it; a `Change` lists, field by
field, how the stored catalog differs from the file.

A price is an immutable row named by (key, version). A plan sells some prices today; a subscription
pins price ids, so a new version moves nobody who is already subscribed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from convergio.kernel.money import Money
from convergio.kernel.periods import Interval
from convergio.rating.model import Charge

Aggregation = Literal["sum", "count", "max", "unique_count", "last"]
Operator = Literal["in", "not_in", "exists"]
Kind = Literal["fixed", "usage"]
State = Literal["added", "changed", "removed", "retired", "archived", "unchanged"]
What = Literal["event", "meter", "plan", "price", "order", "minimum_charge"]

# `\Z` and not `$`, which also matches before a last newline.
Key = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z")]
Property = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}\Z")]
EventType = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,200}\Z")]
Value = Annotated[str, msgspec.Meta(max_length=200)]
ALERTS: Final = (50, 80, 100)
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Longer than an event may be ahead of its time, and than a process takes to see a new catalog.
METER_LEAD: Final = timedelta(minutes=10)
Percent = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Version = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

DESCRIPTION_SIZE_MAX: Final = 2000
MENDS: Final[Mapping[str, str]] = {
    "": "write currency, events, meters and plans",
    "key": "write lower-case letters, digits, _ and -, at most 64 characters",
    "name": "write one line of 1 to 200 characters",
    "description": "write text of at most 2,000 characters",
    "type": "write the event's type, such as ai.request: printable ASCII without blanks",
    "event": "write the type of an event that `events` lists",
    "keep": "write property names: a letter first, then letters, digits and . _ -",
    "where": "write a property and its condition, such as status: {not_in: [failed]}",
    "value": "write the name of the property to add up",
    "aggregation": "write sum, count, max, unique_count or last",
    "group_by": "write at most 5 names of properties",
    "alerts": "write percentages such as [50, 80, 100]",
    "default": "write a decimal number such as 1",
    "in": "write a list of 1 to 100 values",
    "not_in": "write a list of 1 to 100 values",
    "exists": "write true or false",
    "version": "write a whole number from 1 on",
    "interval": "write day, week, month, quarter or year",
    "currency": "write an ISO 4217 code such as usd",
    "minimum_charge": "write an amount for each currency, such as {usd: 0.50}",
    "meter": "write the key of a meter that `meters` lists",
    "quota": "write {limit: 50, hard: true}",
    "tax_category": "write the category of a tax rate, such as standard or reduced",
    "tax_inclusive": "write true where the price has the tax inside, else false",
    "once": "write true for a fee that is charged a single time, else false",
    "currencies": "write a charge for each further currency, such as eur: {model: flat, ...}",
    "by": "write the name of a property that the meter's group_by lists, such as model",
    "charges": "write a charge for each value, such as gpt-4o: {model: unit, unit: 0.02}",
    "add_on": "write true for what a customer takes beside a plan, else false",
    "limit": "write a decimal number such as 50",
    "hard": "write true or false",
    "per_seat": "write true where the limit is for each seat, else false",
    "included_per_seat": "write true where the included quantity is for each seat, else false",
    "prices": "write a list of prices",
    "plans": "write a list of plans",
    "meters": "write a list of meters",
    "events": "write a list of event types",
    "charge": "write a charge, such as {model: flat, amount: 6.99}",
    "model": "write flat, unit, seat, graduated, volume, package, percentage or "
    "graduated_percentage",
    "tiers": "write a list of tiers whose last one has no up_to",
    "amount": "write an amount in major units such as 6.99",
    "unit": "write a price in major units such as 0.01",
}


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the file; a field that is not known is refused."""


class EventLine(_Line, frozen=True, kw_only=True):
    """An event type, and the properties that are kept although no meter needs them."""

    type: EventType
    keep: Annotated[tuple[Property, ...], msgspec.Meta(max_length=200)] = ()


class ConditionLine(_Line, frozen=True, kw_only=True):
    """What a property must be for a meter to count the event."""

    is_in: Annotated[tuple[Value, ...], msgspec.Meta(min_length=1, max_length=100)] | None = (
        msgspec.field(name="in", default=None)
    )
    not_in: Annotated[tuple[Value, ...], msgspec.Meta(min_length=1, max_length=100)] | None = None
    exists: bool | None = None


class MeterLine(_Line, frozen=True, kw_only=True):
    """A meter as the file writes it."""

    key: Key
    name: str
    event: EventType
    version: Version = 1
    aggregation: Aggregation = "sum"
    value: Property | None = None
    default: str | None = None
    group_by: Annotated[tuple[Property, ...], msgspec.Meta(max_length=5)] = ()
    where: Annotated[dict[Property, ConditionLine], msgspec.Meta(max_length=20)] = {}


class QuotaLine(_Line, frozen=True, kw_only=True):
    """How much a period may use, whether more is refused, and at which percentages to tell.

    A limit `per_seat` is for each seat of the subscription.
    """

    limit: str
    hard: bool = False
    per_seat: bool = False
    alerts: Annotated[tuple[Percent, ...], msgspec.Meta(max_length=20)] = ALERTS


class PriceLine(_Line, frozen=True, kw_only=True):
    """A price as the file writes it."""

    key: Key
    name: str
    version: Version = 1
    interval: Interval = Interval.MONTH
    currency: str | None = None
    meter: Key | None = None
    quota: QuotaLine | None = None
    tax_category: Key = "standard"
    tax_inclusive: bool = False
    once: bool = False
    charge: Charge
    currencies: Annotated[dict[str, Charge], msgspec.Meta(max_length=50)] = {}
    by: Property | None = None
    charges: Annotated[dict[Value, Charge], msgspec.Meta(max_length=200)] = {}


class PlanLine(_Line, frozen=True, kw_only=True):
    """A plan as the file writes it."""

    key: Key
    name: str
    description: str = ""
    prices: Annotated[tuple[PriceLine, ...], msgspec.Meta(max_length=50)] = ()
    add_on: bool = False


class CatalogFile(_Line, frozen=True, kw_only=True):
    """The whole file."""

    currency: str | None = None
    minimum_charge: Annotated[dict[str, str], msgspec.Meta(max_length=50)] = {}
    events: Annotated[tuple[EventLine, ...], msgspec.Meta(max_length=1000)] = ()
    meters: Annotated[tuple[MeterLine, ...], msgspec.Meta(max_length=1000)] = ()
    plans: Annotated[tuple[PlanLine, ...], msgspec.Meta(max_length=1000)] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one property; `exists` has the single value `true` or `false`."""

    property: str
    op: Operator
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterTerms:
    """What a meter counts."""

    key: str
    name: str
    event_type: str
    aggregation: Aggregation
    value: str | None
    default: Decimal | None
    filters: tuple[Filter, ...]
    group_by: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True)
class OldDefinition:
    """What a meter counted before: it reads the events that occurred in `[starts_at, ends_at)`."""

    version: int
    starts_at: datetime
    ends_at: datetime
    value: str | None
    default: Decimal | None
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter(MeterTerms):
    """A stored meter: its newest definition, in force from `starts_at` on, and the older ones."""

    meter_id: int
    starts_at: datetime = EVER
    older: tuple[OldDefinition, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """How much one period may use, each seat where it says so; a hard one refuses the next unit."""

    limit: Decimal
    hard: bool
    alerts: tuple[int, ...] = ALERTS
    per_seat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTerms:
    """What a price asks; `usage` where it has a meter, else `fixed`.

    `tax_category` names its rate in the tax file; a `tax_inclusive` price has the tax inside. A
    price that is asked `once` is a fee when it begins. `charges` are for the values of the
    dimension `by`, each with a sum of its own; `charge` is for all others together.
    """

    key: str
    version: int
    name: str
    meter_key: str | None
    interval: Interval
    currency: str
    charge: Charge
    quota: Quota | None
    tax_category: str = "standard"
    tax_inclusive: bool = False
    once: bool = False
    by: str | None = None
    charges: Mapping[str, Charge] = field(default_factory=dict)

    def same_meter(self, other: "PriceTerms") -> bool:
        """Say whether both would rate the same usage of one customer."""
        return (self.meter_key, self.currency) == (other.meter_key, other.currency)

    @property
    def kind(self) -> Kind:
        """Say whether the price is asked for usage or for a period."""
        return "fixed" if self.meter_key is None else "usage"

    @property
    def listed_key(self) -> str:
        """The key in the catalog: of an agreed price, that of what it takes the place of."""
        return self.key.partition("@")[0]

    @property
    def label(self) -> str:
        """Return the key and version, which name the price for ever."""
        return f"{self.key} v{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(PriceTerms):
    """A stored price."""

    price_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTerms:
    """What a plan sells; `paths` are the places of its prices in the file, below the plan's."""

    key: str
    name: str
    description: str
    prices: tuple[PriceTerms, ...]
    add_on: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A stored plan with the prices that it sells today; an archived one sells none.

    An `add_on` is what a customer takes beside a plan.
    """

    key: str
    name: str
    description: str
    prices: tuple[Price, ...]
    archived: bool = False
    add_on: bool = False

    def in_currency(self, currency: str) -> tuple[Price, ...]:
        """Return what it sells to who pays in a currency; all of it where that is nothing.

        The caller then finds the other currency and says so.
        """
        return tuple(one for one in self.prices if one.currency == currency) or self.prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The file, checked: every reference in it resolves. Keys keep the order of the file."""

    events: Mapping[str, frozenset[str]]
    meters: Mapping[str, MeterTerms]
    plans: Mapping[str, PlanTerms]
    minimums: Mapping[str, Money] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The stored catalog at one version, which only ever grows.

    `event_types` gives the properties to keep of each type: what the file declares and what its
    meters read (RULES 16). `plans` are those on sale; `archived` ones have subscribers only.
    `prices_by_id` also holds prices that are pinned but no longer sold. What comes to less than
    the currency's one of `minimums` is not asked for alone.
    """

    version: int
    event_types: Mapping[str, frozenset[str]]
    declared: Mapping[str, frozenset[str]]
    meters: Mapping[str, Meter]
    plans: Mapping[str, Plan]
    archived: Mapping[str, Plan]
    prices_by_id: Mapping[UUID, Price]
    minimums: Mapping[str, Money] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field, before and after; None where there was or will be none."""

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One event type, meter, plan or price, and what becomes of it.

    `retired`: a price that is no longer sold and stays because someone pins it.
    """

    what: What
    key: str
    state: State
    fields: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of file and database; `version` is the catalog's once it is applied."""

    version: int
    entries: tuple[Entry, ...] = field(default_factory=tuple)

    @property
    def is_empty(self) -> bool:
        """Say whether the database already is what the file says."""
        return all(entry.state == "unchanged" for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Missing:
    """An event that the meter selects lacks the property that it adds up."""

    property: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """The property that the meter adds up is not a quantity."""

    property: str
    reason: str
