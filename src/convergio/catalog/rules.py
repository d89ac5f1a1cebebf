"""Decide what a meter counts, what the catalog file means, and how it differs from what is stored.

The functions on meters are the reference: ingest compiles the same `Filter` data into something
quicker and must agree with them (`tests/unit/test_catalog_meters.py`). Texts are compared as they
are; booleans read `true` and `false`, numbers have no exponent and no trailing zeros; a property
that is null counts as absent; a list or a mapping equals no text.

The difference is text against text, field by field, so what `plan` prints is what was compared.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar

from convergio.catalog.describing import (
    Described,
    event_text,
    meter_text,
    minimum_text,
    plan_text,
    price_text,
)
from convergio.catalog.model import (
    EVER,
    METER_LEAD,
    Catalog,
    CatalogFile,
    Change,
    ConditionLine,
    Definition,
    Entry,
    FieldChange,
    Filter,
    Meter,
    MeterLine,
    MeterTerms,
    Missing,
    Operator,
    Plan,
    PlanTerms,
    Price,
    PriceTerms,
    State,
    Unusable,
    What,
)
from convergio.catalog.selling import plan_terms, read
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.money import Money
from convergio.kernel.quantity import parse_quantity, quantity_text
from convergio.kernel.text import check_text

Thing = TypeVar("Thing")

ONE: Final = Decimal(1)
EVENT_QUANTITY_BOUND: Final = 10**18
_DIGITS_MAX: Final = 60
_BOUND: Final = 10**_DIGITS_MAX


def property_text(value: object) -> str | None:
    """Return a property as filters compare it; None where it has no text."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() if abs(value) < _BOUND:
            return str(value)
        case float():
            return property_text(Decimal(repr(value)))
        case Decimal() if value.is_finite() and abs(value.adjusted()) <= _DIGITS_MAX:
            return quantity_text(value)
        case _:
            return None


def selects(meter: MeterTerms, event_type: str, properties: Mapping[str, object]) -> bool:
    """Say whether the meter counts an event of this type with these properties.

    `not_in` also passes an event without the property; add `exists: true` to ask for it.
    """
    return event_type == meter.event_type and all(
        _passes(condition, properties.get(condition.property)) for condition in meter.filters
    )


def quantity(meter: MeterTerms, properties: Mapping[str, object]) -> Decimal | Missing | Unusable:
    """Return how much an event that the meter selects adds to it.

    An absent value property counts as the meter's default; without a default it is Missing, and
    the event is rejected (RULES 16). A present value that is not a quantity is never replaced by
    the default, and a float is not one: decode JSON numbers to Decimal.
    """
    if meter.value is None:
        return ONE
    value = properties.get(meter.value)
    if meter.aggregation == "unique_count" and property_text(value) is not None:
        return ONE
    if value is None:
        return Missing(meter.value) if meter.default is None else meter.default
    try:
        amount = _amount(value)
    except Invalid as error:
        return Unusable(meter.value, error.detail)
    if amount >= EVENT_QUANTITY_BOUND:
        return Unusable(meter.value, "one event adds less than 10 to the power 18; split it")
    return amount


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Invalid('send a decimal number, such as 2 or "2.5"')
    text = property_text(value) or ""
    if isinstance(value, Decimal) and text:
        text = format(value, "f")  # all its decimals, as text has them
    return parse_quantity(text)


def _passes(condition: Filter, value: object) -> bool:
    if condition.op == "exists":
        return (value is not None) == (condition.values == ("true",))
    found = property_text(value) in condition.values
    return found if condition.op == "in" else not found


