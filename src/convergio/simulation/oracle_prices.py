"""The oracle's arithmetic: what a quantity costs, in exact fractions of major units.

Written from RULES.md and `docs/howto/catalog.md`, not from `rating`, which it must never import:
where both make the same mistake, nobody would see it. It reads a charge as the catalog file has
it, a mapping of texts. Slow and plain on purpose; the one rounding is `rounded`.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

Charge = Mapping[str, Any]
_HALF = Fraction(1, 2)
_NOTHING = Fraction(0)


def rounded(major: Fraction, places: int) -> int:
    """Return minor units. Rounds: half away from zero."""
    minor = major * Fraction(10) ** places
    return floor(minor + _HALF) if minor >= 0 else -floor(-minor + _HALF)


def included(charge: Charge) -> Fraction:
    """Return what costs nothing extra in a whole period."""
    return Fraction(charge.get("included", "0"))


def fee(charge: Charge, seats: int, share: Fraction) -> Fraction:
    """Return a fee in advance for a share of its period."""
    if charge["model"] == "flat":
        whole = Fraction(charge["amount"])
    else:
        whole = Fraction(charge["unit"]) * max(_NOTHING, seats - included(charge))
    return bounded(charge, whole * share, share)


def usage(
    charge: Charge, before: Fraction, until: Fraction, *, reach: Fraction, share: Fraction
) -> Fraction:
    """Return the price of the units from `before` to `until`, both counted beyond the allowance.

    `reach` is where the whole period's usage ends, which picks the tier of a volume price. What a
    price asks for its time, a fixed part, a minimum or a maximum, is prorated by `share`.
    """
    if charge["model"] == "volume":
        cost = _volume(charge, until, reach) - _volume(charge, before, reach)
    else:
        cost = _measured(charge, until) - _measured(charge, before)
    cost += Fraction(charge.get("fixed", "0")) * share
    return bounded(charge, cost, share)


def bounded(charge: Charge, cost: Fraction, share: Fraction) -> Fraction:
    """Return a cost within its prorated minimum and maximum."""
    if charge.get("maximum") is not None:
        cost = min(cost, Fraction(charge["maximum"]) * share)
    if charge.get("minimum") is not None:
        cost = max(cost, Fraction(charge["minimum"]) * share)
    return cost


def _measured(charge: Charge, units: Fraction) -> Fraction:
    match charge["model"]:
        case "unit":
            return units * Fraction(charge["unit"]) / Fraction(charge.get("per", "1"))
        case "package":
            begun = ceil(units / Fraction(charge["package_size"]))
            return begun * Fraction(charge["package_price"])
        case "percentage":
            return units * Fraction(charge["percent"]) / 100
        case "graduated":
            return _tiered(charge["tiers"], units, "unit", Fraction(charge.get("per", "1")))
        case "graduated_percentage":
            return _tiered(charge["tiers"], units, "percent", Fraction(100))
        case other:
            raise ValueError(f"the oracle knows no price model {other}")


def _tiered(
    tiers: Sequence[Mapping[str, Any]], units: Fraction, field: str, per: Fraction
) -> Fraction:
    """Add up tier by tier; entering one costs its flat fee, and its end belongs to it."""
    cost, below = _NOTHING, _NOTHING
    for tier in tiers:
        if units <= below:
            break
        top = units if tier.get("up_to") is None else min(units, Fraction(tier["up_to"]))
        cost += Fraction(tier.get("flat", "0")) + (top - below) * Fraction(tier[field]) / per
        below = top if tier.get("up_to") is None else Fraction(tier["up_to"])
    return cost


def _volume(charge: Charge, units: Fraction, reach: Fraction) -> Fraction:
    """Price every unit by the tier that the period's whole quantity lands in."""
    if units <= 0:
        return _NOTHING
    for tier in charge["tiers"]:
        if tier.get("up_to") is None or reach <= Fraction(tier["up_to"]):
            per = Fraction(charge.get("per", "1"))
            return Fraction(tier.get("flat", "0")) + units * Fraction(tier["unit"]) / per
    raise ValueError("the last tier is open")


def exact(quantity: Decimal) -> Fraction:
    """Return a quantity as a fraction."""
    return Fraction(quantity)
