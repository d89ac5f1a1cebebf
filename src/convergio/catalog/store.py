"""The catalog's queries: one function each.

A `delete_*` of a thing that can be in use runs in its own savepoint and answers whether it could:
the foreign keys of the rooms above know who uses it, so this room need not.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg import errors as pg

from convergio.catalog.model import (
    Aggregation,
    Filter,
    Meter,
    MeterTerms,
    OldDefinition,
    PlanTerms,
    Price,
    PriceTerms,
    Quota,
)
from convergio.infra import sql
from convergio.infra.db import Tx
from convergio.kernel.money import Money
from convergio.kernel.periods import Interval
from convergio.rating.model import Charge

_QUERIES = sql.load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event type."""

    event_type: str
    keep: list[str]


@dataclass(frozen=True, slots=True)
class MeterRow:
    """One meter."""

    meter_id: int
    meter_key: str
    name: str
    event_type: str
    aggregation: Aggregation
    value: str | None
    default_value: Decimal | None
    filters: list[dict[str, Any]]
    group_by: list[str]
    version: int
    starts_at: datetime


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """One older definition of a meter."""

    meter_id: int
    version: int
    starts_at: datetime
    ends_at: datetime
    value: str | None
    default_value: Decimal | None
    filters: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan without its prices."""

    plan_key: str
    name: str
    description: str
    archived: bool
    add_on: bool


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price version."""

    price_id: UUID
    price_key: str
    version: int
    name: str
    meter_key: str | None
    interval: str
    currency: str
    charge: dict[str, Any]
    quota: dict[str, Any] | None
    tax_category: str
    tax_inclusive: bool
    once: bool
    dimension: str | None
    charges: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlanPriceRow:
    """One price that a plan sells."""

    plan_key: str
    price_id: UUID


def read_version(tx: Tx) -> int:
    """Return the catalog's version; 0 before the first apply."""
    return tx.value(_QUERIES["read_version"]) or 0


def begin_state(tx: Tx, *, now: datetime) -> None:
    """Make the row that an apply locks, unless it is there."""
    tx.run(_QUERIES["begin_state"], now=now)


def lock_state(tx: Tx) -> int:
    """Wait for any other apply, keep the next one waiting, and return the version."""
    return int(tx.value(_QUERIES["lock_state"]))


def share_state(tx: Tx) -> int:
    """Keep any apply waiting until the transaction ends, and return the version."""
    return tx.value(_QUERIES["share_state"]) or 0


def save_state(tx: Tx, version: int, minimums: Mapping[str, Money], *, now: datetime) -> None:
    """Store the version that an apply ends with, and the least that is asked for."""
    amounts = {currency: money.minor for currency, money in minimums.items()}
    tx.run(_QUERIES["save_state"], version=version, minimums=_json(amounts), now=now)


def read_minimums(tx: Tx) -> dict[str, Money]:
    """Return the least that is asked for, by currency."""
    found: dict[str, int] = tx.value(_QUERIES["read_minimums"]) or {}
    return {currency: Money(minor, currency) for currency, minor in found.items()}


def is_empty(tx: Tx) -> bool:
    """Say whether there is no event type, meter or plan at all."""
    return bool(tx.value(_QUERIES["is_empty"]))


def read_events(tx: Tx) -> dict[str, frozenset[str]]:
    """Return the properties that the file declares, by event type."""
    rows = tx.many(_QUERIES["read_events"], EventRow)
    return {row.event_type: frozenset(row.keep) for row in rows}


def read_definitions(tx: Tx) -> dict[int, list[OldDefinition]]:
    """Return what each meter counted before, the oldest first."""
    older: dict[int, list[OldDefinition]] = {}
    for row in tx.many(_QUERIES["read_definitions"], DefinitionRow):
        filters = msgspec.convert(row.filters, tuple[Filter, ...])
        older.setdefault(row.meter_id, []).append(
            OldDefinition(
                row.version, row.starts_at, row.ends_at, row.value, row.default_value, filters
            )
        )
    return older


def read_meters(tx: Tx) -> dict[str, Meter]:
    """Return every meter by its key."""
    older = read_definitions(tx)
    return {
        row.meter_key: _meter(row, tuple(older.get(row.meter_id, ())))
        for row in tx.many(_QUERIES["read_meters"], MeterRow)
    }


def read_plans(tx: Tx) -> list[PlanRow]:
    """Return every plan in the order of the file."""
    return tx.many(_QUERIES["read_plans"], PlanRow)


def read_prices(tx: Tx) -> dict[UUID, Price]:
    """Return every price version by its id."""
    return {row.price_id: _price(row) for row in tx.many(_QUERIES["read_prices"], PriceRow)}


def read_plan_prices(tx: Tx) -> list[PlanPriceRow]:
    """Return what each plan sells, in order."""
    return tx.many(_QUERIES["read_plan_prices"], PlanPriceRow)