def definition(file: CatalogFile) -> Definition:
    """Check the file's references and numbers. Raises: Invalid naming the field."""
    _distinct([(f"events[{i}].type", line.type) for i, line in enumerate(file.events)])
    _distinct([(f"meters[{i}].key", line.key) for i, line in enumerate(file.meters)])
    _distinct([(f"plans[{i}].key", line.key) for i, line in enumerate(file.plans)])
    _distinct(
        [
            (f"plans[{i}].prices[{j}].key", price.key)
            for i, plan in enumerate(file.plans)
            for j, price in enumerate(plan.prices)
        ]
    )
    events = {line.type: frozenset(line.keep) for line in file.events}
    meters = {
        line.key: _meter(line, f"meters[{place}]", events) for place, line in enumerate(file.meters)
    }
    plans = {
        line.key: plan_terms(line, f"plans[{place}]", meters, file.currency)
        for place, line in enumerate(file.plans)
    }
    return Definition(events=events, meters=meters, plans=plans, minimums=_minimums(file))


def _minimums(file: CatalogFile) -> Mapping[str, Money]:
    """Return the least that is asked for, by currency."""
    minimums = {}
    for currency, amount in sorted(file.minimum_charge.items()):
        where = f"minimum_charge.{currency}"
        money = read(partial(Money.parse, currency=currency), amount, where)
        if money.minor <= 0:
            raise Invalid("write an amount above zero, or leave it out", field=where)
        minimums[currency] = money
    return minimums


