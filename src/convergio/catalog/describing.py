"""Entries of the catalog as texts, field by field: what a difference is made of."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from convergio.catalog.model import MeterTerms, Plan, PlanTerms, PriceTerms
from convergio.kernel.money import Money
from convergio.kernel.quantity import quantity_text

Described: TypeAlias = Mapping[str, str]
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)


def event_text(keep: frozenset[str]) -> Described:
    """Return the fields of an event type."""
    return {"keep": ", ".join(sorted(keep))} if keep else {}


def meter_text(meter: MeterTerms) -> Described:
    """Return the fields of a meter."""
    return {
        "name": meter.name,
        **({} if meter.version == 1 else {"version": str(meter.version)}),
        "event": meter.event_type,
        "aggregation": meter.aggregation,
        **({} if meter.value is None else {"value": meter.value}),
        **({} if meter.default is None else {"default": quantity_text(meter.default)}),
        **({"group_by": ", ".join(meter.group_by)} if meter.group_by else {}),
        **{f"where.{f.property}.{f.op}": ", ".join(map(repr, f.values)) for f in meter.filters},
    }


def price_text(price: PriceTerms) -> Described:
    """Return the fields of a price."""
    quota = price.quota
    return {
        "version": str(price.version),
        "name": price.name,
        "interval": price.interval.value,
        "currency": price.currency,
        **({} if price.meter_key is None else {"meter": price.meter_key}),
        **dict(_leaves("charge", msgspec.to_builtins(price.charge))),
        **({} if quota is None else {"quota.limit": quantity_text(quota.limit)}),
        **({} if quota is None else {"quota.hard": str(quota.hard).lower()}),
        **({"quota.per_seat": "true"} if quota is not None and quota.per_seat else {}),
        **({} if quota is None else {"quota.alerts": ", ".join(map(str, quota.alerts))}),
        **({"tax_category": price.tax_category} if price.tax_category != "standard" else {}),
        **({"tax_inclusive": "true"} if price.tax_inclusive else {}),
        **({"once": "true"} if price.once else {}),
        **({"by": price.by} if price.by else {}),
        **{
            name: text
            for value, charge in sorted(price.charges.items())
            for name, text in _leaves(f"charges.{value}", msgspec.to_builtins(charge))
        },
    }


def minimum_text(minimum: Money) -> Described:
    """Return the fields of what is the least that is asked for in a currency."""
    return {"amount": minimum.text()}


def plan_text(plan: Plan | PlanTerms) -> Described:
    """Return the fields of a plan."""
    return {
        "name": plan.name,
        **({"description": plan.description} if plan.description else {}),
        **({"add_on": "true"} if plan.add_on else {}),
        "prices": ", ".join(price.label for price in plan.prices),
        **({"archived": "true"} if isinstance(plan, Plan) and plan.archived else {}),
    }


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield each text of a charge with its path; numbers without needless zeros."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _leaves(f"{path}[{place}]", inner)
    elif value is not None:
        text = str(value)
        yield path, quantity_text(Decimal(text)) if _NUMBER.fullmatch(text) else text
