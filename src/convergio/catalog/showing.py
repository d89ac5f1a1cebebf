"""The catalog and a change of it as JSON, for the command line and for HTTP alike."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import msgspec

from convergio.catalog.model import Catalog, Change, Meter, Plan, Price
from convergio.infra.ids import typeid
from convergio.kernel.quantity import quantity_text


def charge_value(price: Price) -> dict[str, Any]:
    """Return the charge as the file writes it, without what is absent."""
    fields: dict[str, Any] = msgspec.to_builtins(price.charge)
    return {name: value for name, value in fields.items() if value is not None}


def value(catalog: Catalog) -> dict[str, Any]:
    """Return the catalog as JSON, in the words of the file."""
    plans = (*catalog.plans.values(), *catalog.archived.values())
    return {
        "version": catalog.version,
        "events": [
            {"type": event_type, "keep": sorted(names)}
            for event_type, names in catalog.event_types.items()
        ],
        "meters": [_meter(meter) for meter in catalog.meters.values()],
        "plans": [_plan(one) for one in plans],
    }


def _meter(meter: Meter) -> dict[str, Any]:
    """Return a meter as JSON."""
    return {
        "key": meter.key,
        "name": meter.name,
        "event": meter.event_type,
        "aggregation": meter.aggregation,
        "value": meter.value,
        "default": None if meter.default is None else quantity_text(meter.default),
        "where": [asdict(condition) for condition in meter.filters],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    """Return a plan with the prices that it sells as JSON."""
    return {
        "key": plan.key,
        "name": plan.name,
        "description": plan.description,
        "archived": plan.archived,
        "prices": prices_value(plan.prices),
    }


def prices_value(prices: Iterable[Price]) -> list[dict[str, Any]]:
    """Return prices as JSON."""
    return [
        {
            "id": typeid("price", price.price_id),
            "key": price.key,
            "version": price.version,
            "name": price.name,
            "kind": price.kind,
            "meter": price.meter_key,
            "interval": price.interval.value,
            "currency": price.currency,
            "charge": charge_value(price),
            "quota": None
            if price.quota is None
            else {"limit": quantity_text(price.quota.limit), "hard": price.quota.hard},
            "tax_category": price.tax_category,
            "tax_inclusive": price.tax_inclusive,
        }
        for price in prices
    ]


def change_value(change: Change) -> dict[str, Any]:
    """Return a change as JSON: what is added, changed and removed, field by field."""
    return {
        "version": change.version,
        "changed": not change.is_empty,
        "entries": [asdict(entry) for entry in change.entries],
    }