def _distinct(keys: Sequence[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for path, key in keys:
        if key in seen:
            detail = f"'{key}' already stands at {seen[key]}; give one of the two another name"
            raise Invalid(detail, code="duplicate_key", field=path)
        seen[key] = path


def _meter(line: MeterLine, path: str, events: Mapping[str, object]) -> MeterTerms:
    if line.event not in events:
        detail = f"there is no event type '{line.event}'; list it under events"
        raise Invalid(detail, code="unknown_event", field=f"{path}.event")
    if line.aggregation != "count" and line.value is None:
        detail = (
            f"{line.aggregation} needs the property that it reads; name it, or write "
            "aggregation: count"
        )
        raise Invalid(detail, code="missing_value", field=f"{path}.value")
    if line.aggregation == "count" and not line.value is line.default is None:
        name = "default" if line.value is None else "value"
        detail = f"a count adds up no property; remove {name}, or write aggregation: sum"
        raise Invalid(detail, code="unexpected_value", field=f"{path}.{name}")
    if line.default is not None and line.aggregation in {"unique_count", "last"}:
        detail = f"{line.aggregation} has no default; remove it, or count only where it exists"
        raise Invalid(detail, code="unexpected_value", field=f"{path}.default")
    filters = [
        found
        for name, condition in sorted(line.where.items())
        for found in _filters(name, condition, f"{path}.where.{name}")
    ]
    default = line.default
    return MeterTerms(
        key=line.key,
        name=check_text(line.name, field=f"{path}.name"),
        event_type=line.event,
        aggregation=line.aggregation,
        value=line.value,
        default=None if default is None else read(parse_quantity, default, f"{path}.default"),
        filters=tuple(filters),
        group_by=line.group_by,
        version=line.version,
    )


def _filters(name: str, line: ConditionLine, path: str) -> Iterator[Filter]:
    exists = None if line.exists is None else (str(line.exists).lower(),)
    found: list[tuple[Operator, tuple[str, ...] | None]] = [
        ("in", line.is_in),
        ("not_in", line.not_in),
        ("exists", exists),
    ]
    if all(values is None for _, values in found):
        detail = "the condition is empty; write in: [...], not_in: [...] or exists: true"
        raise Invalid(detail, code="empty_condition", field=path)
    for operator, values in found:
        if values is not None:
            yield Filter(name, operator, tuple(sorted(set(values))))


def difference(stored: Catalog, wanted: Definition) -> Change:
    """Compare field by field. A removed entry may become `retired` or `archived` when saved.

    Raises: Conflict when the file changes what a meter counts, or takes a price version back.
    """
    old_prices = _sold(stored.plans)
    prices = _sold(wanted.plans)
    plans = {**stored.plans, **{k: v for k, v in stored.archived.items() if k in wanted.plans}}
    entries = (
        *_entries("event", _each(event_text, stored.declared), _each(event_text, wanted.events)),
        *_entries("meter", _each(meter_text, stored.meters), _each(meter_text, wanted.meters)),
        *_entries("price", _each(price_text, old_prices), _each(price_text, prices)),
        *_entries(
            "minimum_charge",
            _each(minimum_text, stored.minimums),
            _each(minimum_text, wanted.minimums),
        ),
        *_entries("plan", _each(plan_text, plans), _each(plan_text, wanted.plans)),
        *_order(list(stored.plans), list(wanted.plans)),
    )
    _refuse_changed_meters(entries, list(wanted.meters))
    _refuse_earlier_versions(stored, wanted)
    changed = any(entry.state != "unchanged" for entry in entries)
    return Change(stored.version + changed, entries)


def replaced(stored: Catalog, wanted: Definition) -> Mapping[str, Price]:
    """Return, by the path in the file, the stored prices that the file defines otherwise."""
    by_label = {price.label: price for price in stored.prices_by_id.values()}
    return {
        path: by_label[price.label]
        for path, price in _placed_prices(wanted)
        if price.label in by_label and price_text(by_label[price.label]) != price_text(price)
    }


def in_use(path: str, price: Price, stored: Catalog, wanted: Definition) -> Conflict:
    """Return the refusal of a new definition for a price that someone pins."""
    asked = dict(_placed_prices(wanted))[path]
    names = [field.field for field in _fields(price_text(price), price_text(asked))]
    detail = (
        f"price {price.label} is in use and its {', '.join(names)} would change; "
        f"give it version {_latest(stored)[price.key] + 1}"
    )
    return Conflict(detail, code="price_in_use", field=f"{path}.{names[0]}")


def unstored(stored: Catalog, wanted: Definition) -> list[PriceTerms]:
    """Return the prices of the file that need a row of their own."""
    known = {price.label: price_text(price) for price in stored.prices_by_id.values()}
    prices = _sold(wanted.plans).values()
    return [price for price in prices if known.get(price.label) != price_text(price)]


def dropped(stored: Catalog, wanted: Definition) -> list[Price]:
    """Return every version of the prices that the file sells no more, where it did until now."""
    gone = set(_sold(stored.plans)) - set(_sold(wanted.plans))
    return [price for price in stored.prices_by_id.values() if price.key in gone]


def outcome(change: Change, *, archived: AbstractSet[str], retired: AbstractSet[str]) -> Change:
    """Return the change with what became of removed plans and prices that are in use."""
    kept_back: dict[What, tuple[AbstractSet[str], State]] = {
        "plan": (archived, "archived"),
        "price": (retired, "retired"),
    }
    entries = []
    for entry in change.entries:
        keys, state = kept_back.get(entry.what, (frozenset(), entry.state))
        is_kept = entry.state == "removed" and entry.key in keys
        entries.append(replace(entry, state=state) if is_kept else entry)
    return Change(change.version, tuple(entries))


def kept(
    declared: Mapping[str, frozenset[str]], meters: Iterable[MeterTerms]
) -> Mapping[str, frozenset[str]]:
    """Return the properties to keep of each event type: declared, added up or filtered on."""
    found = {event_type: set(names) for event_type, names in declared.items()}
    for meter in meters:
        names = found.setdefault(meter.event_type, set())
        names.update(condition.property for condition in meter.filters)
        names.update({meter.value} if meter.value is not None else ())
        names.update(meter.group_by)
        for old in meter.older if isinstance(meter, Meter) else ():
            names.update(condition.property for condition in old.filters)
            names.update({old.value} if old.value is not None else ())
    return {event_type: frozenset(names) for event_type, names in found.items()}


def starts_at(stored: Catalog, meter: MeterTerms, *, now: datetime) -> datetime:
    """Return when a meter's definition begins to read events.

    From ever for a meter whose event type is new with it, because no such event was counted yet;
    otherwise a while from now, when every process has the catalog and no event that is ahead of
    its time was counted under the definition before. What is unchanged keeps its beginning.
    """
    old = stored.meters.get(meter.key)
    if old is not None and old.version == meter.version:
        return old.starts_at
    return EVER if meter.event_type not in stored.event_types else now + METER_LEAD


_METER_IDENTITY: Final = frozenset({"event", "aggregation", "group_by"})


def _refuse_changed_meters(entries: Sequence[Entry], order: Sequence[str]) -> None:
    """Refuse another meaning for what is already counted; a higher version may begin one.

    The name is free. What is selected and added up may change with a higher version; the event
    type, the aggregation and the groups never do.
    """
    for entry in entries:
        fields = [field for field in entry.fields if field.field != "name"]
        if entry.what == "meter" and entry.state == "changed" and fields:
            raised = any(
                field.field == "version" and int(field.new or 1) > int(field.old or 1)
                for field in fields
            )
            fields = [f for f in fields if not raised or f.field in _METER_IDENTITY]
            if not fields:
                continue
            first = fields[0]
            mend = "add one with a new key"
            if first.field not in _METER_IDENTITY:
                mend = "give the meter its next version, or add one with a new key"
            detail = (
                f"what meter '{entry.key}' counts cannot change "
                f"({first.old or 'nothing'} -> {first.new or 'nothing'}); {mend}"
            )
            path = f"meters[{order.index(entry.key)}].{first.field}"
            raise Conflict(detail, code="meter_changed", field=path)


def _refuse_earlier_versions(stored: Catalog, wanted: Definition) -> None:
    """Refuse a version that was never stored below one that was: it would rewrite history."""
    labels = {price.label for price in stored.prices_by_id.values()}
    latest = _latest(stored)
    for path, price in _placed_prices(wanted):
        newest = latest.get(price.key, 0)
        if price.label not in labels and price.version < newest:
            detail = f"version {newest} of price '{price.key}' exists; write version {newest + 1}"
            raise Conflict(detail, code="version_goes_back", field=f"{path}.version")


def _latest(stored: Catalog) -> Mapping[str, int]:
    latest: dict[str, int] = {}
    for price in stored.prices_by_id.values():
        latest[price.key] = max(price.version, latest.get(price.key, 0))
    return latest


def _placed_prices(wanted: Definition) -> Iterator[tuple[str, PriceTerms]]:
    for i, plan in enumerate(wanted.plans.values()):
        for j, price in enumerate(plan.prices):
            yield f"plans[{i}].{plan.paths[j] if plan.paths else f'prices[{j}]'}", price


def _sold(plans: Mapping[str, Plan] | Mapping[str, PlanTerms]) -> Mapping[str, PriceTerms]:
    return {price.key: price for plan in plans.values() for price in plan.prices}


def _each(
    describe: Callable[[Thing], Described], things: Mapping[str, Thing]
) -> Mapping[str, Described]:
    return {key: describe(thing) for key, thing in things.items()}


def _entries(
    what: What, old: Mapping[str, Described], new: Mapping[str, Described]
) -> Iterator[Entry]:
    """Yield an entry for each key: those of the file in its order, then those that it lacks."""
    for key, description in new.items():
        fields = _fields(old.get(key, {}), description)
        state: State = "added" if key not in old else "changed" if fields else "unchanged"
        yield Entry(what, key, state, fields)
    for key, description in old.items():
        if key not in new:
            yield Entry(what, key, "removed", _fields(description, {}))


def _fields(old: Described, new: Described) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(name, old.get(name), new.get(name))
        for name in dict.fromkeys((*new, *old))
        if old.get(name) != new.get(name)
    )


def _order(old: Sequence[str], new: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry when plans that stay change places; additions and removals do not count."""
    before = ", ".join(key for key in old if key in new)
    after = ", ".join(key for key in new if key in old)
    if before != after:
        yield Entry("order", "plans", "changed", (FieldChange("plans", before, after),))