def read_prices_by_id(tx: Tx, price_ids: Collection[UUID]) -> dict[UUID, Price]:
    """Return the price versions with these ids."""
    query = _QUERIES["read_prices_by_id"]
    rows = tx.many(query, PriceRow, price_ids=list(price_ids))
    return {row.price_id: _price(row) for row in rows}


def save_event(tx: Tx, event_type: str, keep: Iterable[str]) -> None:
    """Store an event type."""
    tx.run(_QUERIES["save_event"], event_type=event_type, keep=sorted(keep))


def delete_event(tx: Tx, event_type: str) -> bool:
    """Forget an event type; say whether that could be done."""
    return _deleted(tx, _QUERIES["delete_event"], event_type=event_type)


def keep_definition(tx: Tx, meter: Meter, *, ends_at: datetime) -> None:
    """Keep what a meter counted up to an instant, before its next version is stored."""
    tx.run(_QUERIES["keep_definition"], meter_id=meter.meter_id, ends_at=ends_at)


def save_meter(tx: Tx, meter: MeterTerms, *, starts_at: datetime, now: datetime) -> None:
    """Store a meter; of one that exists the name changes, and with a version the definition."""
    tx.run(
        _QUERIES["save_meter"],
        meter_key=meter.key,
        name=meter.name,
        event_type=meter.event_type,
        aggregation=meter.aggregation,
        value=meter.value,
        default_value=meter.default,
        filters=_json([asdict(condition) for condition in meter.filters]),
        group_by=list(meter.group_by),
        version=meter.version,
        starts_at=starts_at,
        now=now,
    )


def delete_meter(tx: Tx, meter_key: str) -> bool:
    """Forget a meter; say whether that could be done."""
    return _deleted(tx, _QUERIES["delete_meter"], meter_key=meter_key)


def save_plan(tx: Tx, plan: PlanTerms, *, position: int) -> None:
    """Store a plan that is on sale."""
    tx.run(
        _QUERIES["save_plan"],
        plan_key=plan.key,
        name=plan.name,
        description=plan.description,
        position=position,
        add_on=plan.add_on,
    )


def archive_plan(tx: Tx, plan_key: str) -> None:
    """Take a plan off sale."""
    tx.run(_QUERIES["archive_plan"], plan_key=plan_key)


def delete_plan(tx: Tx, plan_key: str) -> bool:
    """Forget a plan; say whether that could be done."""
    return _deleted(tx, _QUERIES["delete_plan"], plan_key=plan_key)


def insert_price(
    tx: Tx, price: PriceTerms, *, price_id: UUID, now: datetime, customer_id: UUID | None = None
) -> None:
    """Store a price version, for ever; one that was negotiated with a customer is theirs alone."""
    tx.run(
        _QUERIES["insert_price"],
        price_id=price_id,
        price_key=price.key,
        version=price.version,
        name=price.name,
        kind=price.kind,
        meter_key=price.meter_key,
        interval=price.interval.value,
        currency=price.currency,
        charge=_json(price.charge),
        quota=None if price.quota is None else _json(price.quota),
        tax_category=price.tax_category,
        tax_inclusive=price.tax_inclusive,
        once=price.once,
        dimension=price.by,
        charges=_json(price.charges),
        customer_id=customer_id,
        now=now,
    )


def delete_price(tx: Tx, price_id: UUID) -> bool:
    """Forget a price version; say whether that could be done."""
    return _deleted(tx, _QUERIES["delete_price"], price_id=price_id)


def clear_plan_prices(tx: Tx) -> None:
    """Sell nothing, before the new list is stored in the same transaction."""
    tx.run(_QUERIES["clear_plan_prices"])


def insert_plan_price(tx: Tx, rows: Iterable[Mapping[str, object]]) -> None:
    """Sell prices: each row has plan_key, price_key, version and position."""
    tx.run_many(_QUERIES["insert_plan_price"], list(rows))


def _deleted(tx: Tx, query: LiteralString, **values: object) -> bool:
    with suppress(pg.ForeignKeyViolation):
        with tx.savepoint():
            tx.run(query, **values)
        return True
    return False


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _meter(row: MeterRow, older: tuple[OldDefinition, ...]) -> Meter:
    return Meter(
        meter_id=row.meter_id,
        key=row.meter_key,
        name=row.name,
        event_type=row.event_type,
        aggregation=row.aggregation,
        value=row.value,
        default=row.default_value,
        filters=msgspec.convert(row.filters, tuple[Filter, ...]),
        group_by=tuple(row.group_by),
        version=row.version,
        starts_at=row.starts_at,
        older=older,
    )


def _price(row: PriceRow) -> Price:
    return Price(
        price_id=row.price_id,
        key=row.price_key,
        version=row.version,
        name=row.name,
        meter_key=row.meter_key,
        interval=Interval(row.interval),
        currency=row.currency,
        charge=msgspec.convert(row.charge, Charge),
        quota=None if row.quota is None else msgspec.convert(row.quota, Quota),
        tax_category=row.tax_category,
        tax_inclusive=row.tax_inclusive,
        once=row.once,
        by=row.dimension,
        charges={value: msgspec.convert(charge, Charge) for value, charge in row.charges.items()},
    )
